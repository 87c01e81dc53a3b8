"""What every regulariser is, and what it is told when it is built."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from jepa_lightning.config.shown import ShownModule
from jepa_lightning.pretexts.base import Outcome
from jepa_lightning.schedules import Schedule
from jepa_lightning.tokens import Latents

On = Literal["context", "target", "predicted"]


@dataclass(frozen=True)
class RegularizerSpec:
    """What a regulariser is told of what it will get; a field that is added breaks no regulariser.

    Attributes:
        dim: width D of the context's representations.
        out: width of the targets' representations and of the predictions.
        actions: width A of an action, of a pretext on trajectories; else None.
    """

    dim: int
    out: int
    actions: int | None = None


class Regularizer(ShownModule, nn.Module, ABC):
    """A term that keeps representations from collapsing, added to the prediction loss.

    Args:
        spec: widths, given by the module.
        on: the representations that it looks at: of the "context", of the "target" (which needs a target with gradient)
            or the "predicted" ones.
        weight: its weight in the loss, a number or a schedule.

    Attributes:
        name: under which it is logged, as `train/loss_NAME`.
        dim: width of what it looks at.
        min_samples: fewer samples in a batch tell it nothing; of such a batch (what is left over at the end of a
            validation set) it is left out.
        seed: of the present step, the same on all ranks, for what a regulariser draws; set by the module.
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
        """A scalar from what the step has produced; `looked_at` gives the representations."""

    def looked_at(self, outcome: Outcome) -> list[Latents]:
        """The representations that `on` names: one for each context, target or prediction."""
        if self.on == "context":
            return outcome.context
        if self.on == "target":
            return outcome.target
        return [_flat(p.predicted, p.valid) for p in outcome.predictions]


def _flat(predicted: Tensor, valid: Tensor | None) -> Latents:
    """Predictions (..., B, M, T, D) and their validity (B, M, T) as tokens of a sample; a draw is a sample more."""
    values = predicted.flatten(-3, -2)  # (..., B, M T, D)
    if valid is not None:
        valid = valid.flatten(1).expand(values.shape[:-1]).flatten(0, -2)
    return Latents(values=values.flatten(0, -3), valid=valid)


RegularizerFactory = Callable[[RegularizerSpec], Regularizer]
"""Builds a regulariser from its spec; a `Regularizer` class does."""


class Regularizers(nn.ModuleList):
    """The regularisers of a run, each with a name of its own: of several of one kind "vicreg", "vicreg_2", ..."""

    def __init__(self, build: Iterable[RegularizerFactory], spec: RegularizerSpec) -> None:
        super().__init__([make(spec) for make in build])
        taken: dict[str, int] = {}
        for part in self.parts():
            taken[part.name] = taken.get(part.name, 0) + 1
            if taken[part.name] > 1:
                part.name = f"{part.name}_{taken[part.name]}"

    def parts(self) -> list[Regularizer]:
        """All of them."""
        return list(self)  # type: ignore[arg-type]

    def terms(self, outcome: Outcome, seed: int) -> list[tuple[str, Tensor, float | Schedule]]:
        """Name, value and weight of each that the batch has enough samples for.

        Args:
            outcome: of the step.
            seed: of what they draw, the same on all ranks.
        """
        found: list[tuple[str, Tensor, float | Schedule]] = []
        for part in self.parts():
            part.seed = seed
            if outcome.batch_size >= part.min_samples:
                found.append((part.name, part(outcome), part.weight))
        return found

    def check_batch_size(self, size: int | None) -> None:
        """Refuse a run whose batches, of at most `size` samples on each process, are all too small for one.

        Raises:
            ValueError: which, and what to do.
        """
        for part in self.parts():
            if size is not None and size < part.min_samples:
                raise ValueError(
                    f"{type(part).__name__} needs batches of at least {part.min_samples} samples on each process, got "
                    f"{size}: raise data.batch_size, add data, or set model.regularizers to null"
                )
