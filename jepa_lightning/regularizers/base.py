"""What every regulariser is, and what it is told when it is built."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from jepa_lightning.pretexts.base import Outcome
from jepa_lightning.schedules import Schedule
from jepa_lightning.tokens import Latents

On = Literal["context", "target", "predicted"]


@dataclass(frozen=True, kw_only=True)
class RegularizerSpec:
    """What a regulariser is told of what it will get; a field that is added breaks no regulariser.

    Attributes:
        dim: width D of the context's representations.
        out: width of the targets' representations and of the predictions.
    """

    dim: int
    out: int


class Regularizer(nn.Module, ABC):
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
    """

    name: str
    min_samples: int = 1

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


def number_names(regularizers: list[Regularizer]) -> list[Regularizer]:
    """Give each a name of its own to be logged under: of several of one name, "vicreg", "vicreg_2", ..."""
    taken: dict[str, int] = {}
    for part in regularizers:
        taken[part.name] = taken.get(part.name, 0) + 1
        if taken[part.name] > 1:
            part.name = f"{part.name}_{taken[part.name]}"
    return regularizers


def check_batch_size(regularizers: Iterable[nn.Module], size: int | None) -> None:
    """Refuse a run whose batches, of at most `size` samples on each process, are all too small for a regulariser.

    Raises:
        ValueError: which, and what to do.
    """
    for part in regularizers:
        least: Any = part.min_samples
        if size is not None and size < least:
            raise ValueError(
                f"{type(part).__name__} needs batches of at least {least} samples on each process, got {size}: raise "
                "data.batch_size, add data, or set model.regularizers to null"
            )
