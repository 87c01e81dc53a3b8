"""Base class of regularizers, and the spec they are built from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from jepa_lightning.names.shown import ShownModule
from jepa_lightning.pretexts.base import Outcome
from jepa_lightning.schedules import Schedule
from jepa_lightning.tokens import Latents

On = Literal["context", "target", "predicted"]


@dataclass(frozen=True)
class RegularizerSpec:
    """The spec a regularizer is built from. Adding a field breaks no regularizer.

    Attributes:
        dim: width D of the context's representations.
        out: width of the targets' representations and of the predictions.
        actions: width A of an action, of a pretext on trajectories; else None.
        upper_actions: width of a macro-action of each level above the first; see `UpperLevels`.
    """

    dim: int
    out: int
    actions: int | None = None
    upper_actions: tuple[int, ...] = ()


class Regularizer(ShownModule, nn.Module, ABC):
    """A term added to the prediction loss that prevents collapse.

    Args:
        spec: widths, given by the module.
        on: representations to regularize: of the "context", of the "target" (which needs a target with gradient)
            or the "predicted" ones.
        weight: weight in the loss, a number or a schedule.

    Attributes:
        name: name in the log, as `train/loss_NAME`.
        dim: width of the regularized representations.
        min_samples: smallest batch it can be computed on; it is skipped for smaller ones (such as the last of a
            validation set).
        seed: seed of the current step, the same on all ranks, for random draws; set by the module.
    """

    name: str
    min_samples: int = 1
    seed: int = 0

    def __init__(self, spec: RegularizerSpec, *, on: On = "context", weight: float | Schedule = 1.0) -> None:
        super().__init__()
        if on not in ("context", "target", "predicted"):
            raise ValueError(f"on must be context, target or predicted, got {on!r}")
        self.on = on
        self.weight = weight
        self.dim = spec.dim if on == "context" else spec.out

    @abstractmethod
    def forward(self, outcome: Outcome) -> Tensor:
        """Compute a scalar from the outcome of a step; `looked_at` returns the representations."""

    def looked_at(self, outcome: Outcome) -> list[Latents]:
        """Return the representations selected by `on`: one for each context, target or prediction."""
        if self.on == "context":
            return outcome.context
        if self.on == "target":
            return outcome.target
        return [_flat(p.predicted, p.valid) for p in outcome.predictions]


def _flat(predicted: Tensor, valid: Tensor | None) -> Latents:
    """Flatten predictions (..., B, M, T, D) and validity (B, M, T) to tokens; each draw counts as a sample."""
    values = predicted.flatten(-3, -2)  # (..., B, M T, D)
    if valid is not None:
        valid = valid.flatten(1).expand(values.shape[:-1]).flatten(0, -2)
    return Latents(values=values.flatten(0, -3), valid=valid)


RegularizerFactory = Callable[[RegularizerSpec], Regularizer]
"""Builds a regularizer from its spec, as a `Regularizer` class does."""


class Regularizers(nn.ModuleList):
    """The regularizers of a run with unique names: "vicreg", "vicreg_2", ..."""

    def __init__(self, build: Iterable[RegularizerFactory], spec: RegularizerSpec) -> None:
        super().__init__([make(spec) for make in build])
        taken: dict[str, int] = {}
        for part in self.parts():
            taken[part.name] = taken.get(part.name, 0) + 1
            if taken[part.name] > 1:
                part.name = f"{part.name}_{taken[part.name]}"

    def parts(self) -> list[Regularizer]:
        """Return all regularizers."""
        return list(self)  # type: ignore[arg-type]

    def terms(self, outcome: Outcome, seed: int) -> list[tuple[str, Tensor, float | Schedule]]:
        """Compute name, value and weight of each regularizer that the batch has enough samples for.

        Args:
            outcome: outcome of the step.
            seed: seed of their random draws, the same on all ranks.
        """
        found: list[tuple[str, Tensor, float | Schedule]] = []
        for part in self.parts():
            part.seed = seed
            if outcome.batch_size >= part.min_samples:
                found.append((part.name, part(outcome), part.weight))
        return found

    def check_batch_size(self, size: int | None) -> None:
        """Refuse a run whose batches, of at most `size` samples per process, are all too small for a regularizer.

        Raises:
            ValueError: batches are too small; the message names the regularizer and says what to do.
        """
        for part in self.parts():
            if size is not None and size < part.min_samples:
                raise ValueError(
                    f"{type(part).__name__} needs batches of at least {part.min_samples} samples on each process, got "
                    f"{size}: raise data.batch_size, add data, or set model.regularizers to null"
                )
