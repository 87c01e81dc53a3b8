"""World models by teacher forcing: every next state from the true ones, in one causal call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from jepa_lightning.predictors.base import Predictor, PredictorSpec
from jepa_lightning.predictors.rollout import Past, predict_next, rollout
from jepa_lightning.pretexts.base import Prediction
from jepa_lightning.pretexts.rollout import Rollout, StateKind
from jepa_lightning.targets.base import Target
from jepa_lightning.tokens import Latents

if TYPE_CHECKING:
    from jepa_lightning.modality import Batch, Modality


class TeacherForcing(Rollout):
    """Predict every next state of a trajectory from the true states before it, and a few from predictions.

    The loss of V-JEPA 2-AC (Assran et al. 2025, arXiv:2506.09985, section 3.1, equations 2 to 4) is the sum of two
    terms:

    - teacher forcing: each of the T - 1 next states, predicted from the true states and the actions up to it, at most
      `history` of them. With a causal predictor (`FrameCausalPredictor`) that sees as many states as there are to
      predict after, that is one call for all of them; else each is predicted by itself, with the same result.
    - rollout: from the first state alone, `steps` states in a row, each from the predictions before it. The last one is
      compared.

    With `steps` 1 there is no second term: the prediction loss of LeWorldModel (Maes et al. 2026, arXiv:2603.19312,
    section 3.1), with SIGReg on all states and the target `Online` without a stopped gradient.

    `Rollout` in contrast predicts `steps` in a row from every start, and all of them count.

    With `proprio`, the predictor is told the robot's own state beside each action: in V-JEPA 2-AC the pose of its hand
    and gripper, 7 numbers, whose changes from frame to frame are the actions. It is read from the labels of that name,
    standardised like the actions, and in imagination each action is added to it; `Past.proprio` is where it begins:

        past = dataclasses.replace(world.past(states), proprio=pose)
        world.imagine(past, actions)

    Deviations: an action is added to the whole state, angles too, which do not add up where they turn around.

    Args:
        action_dim: see `Rollout`.
        steps: length of the rollout (2 in V-JEPA 2-AC); 1: no rollout.
        history: states that the predictor sees (15 of clips of 16 frames in V-JEPA 2-AC, 3 in LeWorldModel).
        state: see `Rollout`.
        standardize: see `Rollout`; of the robot's own state, too.
        proprio: name of a label (T, A) of the robot's own state, as wide as an action, which is its change; None:
            it is not told.

    Raises:
        ValueError: see `Rollout`; when called: there is no such label, or `Past.proprio` where a world is told it.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from jepa_lightning import JEPA
        >>> from jepa_lightning.encoders import FrozenEncoder, ViT
        >>> from jepa_lightning.objectives import L1
        >>> from jepa_lightning.predictors import FrameCausalPredictor
        >>> from jepa_lightning.pretexts import TeacherForcing
        >>> from jepa_lightning.targets import Online
        >>> from modalities.image import Image
        >>> frozen = partial(FrozenEncoder, encoder=partial(ViT, width=24, depth=1, heads=2), norm=True)
        >>> image = Image(image_size=32, patch_size=16, encoder=frozen)
        >>> pretext = TeacherForcing(action_dim=7, steps=2, history=5, state="tokens")
        >>> predictor = partial(FrameCausalPredictor, width=24, depth=2, heads=2)
        >>> jepa = JEPA(image, pretext=pretext, target=Online, predictor=predictor, objective=L1())
        >>> batch = {"image": torch.randn(2, 6, 3, 32, 32), "actions": torch.randn(2, 5, 7)}
        >>> forced, rolled = jepa.step(batch, torch.Generator()).predictions
        >>> forced.predicted.shape, rolled.predicted.shape  # (B, next states, S, D), and the last of the rollout
        (torch.Size([2, 5, 4, 24]), torch.Size([2, 1, 4, 24]))
    """

    proprio_mean: Tensor
    proprio_std: Tensor

    def __init__(
        self,
        *,
        action_dim: int,
        steps: int = 2,
        history: int = 1,
        state: StateKind = "pooled",
        standardize: bool = True,
        proprio: str | None = None,
    ) -> None:
        super().__init__(action_dim=action_dim, steps=steps, history=history, state=state, standardize=standardize)
        self.proprio = proprio
        if proprio is not None:
            self.register_buffer("proprio_mean", torch.zeros(action_dim))
            self.register_buffer("proprio_std", torch.ones(action_dim))

    def predictor_spec(self, modality: Modality, target: Target) -> PredictorSpec:
        """Return the spec of a predictor that is told an action, and the robot's own state where there is one."""
        spec, width = super().predictor_spec(modality, target), self.action_dim
        return spec if self.proprio is None else replace(spec, condition=2 * width, parts=(width, width))

    @torch.no_grad()
    def estimate(self, batches: Iterable[Batch]) -> None:
        """See `Rollout.estimate`; of the robot's own state, too."""
        if self.proprio is None:
            super().estimate(batches)
            return
        own: list[Tensor] = []

        def noted() -> Iterator[Batch]:
            for batch in batches:
                own.append(self.proprioception(batch).double().flatten(0, 1))
                yield batch

        super().estimate(noted())
        every = torch.cat(own)
        std = every.std(0, correction=0)
        self.proprio_mean.copy_(every.mean(0))
        self.proprio_std.copy_(torch.where(std > 1e-8, std, 1.0))

    def proprioception(self, batch: Batch) -> Tensor:
        """The robot's own state in a batch, (B, T, A) in its units.

        Raises:
            ValueError: there is no such label, or it is not as wide as an action.
        """
        labels = batch.get("labels") or {}
        if self.proprio not in labels:
            raise ValueError(f"expected the label {self.proprio!r} (model.pretext.proprio), got {sorted(labels)}")
        found: Tensor = labels[self.proprio]
        if found.ndim != 3 or found.shape[-1] != self.action_dim:
            raise ValueError(
                f"expected {self.proprio!r} of the width of an action, which is its change, (B, T, {self.action_dim}), "
                f"got {tuple(found.shape)}: name another label, or set model.pretext.proprio to null"
            )
        return found

    def told(self, batch: Batch, actions: Tensor) -> Tensor:
        """The standardised actions, and beside each the robot's own state before it."""
        if self.proprio is None:
            return actions
        own = (self.proprioception(batch)[:, :-1] - self.proprio_mean) / self.proprio_std
        return torch.cat([actions, own.to(actions.dtype)], dim=-1)

    def imagined(self, past: Past, actions: Tensor) -> Tensor:
        """What the predictor is told of standardised actions (B, H, A): where each finds the robot, too."""
        if self.proprio is None:
            return actions
        if past.proprio is None:
            raise ValueError(
                "expected the robot's own state, which this world is told beside each action, got none: give it with "
                "dataclasses.replace(past, proprio=...)"
            )
        changes = actions * self.action_std + self.action_mean
        own = past.proprio.to(changes).unsqueeze(1) + changes.cumsum(1) - changes
        return torch.cat([actions, (own - self.proprio_mean) / self.proprio_std], dim=-1)

    def imagine(
        self, predictor: Predictor, past: Past, actions: Tensor, samples: int, generator: torch.Generator | None
    ) -> Tensor:
        """See `Rollout.imagine`."""
        return super().imagine(predictor, past, self.imagined(past, actions), samples, generator)

    def surprise(self, predictor: Predictor, past: Past, action: Tensor, after: Tensor) -> Tensor:
        """See `Rollout.surprise`."""
        return super().surprise(predictor, past, self.imagined(past, action.unsqueeze(1))[:, 0], after)

    def predictions(
        self, predictor: Predictor, states: Tensor, targets: Tensor, actions: Tensor, positions: Tensor | None
    ) -> list[Prediction]:
        """See `Rollout.predictions`."""
        forced = self.forced(predictor, states, actions, positions)
        found = [Prediction(predicted=forced, target=targets[:, 1:])]
        if self.steps == 1:
            return found
        # The first step of the rollout is that of teacher forcing: from the first state alone.
        first = self.past(states, 1, positions).push(forced[:, 0], actions[:, 0])
        rolled = rollout(predictor, first, actions[:, 1 : self.steps])[:, -1:]
        found.append(Prediction(predicted=rolled, target=targets[:, self.steps : self.steps + 1]))
        return [Prediction(predicted=one.predicted, target=one.target, share=1.0) for one in found]

    def forced(self, predictor: Predictor, states: Tensor, actions: Tensor, positions: Tensor | None) -> Tensor:
        """What follows each state (B, T, S, D) but the last: (B, T - 1, S, D); see `predictions`."""
        starts = actions.shape[1]
        if predictor.causal and starts <= self.history:
            past = Past(states=states[:, :-1], positions=positions)
            return predictor(past.context(), past.query(starts), Latents(values=actions))
        past = self.past(states, starts, positions, actions)
        return predict_next(predictor, past, actions.flatten(0, 1)).unflatten(0, (-1, starts))
