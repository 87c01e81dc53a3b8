"""Tasks to evaluate features on: label columns, and the splits for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jepa_lightning.evaluation.features.pooled import is_class
from jepa_lightning.evaluation.probes.protocols import Split, leave_one_group_out, repeated_splits, stratified_folds

Array = NDArray[Any]
Kind = Literal["split", "folds", "repeated", "groups"]
_BINS = 5  # of continuous labels, so that folds have the same share of low and high ones


@dataclass(frozen=True)
class Protocol:
    """How samples are split into a training and a test part.

    Attributes:
        kind: "split": the data's own train and test part; "folds": stratified k-fold; "repeated": stratified random
            splits; "groups": each group is the test part once, with a fit on the others.
        folds: number of folds.
        repeats: number of random splits.
        test_share: share of the samples in the test part of each.
        group: class label that defines the groups, such as "speaker".
        label_shares: shares of the training labels for a low-label curve, such as (0.01, 0.05, 0.1); empty for none.
            1 is always included.
        label_draws: random draws of the labels at each share, for "split"; the other kinds draw once per split.
        shots: samples per class of few-shot episodes, such as (1, 5); empty for none.
        ways: classes per episode; None: 5, or all if there are fewer.
        episodes: number of episodes, a multiple of 100.
        resamples: resamples of the bootstrap over test samples.
        seed: seed of all random draws.
    """

    kind: Kind = "split"
    folds: int = 10
    repeats: int = 10
    test_share: float = 0.2
    group: str | None = None
    label_shares: tuple[float, ...] = ()
    label_draws: int = 5
    shots: tuple[int, ...] = ()
    ways: int | None = None
    episodes: int = 2000
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings that nothing else checks."""
        if self.kind not in ("split", "folds", "repeated", "groups"):
            raise ValueError(f"expected the protocol split, folds, repeated or groups, got {self.kind!r}")
        if (self.kind == "groups") != (self.group is not None):
            raise ValueError(f"expected a group with the protocol groups and with no other, got {self.kind!r} "
                             f"and the group {self.group!r}")  # fmt: skip
        if not all(0 < share <= 1 for share in self.label_shares):
            raise ValueError(f"expected label_shares above 0 and at most 1, got {self.label_shares}")
        if self.label_draws < 1 or self.resamples < 100:
            raise ValueError(
                f"expected label_draws >= 1 and resamples >= 100, got {self.label_draws} and {self.resamples}"
            )

        if self.episodes % 100 or self.episodes < 200 or not all(shots > 0 for shots in self.shots):
            raise ValueError(
                "expected a number of episodes that is a multiple of 100, at least 200, and at least one shot, got "
                f"{self.episodes} and {self.shots}"
            )
        if self.ways is not None and (self.ways < 2 or not self.shots):
            raise ValueError(f"expected at least 2 ways, and shots with them, got {self.ways} and {self.shots}")

    def __str__(self) -> str:
        return {
            "split": "the data's own train and test part; intervals from a bootstrap over the test samples",
            "folds": f"stratified {self.folds}-fold; intervals over folds, corrected (Nadeau and Bengio 2003)",
            "repeated": (
                f"{self.repeats} stratified random splits with {self.test_share:.0%} for the test; intervals over "
                "splits, corrected (Nadeau and Bengio 2003)"
            ),
            "groups": (
                f"leave one {self.group} out; every {self.group} counts alike; intervals over them, corrected "
                "(Nadeau and Bengio 2003)"
            ),
        }[self.kind]


@dataclass(frozen=True)
class Task:
    """One label column, of the samples that have it.

    Attributes:
        name: of the label.
        rows: (n,) numbers of the samples that have it.
        values: (n,) classes from 0, or (n, d) float64 values; or maps of either, (n, H, W), -1 and NaN for none.
        names: of the classes; empty for a continuous label.
    """

    name: str
    rows: NDArray[np.int64]
    values: Array
    names: tuple[str, ...] = ()

    @property
    def classes(self) -> bool:
        """Whether the label holds classes."""
        return bool(self.names)

    @property
    def maps(self) -> bool:
        """Whether the label is a map of a sample's pixels."""
        return self.values.ndim == 3

    @property
    def strata(self) -> Array:
        """The classes (n,) that splits keep the shares of; all the same where the label holds none."""
        return self.values if self.classes and not self.maps else np.zeros(len(self.values), dtype=np.int64)


