"""Protocols of small data sets: repeated splits and folds, linear classifiers, and intervals that can be believed.

Test samples touch nothing but the score: scaling, the choice of C and the fit see the training part of a split alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from jepa_lightning.evaluation.probes.classification import C_GRID
from jepa_lightning.scale.threads import one_thread_if_small

Array = NDArray[Any]

_INNER_FOLDS = 5


@dataclass(frozen=True)
class Split:
    """Numbers of the training samples and of the test samples, disjoint."""

    train: NDArray[np.int64]
    test: NDArray[np.int64]


def stratified_folds(labels: Array, *, folds: int = 10, seed: int = 0) -> list[Split]:
    """Split so that the test parts are disjoint, cover everything and have the classes' shares.

    Args:
        labels: (n,) classes; each must have at least `folds` samples.
        folds: their number, at least 2.
        seed: of the shuffling before.

    Raises:
        ValueError: a class is smaller than the number of folds.
    """
    smallest = _counts(labels).min()
    if not 2 <= folds <= smallest:
        raise ValueError(
            f"expected from 2 folds to as many as the smallest class has samples ({smallest}), got {folds}: "
            "use fewer folds, or repeated splits"
        )
    drawn = StratifiedKFold(folds, shuffle=True, random_state=seed).split(labels, labels)
    return [Split(np.asarray(train), np.asarray(test)) for train, test in drawn]


def repeated_splits(labels: Array, *, repeats: int, test_share: float, seed: int = 0) -> list[Split]:
    """Split at random, independently, keeping the classes' shares.

    Args:
        labels: (n,) classes; each must have at least 2 samples.
        repeats: number of splits, at least 1.
        test_share: share of the samples to test on, between 0 and 1.
        seed: of the draws.

    Raises:
        ValueError: a setting is out of range, or a class or the test part is too small.
    """
    if repeats < 1 or not 0 < test_share < 1:
        raise ValueError(f"expected repeats >= 1 and a test_share between 0 and 1, got {repeats} and {test_share:g}")
    _counts(labels)
    drawn = StratifiedShuffleSplit(repeats, test_size=test_share, random_state=seed).split(labels, labels)
    return [Split(np.asarray(train), np.asarray(test)) for train, test in drawn]


def few_labels(split: Split, labels: Array, *, share: float, seed: int = 0) -> Split:
    """Keep a share of a split's training samples: the same share of each class, and at least one of each."""
    if not 0 < share <= 1:
        raise ValueError(f"expected a share of the labels above 0 and at most 1, got {share:g}")
    rng = np.random.default_rng(seed)
    kept = []
    for name in np.unique(labels[split.train]):
        members = rng.permutation(split.train[labels[split.train] == name])
        kept.append(members[: max(1, round(share * len(members)))])
    return Split(np.sort(np.concatenate(kept)), split.test)


def leave_one_group_out(groups: Array) -> list[Split]:
    """Hold out each group in a split of its own, in the order of the groups' names; all others train.

    Args:
        groups: (n,) group of each sample, such as its speaker; at least 2 groups.
    """
    groups = np.asarray(groups)
    names = np.unique(groups)
    if len(names) < 2:
        raise ValueError(f"expected at least 2 groups to leave one out, got {names.tolist()}")
    return [Split(np.flatnonzero(groups != name), np.flatnonzero(groups == name)) for name in names]


@dataclass(frozen=True)
class LinearClassifier:
    """A linear classifier on standardised features.

    Attributes:
        kind: "svm" (linear, squared hinge, one against the rest) or "logistic" (multinomial, L2).
        c: inverse strength of the penalty; None chooses it from `C_GRID` for each training part by itself, by
            stratified cross-validation inside it (5 folds, fewer for small classes; C is 1 where a class has one
            sample).
    """

    kind: Literal["svm", "logistic"] = "svm"
    c: float | None = None

    def __post_init__(self) -> None:
        """Check the kind."""
        if self.kind not in ("svm", "logistic"):
            raise ValueError(f"expected a linear classifier svm or logistic, got {self.kind!r}")

    def __str__(self) -> str:
        c = f"C {self.c:g}" if self.c is not None else f"C from {C_GRID[0]:g} to {C_GRID[-1]:g} by inner folds"
        return f"{'linear SVM' if self.kind == 'svm' else 'logistic regression'}, standardised features, {c}"

    def fit(self, features: Array, labels: Array) -> Any:
        """Fit a scikit-learn classifier to features (n, D) and classes (n,).

        Raises:
            ValueError: features are not finite.
        """
        if not np.isfinite(features).all():
            raise ValueError("expected finite features, got NaN or infinity: the model they come from has diverged")
        with _unchecked(), one_thread_if_small(features.size):
            scale, last = StandardScaler(), self._linear(self.c or self._choose(features, labels))
            last.fit(scale.fit_transform(features), labels)
        return Pipeline([("scale", scale), ("classify", last)])

    def _choose(self, features: Array, labels: Array) -> float:
        """The C with the most right answers in inner folds, the strongest penalty of the best."""
        folds = min(_INNER_FOLDS, int(_counts(labels, least=1).min()))
        if folds < 2:
            return 1.0
        right = []
        for train, held in StratifiedKFold(folds, shuffle=True, random_state=0).split(labels, labels):
            scale = StandardScaler()
            kept, asked = scale.fit_transform(features[train]), scale.transform(features[held])
            fits = (self._linear(c).fit(kept, labels[train]) for c in C_GRID)
            right.append([float((model.predict(asked) == labels[held]).mean()) for model in fits])
        return C_GRID[int(np.mean(right, axis=0).argmax())]

    def _linear(self, c: float) -> Any:
        return LinearSVC(C=c, max_iter=10_000) if self.kind == "svm" else LogisticRegression(C=c, max_iter=5_000)


