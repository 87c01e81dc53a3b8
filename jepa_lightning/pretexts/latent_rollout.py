"""World models with a latent z: several futures of one past."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from jepa_lightning.predictors.base import Predictor, PredictorSpec
from jepa_lightning.predictors.rollout import Past, predict_next, rollout
from jepa_lightning.pretexts.base import Prediction
from jepa_lightning.pretexts.latent import codebook
from jepa_lightning.pretexts.rollout import Rollout, StateKind
from jepa_lightning.targets.base import Target

if TYPE_CHECKING:
    from jepa_lightning.modality import Modality


class LatentRollout(Rollout):
    """Predict each next state several times, once for each code of a small codebook; only the best must be right.

    What follows is not decided by the past and the action alone: others act, or part of the state is not seen. A
    deterministic world model predicts the mean of what is possible. As in `LatentCodes` a latent z says which of the
    possibilities it is (LeCun 2022, "A path towards autonomous machine intelligence"): the predictor is told one of
    `codes` learned vectors behind the action, one for each step. The loss of a step is that of its best code, plus a
    small share of the mean over codes, so that no code dies; the rollout continues from the best prediction, by mean
    squared error.

    With `action_dim` 0 and data without actions (`data.actions` null) the codes are all that says what happens: latent
    actions, learned from observations alone.

    `World.imagine(past, actions, samples=K)` draws K futures; a code is drawn as often as it was the best in training
    (`usage`). Planners minimise the mean cost over `codes` futures.

    Args:
        action_dim: width A of an action, or 0.
        codes: number of codes.
        width: channels of a code.
        mean: share of the mean over codes in the loss, from 0 to 1; the rest is that of the best.
        steps: see `Rollout`.
        history: see `Rollout`.
        state: see `Rollout`.
        standardize: see `Rollout`.

    Raises:
        ValueError: a setting is out of range.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from jepa_lightning import JEPA
        >>> from jepa_lightning.encoders import ConvEncoder
        >>> from jepa_lightning.planning import World
        >>> from jepa_lightning.predictors import ResidualPredictor
        >>> from jepa_lightning.pretexts import LatentRollout
        >>> from modalities.image import Image
        >>> image = Image(image_size=32, patch_size=32, channels=1, encoder=partial(ConvEncoder, dim=16, width=4))
        >>> jepa = JEPA(image, pretext=LatentRollout(action_dim=0, codes=4, steps=3), predictor=ResidualPredictor)
        >>> batch = {"image": torch.randn(2, 8, 1, 32, 32), "actions": torch.zeros(2, 7, 0)}
        >>> jepa.step(batch, torch.Generator()).predictions[0].predicted.shape  # codes, B starts steps, 1, S, D
        torch.Size([4, 30, 1, 1, 16])
        >>> world = World(jepa)
        >>> past = world.past(world.encode({"image": torch.randn(2, 1, 32, 32)}))
        >>> world.imagine(past, torch.zeros(2, 1, 5, 0), samples=6).shape  # 6 futures of 5 steps
        torch.Size([2, 1, 6, 5, 1, 16])
    """

    least = 0
    usage: Tensor

    def __init__(
        self,
        *,
        action_dim: int,
        codes: int = 4,
        width: int = 8,
        mean: float = 0.05,
        steps: int = 4,
        history: int = 1,
        state: StateKind = "pooled",
        standardize: bool = True,
    ) -> None:
        super().__init__(action_dim=action_dim, steps=steps, history=history, state=state, standardize=standardize)
        self.codes = codebook(codes, width, mean)
        self.mean = mean
        self.register_buffer("usage", torch.full((codes,), 1 / codes))

    @property
    def futures(self) -> int:  # type: ignore[override]
        """As many as there are codes."""
        return len(self.codes)

    def predictor_spec(self, modality: Modality, target: Target) -> PredictorSpec:
        """Return the spec of a predictor that is told an action and a code."""
        return replace(super().predictor_spec(modality, target), condition=self.action_dim + self.codes.shape[1])

    def each(self, predictor: Predictor, past: Past, action: Tensor) -> Tensor:
        """The next state with each code, (codes, B, S, D), in one call of the predictor."""
        count = len(self.codes)
        told = torch.cat([action.repeat_interleave(count, 0), self.codes.repeat(len(action), 1).to(action.dtype)], -1)
        return predict_next(predictor, past.repeat(count), told).unflatten(0, (-1, count)).transpose(0, 1)

    def prediction(self, predictor: Predictor, past: Past, actions: Tensor, ahead: Tensor) -> Prediction:
        """See `Rollout.prediction`; each step of each start is a sample of its own, with the best code of its own."""
        told, true = actions.flatten(0, 1), ahead.flatten(0, 1)  # (n, steps, A) and (n, steps, S, D)
        rows, found, chosen = torch.arange(len(told), device=told.device), [], []
        past = replace(past, actions=None)  # whose codes nobody knows
        for step in range(self.steps):
            guess = self.each(predictor, past, told[:, step])
            best = (guess.detach() - true[:, step].detach()).float().square().mean((-1, -2)).argmin(0)  # (n,)
            past = past.push(guess[best, rows], torch.cat([told[:, step], self.codes[best].to(told.dtype)], dim=-1))
            found.append(guess)
            chosen.append(best)
        if self.training:
            with torch.no_grad():
                every = torch.arange(len(self.codes), device=told.device)
                best_of = torch.stack(chosen).flatten().unsqueeze(1) == every  # bincount would wait for the device
                self.usage.lerp_(best_of.to(self.usage.dtype).mean(0), 0.02)
        predicted = torch.stack(found, dim=2).flatten(1, 2).unsqueeze(2)  # (codes, n steps, 1, S, D)
        return Prediction(predicted=predicted, target=true.flatten(0, 1).unsqueeze(1), over=self.mean)

    def imagine(
        self, predictor: Predictor, past: Past, actions: Tensor, samples: int, generator: torch.Generator | None
    ) -> Tensor:
        """Futures (B, samples, H, S, D) of standardised actions (B, H, A), each with codes drawn for it.

        Without a generator the same codes are drawn in each call, and for all B alike: candidates are compared under
        the same chances.

        Raises:
            ValueError: fewer than one is asked for.
        """
        if samples < 1:
            raise ValueError(f"samples must be at least 1, got {samples}")
        batch, horizon = actions.shape[:2]
        alike = generator is None
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        count = (1 if alike else batch) * samples * horizon
        drawn = torch.multinomial(self.usage.cpu(), count, replacement=True, generator=generator)
        code = self.codes[drawn.to(self.codes.device)].view(-1, samples, horizon, self.codes.shape[1])
        told = torch.cat([actions.unsqueeze(1).expand(-1, samples, -1, -1), code.expand(batch, -1, -1, -1)], -1)
        return rollout(predictor, past.repeat(samples), told.flatten(0, 1)).unflatten(0, (batch, samples))

    def surprise(self, predictor: Predictor, past: Past, action: Tensor, after: Tensor) -> Tensor:
        """The root mean square (B,) of a state (B, S, D) less its prediction by the best code."""
        return (after - self.each(predictor, past, action)).square().mean((-1, -2)).amin(0).sqrt()