def make_task(name: str, label: Tensor, *, names: Sequence[str] | None = None, maps: bool = False) -> Task:
    """Make a task from a label column: (n,) whole numbers, negative for none, or (n, ...) floats, NaN for none.

    Args:
        name: of the label.
        label: its values.
        names: of the classes 0, 1, ...; None: their numbers.
        maps: take (n, H, W), whole numbers too, as maps of pixels.

    Raises:
        ValueError: no sample has the label, or all have the same.
    """
    if maps and label.ndim == 3:
        return _map_task(name, label, names or ())
    classes = is_class(label)
    if not classes and not label.is_floating_point():
        raise ValueError(
            f"label {name!r}: expected one class a sample or numbers with a point, got {label.dtype} of the shape "
            f"{tuple(label.shape)}" + (": the probe dense takes a map of pixels" if label.ndim == 3 else "")
        )
    values = label.numpy() if classes else label.double().reshape(len(label), -1).numpy()
    rows = np.flatnonzero(values >= 0 if classes else np.isfinite(values).all(1))
    values = values[rows]
    if not len(rows):
        raise ValueError(f"label {name!r}: none of the {len(label)} samples has it")
    if (values == values[:1]).all():
        raise ValueError(
            f"label {name!r}: all {len(rows)} samples have the same value, {float(values.ravel()[0]):g}: nothing to "
            "predict"
        )
    if not classes:
        return Task(name, rows, values)
    found, values = np.unique(values, return_inverse=True)
    written = [names[number] if names and number < len(names) else str(number) for number in found.tolist()]
    return Task(name, rows, values.astype(np.int64), tuple(written))


def _map_task(name: str, label: Tensor, names: Sequence[str]) -> Task:
    """A label that is a map of pixels: classes are numbered by those that there are."""
    known = label.isfinite() if label.is_floating_point() else label >= 0
    rows = np.flatnonzero(known.flatten(1).any(1).numpy())
    found = label[known].unique()
    if len(found) < 2:
        got = f"only {float(found[0]):g}" if len(found) else "none"
        raise ValueError(f"label {name!r}: expected pixels of at least 2 values, got {got}")
    if label.is_floating_point():
        return Task(name, rows, label.double().numpy()[rows])
    numbers = torch.searchsorted(found, label.clamp(min=int(found[0]))).masked_fill(~known, -1)
    written = [names[number] if number < len(names) else str(number) for number in found.tolist()]
    return Task(name, rows, numbers.numpy()[rows], tuple(written))


def find_tasks(
    labels: Mapping[str, Tensor],
    *,
    asked: Sequence[str] | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
    group: str | None = None,
    maps: bool = False,
) -> tuple[list[Task], list[str]]:
    """Find the tasks of a dataset and, as notes, the columns that are none.

    Args:
        labels: name to (n, ...).
        asked: labels to evaluate; None: all usable ones, except the groups.
        names: of the classes of each label.
        group: the label of the groups that are left out.
        maps: take maps of pixels; see `make_task`.

    Raises:
        ValueError: a label asked for does not exist or is constant, or no label is left.
    """
    missing = sorted(set(asked or ()) - set(labels))
    if missing:
        raise ValueError(f"no label {missing[0]!r} in the data: it has {sorted(labels)}")
    tasks, notes = [], []
    for name in labels if asked is None else asked:
        if name == group:
            notes.append(f"label {name!r}: not evaluated, since a {name} that was left out cannot be predicted")
            continue
        try:
            tasks.append(make_task(name, labels[name], names=(names or {}).get(name), maps=maps))
        except ValueError as error:
            if asked is not None:
                raise
            notes.append(f"{error} (skipped)")
    if not tasks:
        raise ValueError("; ".join(notes) or "the data have no labels: there is nothing to evaluate features on")
    return tasks, notes


def make_splits(task: Task, protocol: Protocol, *, train: int, groups: Tensor | None = None) -> list[Split]:
    """Make the splits of a task, as numbers of its rows.

    Args:
        task: of n rows.
        protocol: how.
        train: number of samples of the data's own training part, which come first; of a "split" only.
        groups: (all samples,) group of each, of "groups" only; a negative one is left out.

    Raises:
        ValueError: the samples do not suffice.
    """
    if protocol.kind == "split":
        split = Split(np.flatnonzero(task.rows < train), np.flatnonzero(task.rows >= train))
        for part, rows in (("training", split.train), ("test", split.test)):
            if not len(rows):
                raise ValueError(f"no sample of the {part} part has it")
        if not task.maps and (task.values[split.train] == task.values[split.train[:1]]).all():
            raise ValueError("all samples of the training part have the same value")
        return [split]
    if protocol.kind == "groups":
        if groups is None:
            raise ValueError("expected the groups of the samples for the protocol groups, got none")
        found = groups.numpy()[task.rows]
        kept = np.flatnonzero(found >= 0)
        return [Split(kept[split.train], kept[split.test]) for split in leave_one_group_out(found[kept])]
    strata = np.arange(len(task.values)) % 2 if task.maps else task.values  # of maps any, since there must be two
    if not task.classes and not task.maps:
        order = np.argsort(np.argsort(task.values[:, 0], kind="stable"))
        strata = order * min(_BINS, max(2, len(order) // protocol.folds)) // len(order)
    if protocol.kind == "folds":
        return stratified_folds(strata, folds=protocol.folds, seed=protocol.seed)
    return repeated_splits(strata, repeats=protocol.repeats, test_share=protocol.test_share, seed=protocol.seed)
