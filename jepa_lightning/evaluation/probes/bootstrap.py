"""Intervals of scores on one test set, from resampling its samples; paired where two encoders saw the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from scipy.stats import t as student

from jepa_lightning.evaluation.probes.protocols import Interval

Array = NDArray[Any]
Measure = Literal["accuracy", "R2", "mIoU", "R2 of pixels"]

_CHUNK = 4_000_000  # drawn numbers held at once


@dataclass(frozen=True)
class Outcome:
    """What a probe said of the test part of one split.

    Attributes:
        measure: "accuracy" or "R2"; of maps "mIoU" or "R2 of pixels".
        truth: (m,) classes, or (m, d) values; of maps the numbers of the samples.
        predicted: the same; of maps what `Moments` holds of each sample, (m, ...).
        train: number of training samples.
        chosen: what was chosen: the strength of the penalty; learning rate and weight decay; k and 1 for standardised
            features, 0 for features as they are; or None.
    """

    measure: Measure
    truth: Array
    predicted: Array
    train: int
    chosen: float | tuple[float, float] | None = None

    @property
    def score(self) -> float:
        """Accuracy, or R2 averaged over the d outputs; NaN where a prediction is not finite."""
        return self.moments.score

    @property
    def moments(self) -> Moments:
        """What the score needs of each test sample."""
        return Moments(self.measure, _moments(self), train=self.train)


@dataclass(frozen=True)
class Moments:
    """What a score needs of each test sample: it is a function of the means of these numbers over the samples.

    Attributes:
        measure: of the score.
        values: of "accuracy" (1, m): 1 where the class is right. "R2" (3 d, m): square error, value and its square,
            each of d. "mIoU" (2 d, m): pixels in the intersection, and in the union, of prediction and truth, each of d
            classes. "R2 of pixels" (4, m): square error, value, its square and 1, each summed over the pixels.
        train: number of training samples.
    """

    measure: Measure
    values: NDArray[np.float64]
    train: float

    @property
    def moments(self) -> Moments:
        """These."""
        return self

    @property
    def score(self) -> float:
        """The score of all samples."""
        return float(_score(self.measure, self.values.mean(1)))


def resampled(outcome: Outcome | Moments, *, draws: int = 1000, seed: int = 0) -> NDArray[np.float64]:
    """Score `draws` test sets drawn with replacement from the m samples: (draws,).

    Two outcomes on m samples see the same draws if the seed is the same, so their differences are paired.
    """
    moments = outcome.moments.values
    count = moments.shape[1]
    times = _times_drawn(count, draws, seed)
    step = max(1, _CHUNK // count)
    means = [times[start : start + step].astype(np.float64) @ moments.T / count for start in range(0, draws, step)]
    return _score(outcome.measure, np.concatenate(means).T)


def bootstrap(
    outcomes: Sequence[Outcome | Moments],
    against: Sequence[Outcome | Moments] | None = None,
    *,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    runs: int = 1,
) -> Interval:
    """Average the score of some outcomes on one test set, or its difference to others, with an interval.

    For one outcome the percentiles of the bootstrap over test samples; where all samples scored alike it has no
    spread, and the exact (Clopper-Pearson) interval is given. Several outcomes come from several draws of the training
    labels: their spread (Student's t) is added to that over test samples, in quadrature. With several runs the spread
    is that of the runs' means, which covers the draws of each.

    Args:
        outcomes: on the same test samples.
        against: as many, on the same samples after the same training labels; None for the score itself.
        draws: of the bootstrap.
        seed: of the draws.
        level: of confidence.
        runs: number of runs that the outcomes come from, as many of each, those of a run behind each other.

    Returns:
        The interval; its `std` is the bootstrap's for one outcome, that over outcomes (or runs) for several, its
        `count` their number.
    """
    scores = np.array([outcome.score for outcome in outcomes])
    samples = np.mean([resampled(outcome, draws=draws, seed=seed) for outcome in outcomes], axis=0)
    if against is not None:
        scores = scores - np.array([outcome.score for outcome in against])
        samples = samples - np.mean([resampled(outcome, draws=draws, seed=seed) for outcome in against], axis=0)
    scores = scores.reshape(runs, -1).mean(1) if runs > 1 else scores
    mean, count = float(scores.mean()), len(scores)
    if not np.isfinite(mean):
        return Interval(mean=np.nan, low=np.nan, high=np.nan, std=np.nan, count=count)
    tail = 100 * (1 - level) / 2
    low, high = (float(end) for end in np.nanpercentile(samples, [tail, 100 - tail]))
    std = float(np.nanstd(samples))
    if count > 1:
        std = float(scores.std(ddof=1))
        half = float(student.ppf(0.5 + level / 2, count - 1)) * std / np.sqrt(count)
        low, high = mean - float(np.hypot(mean - low, half)), mean + float(np.hypot(high - mean, half))
    elif against is None and outcomes[0].measure == "accuracy" and mean in (0.0, 1.0):
        scored = outcomes[0].moments.values.shape[1]
        exact = binomtest(round(mean * scored), scored).proportion_ci(level)
        low, high = float(exact.low), float(exact.high)
    return Interval(mean=mean, low=low, high=high, std=std, count=count)


@lru_cache(maxsize=2)
def _times_drawn(count: int, draws: int, seed: int) -> NDArray[np.uint8]:
    """Count how often each of `count` samples is in each draw: (draws, count)."""
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // count)
    parts = []
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        drawn = rng.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
        parts.append(np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count).astype(np.uint8))
    return np.concatenate(parts)


def _moments(outcome: Outcome) -> NDArray[np.float64]:
    """Compute, per sample, what the score needs the means of: (1, m) for accuracy, (3 d, m) for R2."""
    if outcome.measure == "accuracy":
        right = (outcome.predicted == outcome.truth).astype(np.float64)
        return np.where(np.isfinite(outcome.predicted), right, np.nan)[None]
    if outcome.measure != "R2":
        return np.asarray(outcome.predicted, dtype=np.float64).T
    truth = np.asarray(outcome.truth, dtype=np.float64)
    errors = np.square(outcome.predicted - truth)
    centred = truth - truth.mean(0)
    return np.concatenate([errors, centred, np.square(centred)], axis=1).T


def _score(measure: Measure, means: NDArray[np.float64]) -> NDArray[np.float64]:
    if measure == "accuracy":
        return means[0]
    if measure == "mIoU":
        inside, union = np.split(means, 2)
        there = union > 0  # a class that is neither there nor predicted does not count
        shares = np.divide(inside, union, out=np.zeros_like(inside), where=there)
        return np.where(np.isnan(union).any(0), np.nan, shares.sum(0) / np.maximum(there.sum(0), 1))
    if measure == "R2 of pixels":
        means = means[:3] / np.maximum(means[3:], np.finfo(np.float64).tiny)
    errors, mean, square = np.split(means, 3)
    variance = square - np.square(mean)
    with np.errstate(divide="ignore", invalid="ignore"):
        # A draw whose labels do not vary has no R2.
        return np.where(variance > 1e-12, 1 - errors / variance, np.nan).mean(0)
