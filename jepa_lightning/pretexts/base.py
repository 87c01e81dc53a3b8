"""Base class of pretexts, its inputs and its outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from jepa_lightning.encoders.base import Encoder
from jepa_lightning.names.shown import ShownModule
from jepa_lightning.objectives import Over, PredictionLoss, mean_of
from jepa_lightning.predictors.base import Predictor, PredictorSpec
from jepa_lightning.scale.ahead import MasksAhead
from jepa_lightning.schedules import Schedule, value_at
from jepa_lightning.targets.base import Target
from jepa_lightning.tokens import Latents, Masks, Tokens

if TYPE_CHECKING:  # for annotations only
    from jepa_lightning.modality import Batch, Modality


@dataclass(frozen=True)
class Networks:
    """The parts of a JEPA, so that a pretext runs without Lightning.

    Attributes:
        modality: its tokenizer and masker; `modality.encoder` is the context encoder.
        encoder: the context encoder.
        target: encodes the targets.
        predictor: predicts the targets' representations from the context.
    """

    modality: Modality
    encoder: Encoder
    target: Target
    predictor: Predictor


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Predicted and target representations.

    Attributes:
        predicted: (B, M, T, D), or (S, B, M, T, D) for S draws of a latent z.
        target: (B, M, T, D).
        valid: (B, M, T) bool, False for filler, or None.
        weight: (B, M, T) weight of each token in the loss, or None for one each.
        over: how to reduce draws: their mean, the best of each sample, or a share; see `PredictionLoss.forward`.
        share: factor of this prediction's loss in their sum, a number or a scalar tensor; None for one over the number
            of predictions.
        ramp: schedule that the factor is multiplied by, or a number.
    """

    predicted: Tensor
    target: Tensor
    valid: Tensor | None = None
    weight: Tensor | None = None
    over: Over = "mean"
    share: float | Tensor | None = None
    ramp: float | Schedule = 1.0

    def detach(self) -> Prediction:
        """The same without gradient."""
        return replace(self, predicted=self.predicted.detach(), target=self.target.detach())


def prediction_loss(predictions: list[Prediction], objective: PredictionLoss, step: int, total: int) -> Tensor:
    """Compute the loss of at least one prediction: the mean of their losses, or with shares their weighted sum."""
    objective.set_step(step, total)
    losses = [objective(p.predicted, p.target, p.valid, p.weight, p.over) for p in predictions]
    if all(p.share is None and p.ramp == 1.0 for p in predictions):
        return mean_of(losses)
    shares = [
        (1 / len(predictions) if p.share is None else p.share) * value_at(p.ramp, step, total) for p in predictions
    ]
    return torch.stack([share * loss for share, loss in zip(shares, losses, strict=True)]).sum()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a pretext on a batch. Losses, regularizers, the collapse monitor and callbacks read nothing else.

    Attributes:
        predictions: the prediction loss is the mean over these, or with shares their weighted sum; in a pretext without
            predictor, views of a sample are predictions of each other.
        context: output of the context encoder, one for each context (V-JEPA's masks) or view.
        target: output of the target, likewise; a single one if all contexts share it.
        actions: (B, T - 1, A) between the T states of a trajectory, if there are any. Context and target then
            hold B T samples, the states of all trajectories; see `by_trajectory`.
        terms: further terms of the loss by name, each a scalar and its weight, such as `CrossModal`'s alignment.
        levels: of the levels above the first, from the second on: an outcome each, without predictions, with its
            states and macro-actions. `UpperLevels` and the collapse monitor read them.
    """

    predictions: list[Prediction] = field(default_factory=list)
    context: list[Latents] = field(default_factory=list)
    target: list[Latents] = field(default_factory=list)
    actions: Tensor | None = None
    terms: Mapping[str, tuple[Tensor, float | Schedule]] = field(default_factory=dict)
    levels: list[Outcome] = field(default_factory=list)

    @property
    def batch_size(self) -> int:
        """Return B, the number of samples; of trajectories B T, that of their states."""
        return len((self.context or self.target)[0].values)

    def by_trajectory(self, latents: Latents) -> Tensor:
        """The pooled states of each trajectory in float32: (B T, S, D) to (B, T, D).

        Raises:
            ValueError: the outcome has no actions, so nobody knows what belongs together.
        """
        if self.actions is None:
            raise ValueError("expected an outcome of trajectories, with actions, got none: use the pretext Rollout")
        return latents.pooled().unflatten(0, (-1, self.actions.shape[1] + 1))

    def nothing(self) -> Tensor:
        """Return a loss of zero with a graph, for a batch without any term of the loss."""
        return torch.stack([latents.values.sum() for latents in self.context]).sum() * 0.0

    def detach(self) -> Outcome:
        """Detach all tensors, so that the graph of the step is freed."""
        return replace(
            self,
            predictions=[prediction.detach() for prediction in self.predictions],
            context=[latents.detach() for latents in self.context],
            target=[latents.detach() for latents in self.target],
            terms={name: (value.detach(), weight) for name, (value, weight) in self.terms.items()},
            levels=[level.detach() for level in self.levels],
        )


class Pretext(ShownModule, nn.Module, ABC):
    """Cut x and y from a batch, encode both, and predict one from the other.

    All random draws must come from the generator passed in, so that a resumed run draws the same. A pretext
    may own parameters (a codebook of latents), which are trained with the rest.
    """

    action_dim: int | None = None
    """Width A of the outcome's actions; None where it has none."""

    upper_actions: tuple[int, ...] = ()
    """Width of a macro-action of each level above the first."""

    learning_rate_scale: float = 1.0
    """Factor of `model.learning_rate` for the pretext's own parameters."""

    needs_statistics: bool = False
    """Whether `estimate` is to be called before training."""

    needs_regularizer: bool = False
    """Whether its representations collapse without a regularizer, whatever the target."""

    recordable: ClassVar[bool] = False
    """Whether it has a method `predict` whose outcome depends on the tensors in tokens and masks alone."""

    ahead: MasksAhead | None = None
    """Draws the masks of the next step ahead of it, where the pretext draws masks."""

    def estimate(self, batches: Iterable[Batch]) -> None:
        """Learn the data's statistics from training batches, and keep them in buffers."""

    def build(self, modality: Modality, target: Target) -> None:
        """Build the pretext's own parts from the widths; most have none."""

    def predictor_spec(self, modality: Modality, target: Target) -> PredictorSpec | None:
        """Return the spec of the predictor, with the width of a condition; None without a predictor."""
        return PredictorSpec(dim=modality.encoder.dim, out=target.dim, token=modality.spec)

    def latent_dims(self, modality: Modality, target: Target) -> tuple[int, int]:
        """Return the widths of the outcome's context, and of its targets and predictions."""
        return modality.encoder.dim, target.dim

    @abstractmethod
    def forward(self, nets: Networks, batch: Batch, generator: torch.Generator) -> Outcome:
        """Run the pretext on a batch.

        Args:
            nets: the parts of the JEPA; call only `forward` of encoder, target and predictor.
            batch: a batch on the device.
            generator: a generator on the CPU.
        """

    def masks(self, nets: Networks, tokens: Tokens, generator: torch.Generator) -> list[Masks]:
        """Return the masks of a pass, for pictures; empty if the pretext hides nothing."""
        return []
