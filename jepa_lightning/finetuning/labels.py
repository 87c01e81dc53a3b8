"""The labels that fine-tuning sees: which are drawn, and what they are."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jepa_lightning.data import JEPADataModule, draw, known_targets
from jepa_lightning.evaluation.features.extraction import Extracted, Splits, extract_splits
from jepa_lightning.evaluation.features.pooled import is_class
from jepa_lightning.loading import Frozen
from jepa_lightning.names.printable import printable


@dataclasses.dataclass(frozen=True)
class Goal:
    """A label, as all parts have it.

    Attributes:
        name: of the label.
        classes: the numbers of its classes, rising; None for values.
        names: of the classes.
        width: number of values of a continuous label; else 0.
    """

    name: str
    classes: list[int] | None
    names: list[str]
    width: int

    def truth(self, label: Tensor) -> Tensor:
        """Number classes (n,) from 0, -1 for none; or values (n, width)."""
        if self.classes is None:
            return label.float().reshape(len(label), -1)
        known = torch.tensor(self.classes)
        place = torch.searchsorted(known, label).clamp(max=len(known) - 1)
        return torch.where(known[place] == label, place, -1)

    def known(self, truth: Tensor) -> Tensor:
        """Tell which of these, as `truth` has them, there are: (n,) bool."""
        return truth.isfinite().all(1) if self.classes is None else truth >= 0


def find_goal(data: JEPADataModule, labels: dict[str, Tensor], asked: str | None) -> Goal:
    """Find the label to predict: `asked`, or the data's primary one.

    Raises:
        ValueError: there is no such label, or it takes one value only.
    """
    name = asked or data.label
    if name is None or name not in labels:
        raise ValueError(f"no label {name or ''!r} in the data: it has {sorted(labels)}")
    label = labels[name]
    if label.is_floating_point():
        return Goal(name, None, [], label[0].numel())
    if not is_class(label):
        raise ValueError(
            f"label {name!r}: expected one class a sample or numbers with a point, got {tuple(label.shape)}: the head "
            "dense takes a map of each image's pixels"
        )
    classes = label[label >= 0].unique().tolist()
    if len(classes) < 2:
        raise ValueError(f"label {name!r}: expected at least 2 classes, got {len(classes)}")
    written = (data.classes or []) if name == data.label else []
    return Goal(name, classes, [written[n] if n < len(written) else str(n) for n in classes], 0)


def draw_labels(data: JEPADataModule, label: str | None, *, share: float, seed: int) -> NDArray[np.int64]:
    """Draw a share of the training samples, as indices of their dataset; of each class alike, at least one.

    Stratified where the dataset tells its classes without reading its samples, and the label is the primary one.

    Raises:
        ValueError: a share out of range.
    """
    if not 0 < share <= 1:
        raise ValueError(f"expected label_shares above 0 and at most 1, got {share:g}")
    train = data.part("train")
    indices = train.indices
    targets = known_targets(train.dataset) if label in (None, data.label) else None
    if targets is not None:
        indices = indices[targets[indices] >= 0]
        targets = targets[indices]
        number = max(round(share * len(indices)), len(np.unique(targets)))
        return indices[draw(len(indices), number, seed=seed, targets=targets)]
    return indices[draw(len(indices), max(2, round(share * len(indices))), seed=seed)]


def drawn_splits(data: JEPADataModule, drawn: NDArray[np.int64], splits: Sequence[str]) -> Splits:
    """Return the drawn training samples, by their indices in the dataset, and other splits, to be read in order."""
    samples = Splits(data, "all")
    train = samples.samples["train"]
    kept = {"train": train.derive(train.transform, indices=drawn)}
    samples.samples = kept | {name: samples.samples[name] for name in splits}
    return samples


def with_training_samples(data: JEPADataModule, indices: NDArray[np.int64], *, maps: bool = False) -> JEPADataModule:
    """Return the same data with these samples alone to train on, none of which is dropped at the end of an epoch.

    With label `maps`, samples are augmented one by one, so that a map follows its image.
    """
    train = data.part("train")
    kept = train.derive(train.transform, indices=indices, views=train.views)
    kept.batched = None if maps else train.batched
    few = copy.copy(data)
    few.parts = dataclasses.replace(data.parts, samples={**data.parts.samples, "train": kept})
    few.drop_last = False
    return few


class Frozenly:
    """Frozen features of the drawn training samples and of the other splits, by encoder, and their labels.

    Args:
        data: bound to the encoders' modality.
        encoders: by name.
        drawn: indices of all training samples that any draw has.
        splits: the others that are looked at.

    Attributes:
        labels: by split, by name.
        samples: the splits, to read their batches again.
    """

    def __init__(
        self, data: JEPADataModule, encoders: dict[str, Frozen], drawn: NDArray[np.int64], splits: Sequence[str]
    ) -> None:
        train = data.part("train")
        self.samples = drawn_splits(data, drawn, splits)
        self.found: dict[str, Extracted] = extract_splits(
            self.samples, {name: encoder.embed for name, encoder in encoders.items()}
        )
        first = next(iter(self.found.values()))
        self.labels = {split: features.labels for split, features in first.features.items()}
        names = [printable(train.sample_id(int(index))) for index in drawn]
        self._row = {int(index): row for row, index in enumerate(drawn)}
        if first.ids["train"] != names:  # some cannot be read
            place = {name: row for row, name in enumerate(first.ids["train"])}
            self._row = {int(i): place[n] for i, n in zip(drawn, names, strict=True) if n in place}

    def rows(self, indices: NDArray[np.int64]) -> Tensor:
        """Return the rows of training samples, by their indices in the dataset; without those that cannot be read."""
        return torch.tensor([self._row[int(index)] for index in indices if int(index) in self._row])

    def features(self, encoder: str, split: str) -> Tensor:
        """Return the features (n, D) of a split by an encoder."""
        return self.found[encoder].features[split].values
