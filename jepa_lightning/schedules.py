"""Learning rate, weight decay and momentum as pure functions of the optimiser step.

A schedule holds no state: a resumed run computes the same value from the step only. `total` is the number of optimiser
steps of the whole run.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass


class Schedule(ABC):
    """A value for each optimiser step."""

    @abstractmethod
    def __call__(self, step: int, total: int) -> float:
        """Return the value at `step` (from 0) of a run of `total` optimiser steps."""


def value_at(value: float | Schedule, step: int, total: int) -> float:
    """Return a number, or a schedule's value at `step` of `total`."""
    return value(step, total) if isinstance(value, Schedule) else value


def _check_finite(**values: float) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, got {value}")


def _check_stretch(stretch: float) -> None:
    if not 0 < stretch < math.inf:
        raise ValueError(f"stretch must be positive, 1 for a schedule as long as the run; got {stretch}")


def _progress(step: float, total: float) -> float:
    return min(max(step / max(total, 1), 0.0), 1.0)


@dataclass(frozen=True)
class Constant(Schedule):
    """Always `value` (V-JEPA 2's main phase).

    Examples:
        >>> from jepa_lightning.schedules import Constant
        >>> Constant(0.1)(step=50, total=100)
        0.1
    """

    value: float

    def __post_init__(self) -> None:
        _check_finite(value=self.value)

    def __call__(self, step: int, total: int) -> float:
        """Return the value."""
        return self.value


@dataclass(frozen=True)
class LinearRamp(Schedule):
    """Linear from `start` to `end` over `stretch` times the run (I-JEPA's momentum).

    Examples:
        >>> from jepa_lightning.schedules import LinearRamp
        >>> LinearRamp(start=0.0, end=1.0)(step=50, total=100)
        0.5
    """

    start: float
    end: float
    stretch: float = 1.0

    def __post_init__(self) -> None:
        _check_finite(start=self.start, end=self.end)
        _check_stretch(self.stretch)

    def __call__(self, step: int, total: int) -> float:
        """Return the value at `step`."""
        return self.start + (self.end - self.start) * _progress(step, total * self.stretch)


@dataclass(frozen=True)
class DelayedRamp(Schedule):
    """`start` for the first share of the run, then linear to `end`, which it keeps (V-JEPA 2.1's context loss).

    Attributes:
        start: value until `begin`.
        end: value from `stop` on.
        begin: share of the run at which the ramp begins.
        stop: share of the run at which it ends.

    Examples:
        >>> from jepa_lightning.schedules import DelayedRamp
        >>> schedule = DelayedRamp(start=0.0, end=0.5, begin=0.1, stop=0.2)
        >>> [round(schedule(step, total=100), 4) for step in (0, 10, 15, 20, 100)]
        [0.0, 0.0, 0.25, 0.5, 0.5]
    """

    start: float
    end: float
    begin: float = 0.1
    stop: float = 0.2

    def __post_init__(self) -> None:
        _check_finite(start=self.start, end=self.end)
        if not 0 <= self.begin < self.stop <= 1:
            raise ValueError(f"begin and stop are rising shares of the run, 0 to 1; got {self.begin} and {self.stop}")

    def __call__(self, step: int, total: int) -> float:
        """Return the value at `step`."""
        progress = _progress(step, total)
        share = min(max((progress - self.begin) / (self.stop - self.begin), 0.0), 1.0)
        return self.start + (self.end - self.start) * share


@dataclass(frozen=True)
class CosineRamp(Schedule):
    """Half a cosine from `start` to `end` over `stretch` times the run (DINO's weight decay).

    Examples:
        >>> from jepa_lightning.schedules import CosineRamp
        >>> round(CosineRamp(start=0.04, end=0.4)(step=50, total=100), 4)
        0.22
    """

    start: float
    end: float
    stretch: float = 1.0

    def __post_init__(self) -> None:
        _check_finite(start=self.start, end=self.end)
        _check_stretch(self.stretch)

    def __call__(self, step: int, total: int) -> float:
        """Return the value at `step`."""
        progress = _progress(step, total * self.stretch)
        return self.end + (self.start - self.end) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class WarmupCosine(Schedule):
    """Linear warm-up from `start` to `peak`, then half a cosine down to `end` (I-JEPA's learning rate).

    Attributes:
        peak: value at the end of the warm-up.
        start: value at step 0.
        end: value at the end of `stretch` times the run.
        warmup: share of the run spent in warm-up, 0 to 1 (15 of 300 epochs in the paper: 0.05).
        stretch: length of the cosine as a multiple of the run, which cuts it off (1.25 in V-JEPA, appendix).

    Examples:
        >>> from jepa_lightning.schedules import WarmupCosine
        >>> schedule = WarmupCosine(peak=1.0, warmup=0.1)
        >>> [round(schedule(step, total=100), 4) for step in (0, 5, 10, 100)]
        [0.0, 0.5, 1.0, 0.0]
    """

    peak: float
    start: float = 0.0
    end: float = 0.0
    warmup: float = 0.05
    stretch: float = 1.0

    def __post_init__(self) -> None:
        _check_finite(peak=self.peak, start=self.start, end=self.end)
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup is a share of the run, 0 to 1; got {self.warmup}")
        _check_stretch(self.stretch)

    def __call__(self, step: int, total: int) -> float:
        """Return the value at `step`."""
        warmup = self.warmup * total
        if step < warmup:
            return self.start + (self.peak - self.start) * step / warmup
        return CosineRamp(self.peak, self.end)(step - warmup, total * self.stretch - warmup)  # type: ignore[arg-type]


@dataclass(frozen=True)
class WarmupConstantDecay(Schedule):
    """Linear from `start` to `peak`, constant, then linear to `end` (V-JEPA 2-AC's learning rate).

    Attributes:
        peak: value between.
        start: value at step 0.
        end: value at the end of the run.
        warmup: share of the run until `peak` is reached (4,500 of 94,500 steps in the paper's appendix B.1).
        decay: share of the run at its end in which it falls (the same).

    Examples:
        >>> from jepa_lightning.schedules import WarmupConstantDecay
        >>> schedule = WarmupConstantDecay(peak=1.0, start=0.5, warmup=0.1, decay=0.2)
        >>> [round(schedule(step, total=100), 4) for step in (0, 5, 10, 50, 80, 90, 100)]
        [0.5, 0.75, 1.0, 1.0, 1.0, 0.5, 0.0]
    """

    peak: float
    start: float = 0.0
    end: float = 0.0
    warmup: float = 0.05
    decay: float = 0.05

    def __post_init__(self) -> None:
        _check_finite(peak=self.peak, start=self.start, end=self.end)
        if not (min(self.warmup, self.decay) >= 0 and self.warmup + self.decay <= 1):
            raise ValueError(
                f"warmup and decay are shares of the run, at most 1 together; got {self.warmup} and {self.decay}"
            )

    def __call__(self, step: int, total: int) -> float:
        """Return the value at `step`."""
        warmup, decay = self.warmup * total, self.decay * total
        if step < warmup:
            return self.start + (self.peak - self.start) * step / warmup
        share = _progress(step - (total - decay), decay) if decay > 0 else 0.0
        return self.peak + (self.end - self.peak) * share
