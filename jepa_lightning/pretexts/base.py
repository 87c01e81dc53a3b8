"""What every pretext is, what it works with, and what it hands on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from jepa_lightning.config.shown import ShownModule
from jepa_lightning.encoders.base import Encoder
from jepa_lightning.objectives import Over
from jepa_lightning.predictors.base import Predictor, PredictorSpec
from jepa_lightning.targets.base import Target
from jepa_lightning.tokens import Latents, Masks, Tokens

if TYPE_CHECKING:  # which imports maskers and encoders only, but is no part of what a pretext is
    from jepa_lightning.modality import Batch, Modality


@dataclass(frozen=True)
class Networks:
    """The parts of a JEPA, a plain bag: a pretext is tried without Lightning.

    Attributes:
        modality: its tokenizer and masker; `modality.encoder` is the context encoder.
        encoder: the context encoder.
        target: who encodes what is to be predicted.
        predictor: from the context to the target.
    """

    modality: Modality
    encoder: Encoder
    target: Target
    predictor: Predictor


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What was predicted, and what is true.

    Attributes:
        predicted: (B, M, T, D), or (S, B, M, T, D) for S draws of a latent z.
        target: (B, M, T, D).
        valid: (B, M, T) bool, False for filler, or None.
        weight: (B, M, T) of each token in the loss, or None for one each.
        over: what becomes of draws: their mean, or the best of each sample; see `PredictionLoss.forward`.
    """

    predicted: Tensor
    target: Tensor
    valid: Tensor | None = None
    weight: Tensor | None = None
    over: Over = "mean"

    def detach(self) -> Prediction:
        """The same without gradient."""
        return replace(self, predicted=self.predicted.detach(), target=self.target.detach())


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one pass over a batch produced. Losses, regularisers, the collapse monitor and callbacks read nothing else.

    Attributes:
        predictions: each is a term of the prediction loss, which is their mean; a pretext without predictor has views
            of a sample stand for predictions of each other.
        context: what the context encoder made, one for each context (V-JEPA's masks) or view.
        target: what the target made, likewise; one for all contexts where they share it.
        actions: (B, T - 1, A) between the T states of a trajectory, where there are any. Context and target then hold
            B T samples, the states of all trajectories; see `by_trajectory`.
    """

    predictions: list[Prediction] = field(default_factory=list)
    context: list[Latents] = field(default_factory=list)
    target: list[Latents] = field(default_factory=list)
    actions: Tensor | None = None

    @property
    def batch_size(self) -> int:
        """B, the number of samples; of trajectories B T, that of their states."""
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
        """A loss of zero that reaches all that the outcome was made with: of a batch with no term of the loss."""
        return torch.stack([latents.values.sum() for latents in self.context]).sum() * 0.0

    def detach(self) -> Outcome:
        """The same without gradient, so that nothing keeps the graph of a step that is over."""
        return replace(
            self,
            predictions=[prediction.detach() for prediction in self.predictions],
            context=[latents.detach() for latents in self.context],
            target=[latents.detach() for latents in self.target],
        )


class Pretext(ShownModule, nn.Module, ABC):
    """Cuts x and y from a batch, encodes both, and predicts one from the other.

    Whatever it draws comes from the generator that it is handed, and nothing else: so a resumed run draws the same. It
    may own parameters (a codebook of latents), which are trained with the rest.
    """

    action_dim: int | None = None
    """Width A of the outcome's actions; None where it has none."""

    needs_statistics: bool = False
    """Whether `estimate` is to be called before training."""

    def estimate(self, batches: Iterable[Batch]) -> None:
        """Learn the data's statistics from training batches, and keep them in buffers."""

    def build(self, modality: Modality, target: Target) -> None:
        """Make the pretext's own parts, now that the widths are known; most have none."""

    def predictor_spec(self, modality: Modality, target: Target) -> PredictorSpec | None:
        """What the predictor is built for, a condition's width too; None where the pretext has no predictor."""
        return PredictorSpec(dim=modality.encoder.dim, out=target.dim, token=modality.spec)

    def latent_dims(self, modality: Modality, target: Target) -> tuple[int, int]:
        """Widths of the outcome's context, and of its targets and predictions."""
        return modality.encoder.dim, target.dim

    @abstractmethod
    def forward(self, nets: Networks, batch: Batch, generator: torch.Generator) -> Outcome:
        """One pass over a batch.

        Args:
            nets: the parts of the JEPA; of encoder, target and predictor call nothing but `forward`.
            batch: on the device.
            generator: on the CPU.
        """

    def masks(self, nets: Networks, tokens: Tokens, generator: torch.Generator) -> list[Masks]:
        """The masks of a pass, for pictures of them; none where the pretext hides nothing."""
        return []
