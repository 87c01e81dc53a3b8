"""The figures of a report: scores, differences, and what is drawn of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from jepa_lightning.evaluation.probes.protocols import Interval

FEWEST = 20  # scored samples below which a difference gets no verdict
UNTRAINED, RAW = "untrained", "raw"


@dataclass(frozen=True)
class Score:
    """How well a probe does on the features of an encoder.

    Attributes:
        encoder: its name.
        label: the label predicted.
        probe: "knn", "knn_cv", "logistic", "svm", "ridge", "attentive", "dense" or "5-way 1-shot".
        measure: "accuracy" (0-1) or "R2"; of maps "mIoU" or "R2 of pixels".
        share: share of the training labels used.
        estimate: with its interval.
        over: what the interval is over, in words.
        chance: what the most frequent class of the training part gets; 0 of R2; one in `ways` of episodes.
        train: number of training samples, the mean over splits.
        test: number of test samples, the mean over splits.
        values: the score of each split or draw; empty of episodes.
        chosen: what was chosen in each: C, or the ridge's penalty; learning rate and weight decay of the attentive
            probe; k of knn_cv and 1 for standardised features, 0 for features as they are. Empty where nothing is.
    """

    encoder: str
    label: str
    probe: str
    measure: str
    share: float
    estimate: Interval
    over: str
    chance: float
    train: float
    test: float
    values: tuple[float, ...] = ()
    chosen: tuple[float | tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Difference:
    """What one encoder scores above another on the same test samples after the same training labels.

    Attributes:
        encoder: the one.
        baseline: the other.
        label: what was asked.
        probe: as in `Score`.
        measure: as in `Score`.
        share: of the training labels.
        estimate: the first minus the second, with its interval.
        samples: number of test samples, each counted once; None: unknown.
    """

    encoder: str
    baseline: str
    label: str
    probe: str
    measure: str
    share: float
    estimate: Interval
    samples: int | None = None

    @property
    def words(self) -> str:
        """Say whether training helps, or which of two encoders is better.

        With fewer than `FEWEST` samples, or an interval without width, there is no verdict.
        """
        found = self.estimate
        if not math.isfinite(found.mean):
            return "inconclusive: a score is not finite"
        figures = f"{found.mean:+.3f} [{found.low:.3f}, {found.high:.3f}]"
        few = self.samples is not None and self.samples < FEWEST
        if few or not found.high > found.low:
            why = f" ({self.samples} samples)" if few else ""
            return f"no significant difference at this size{why}: {figures}"
        if found.low > 0:
            return f"{'training helps' if self._trained else f'better than {self.baseline}'}: {figures}"
        if found.high < 0:
            return f"{'training hurts' if self._trained else f'worse than {self.baseline}'}: {figures}"
        return f"no significant difference at this size: {figures}"

    @property
    def _trained(self) -> bool:
        return self.baseline.startswith(UNTRAINED)


@dataclass(frozen=True)
class Confusion:
    """True classes (rows) against predicted ones, summed over the splits.

    Attributes:
        encoder: its name.
        label: what was asked.
        probe: which classifier.
        names: of the classes.
        counts: (classes, classes).
    """

    encoder: str
    label: str
    probe: str
    names: tuple[str, ...]
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class Embedding:
    """Features in two dimensions: the principal components of the training part, at samples of the test part.

    Attributes:
        encoder: its name.
        points: (m, 2).
        shares: of the variance, of both components.
        rows: (m,) numbers of the samples.
    """

    encoder: str
    points: NDArray[np.float64]
    shares: tuple[float, float]
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class Neighbours:
    """Nearest neighbours of some samples, by the cosine of features.

    Attributes:
        rows: (q,) numbers of the samples, as in `Embedding`.
        nearest: encoder to (q, k) numbers of their neighbours, the nearest first.
        similarities: encoder to (q, k) cosines.
        pictures: PNG files of all these samples by number.
    """

    rows: NDArray[np.int64]
    nearest: dict[str, NDArray[np.int64]]
    similarities: dict[str, NDArray[np.float64]]
    pictures: dict[int, bytes]


@dataclass(frozen=True)
class Plot:
    """A drawing.

    Attributes:
        title: says what is drawn.
        svg: the file.
        size: its width and height in the units of `points`.
        points: x and y, from the top left, of what is named when it is pointed at, and the number of that sample.
    """

    title: str
    svg: str
    size: tuple[float, float]
    points: list[tuple[float, float, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Plots:
    """The drawings of a report.

    Attributes:
        labels: of each label, in rows of one kind.
        collapse: spectra of the features.
        runs: curves of training.
    """

    labels: dict[str, list[list[Plot]]] = field(default_factory=dict)
    collapse: list[Plot] = field(default_factory=list)
    runs: list[Plot] = field(default_factory=list)