def accuracies(
    features: Array, labels: Array, splits: Sequence[Split], *, classifier: LinearClassifier | None = None
) -> NDArray[np.float64]:
    """Measure the accuracy on the test part of each split of a classifier fitted on its training part: (splits,).

    Args:
        features: (n, D).
        labels: (n,) classes.
        splits: numbers of rows.
        classifier: a linear SVM by default.
    """
    features, labels = np.asarray(features), np.asarray(labels)
    classifier = classifier or LinearClassifier()
    found = []
    for split in splits:
        model = classifier.fit(features[split.train], labels[split.train])
        found.append(float((model.predict(features[split.test]) == labels[split.test]).mean()))
    return np.array(found)


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval.

    Attributes:
        mean: of the values.
        low: lower end.
        high: upper end.
        std: standard deviation of the values.
        count: number of values.
    """

    mean: float
    low: float
    high: float
    std: float
    count: int

    def __str__(self) -> str:
        return with_interval(self.mean, self.low, self.high)


def with_interval(value: float, low: float, high: float) -> str:
    """Write a value and its interval as tables have them: 0.500 [0.400, 0.600]."""
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def interval(values: Array, *, test_over_train: float = 0.0, level: float = 0.95) -> Interval:
    """Average scores over splits, or paired differences of scores, with a confidence interval.

    Splits share training samples, so their scores are not independent, and the usual interval is far too narrow. This
    is the corrected resampled t interval (Nadeau and Bengio 2003, Inference for the generalization error, section 4):
    the variance of the mean of J scores is (1/J + n_test/n_train) times their variance.

    Args:
        values: (J,) scores, at least 2.
        test_over_train: n_test / n_train of a split (1/9 for ten folds); 0 for independent values, such as seeds.
        level: of confidence.
    """
    values = np.asarray(values, dtype=np.float64)
    count = len(values)
    if count < 2 or not np.isfinite(values).all():
        raise ValueError(f"expected at least 2 finite values for an interval, got {values.tolist()}")
    std = float(values.std(ddof=1))
    half = float(student.ppf(0.5 + level / 2, count - 1)) * std * float(np.sqrt(1 / count + test_over_train))
    mean = float(values.mean())
    return Interval(mean=mean, low=mean - half, high=mean + half, std=std, count=count)


def _unchecked() -> AbstractContextManager[None]:
    """Have scikit-learn check neither its settings nor for infinities: on few samples it takes most of the time."""
    return config_context(assume_finite=True, skip_parameter_validation=True)


def _counts(labels: Array, *, least: int = 2) -> NDArray[np.int64]:
    """Count the samples of each class, at least `least` classes and samples of each."""
    names, counts = np.unique(np.asarray(labels), return_counts=True)
    if len(names) < 2 or counts.min() < least:
        found = dict(zip(names.tolist(), counts.tolist(), strict=True))
        raise ValueError(f"expected at least 2 classes with at least {least} samples each, got {found}")
    return counts


def wilson(successes: float, total: int, *, z: float = 1.959964) -> tuple[float, float]:
    """The interval of a share by Wilson (1927), of 95% by default.

    Raises:
        ValueError: there is nothing to take a share of.
    """
    if total < 1 or not 0 <= successes <= total:
        raise ValueError(f"expected 0 to N successes of at least one, got {successes} of {total}")
    share, square = successes / total, z * z
    centre = (share + square / (2 * total)) / (1 + square / total)
    half = z / (1 + square / total) * math.sqrt(share * (1 - share) / total + square / (4 * total * total))
    return max(0.0, centre - half), min(1.0, centre + half)
