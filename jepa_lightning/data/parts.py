"""The parts of a data set: training, validation (held out where there is none), test, and the probe's subset."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset, IterableDataset

from jepa_lightning.data.batch import Sample
from jepa_lightning.data.errors import DataError
from jepa_lightning.data.samples import Samples, Unreadable
from jepa_lightning.data.split import draw, known_targets

_log = logging.getLogger(__name__)
Transform = Callable[[Sample], Sample] | None


@dataclass(frozen=True)
class Parts:
    """The parts of a data set.

    Attributes:
        samples: by "train", "val" and "test", where there are such, and "probe".
        records: of unreadable samples, likewise; parts of the same files share one.
        targets: class of every sample that "train" is taken from, as far as it is known.
        example: the first readable training sample, as it is evaluated.
    """

    samples: dict[str, Samples]
    records: dict[str, Unreadable]
    targets: NDArray[np.int64] | None
    example: Sample

    @property
    def labelled(self) -> bool:
        """Whether training samples have labels; torchvision marks those without by -1."""
        return bool(self.example["labels"]) and (self.targets is None or bool((self.targets >= 0).any()))


def make_parts(
    sets: Mapping[str, Dataset[Any]],
    *,
    name: str,
    transforms: tuple[Transform, Transform],
    views: int = 1,
    seed: int = 0,
    val_fraction: float = 0.0,
    probe_samples: int = 2000,
    max_unreadable: float = 0.01,
) -> Parts:
    """Divide data sets into parts, and read one sample of each.

    Args:
        sets: by "train", "val" and "test"; all have a length.
        name: key of the input in a sample.
        transforms: of training and of evaluation.
        views: of each training sample.
        seed: draws the held-out part and the probe's subset.
        val_fraction: share of the training data that is held out where there is no "val"; 0 for none.
        probe_samples: size of the probe's subset.
        max_unreadable: largest share of a data set's samples that may be unreadable.

    Raises:
        DataError: a data set is empty or cannot be read, or nothing is left to train on.
    """
    train_transform, transform = transforms
    parts: dict[str, Samples] = {}
    records: dict[str, Unreadable] = {}
    for split, dataset in sets.items():
        records[split] = Unreadable(total=_length(dataset, split), limit=max_unreadable)
        parts[split] = Samples(dataset, name=name, split=split, transform=transform)
        broken: dict[int, str] = getattr(dataset, "unreadable", {})
        records[split].add([(parts[split].sample_id(index), why) for index, why in broken.items()])
    train = parts["train"]
    targets = known_targets(train.dataset)
    if targets is not None and (targets < 0).any() and not hasattr(train.dataset, "files"):
        _log.warning("%d of %d samples have a negative label, which means none", (targets < 0).sum(), len(targets))
    kept = np.arange(len(train))
    if "val" not in parts and val_fraction > 0:
        held = draw(len(train), max(1, round(val_fraction * len(train))), seed=seed, targets=targets)
        kept = np.setdiff1d(kept, held)
        if not len(kept):
            raise DataError(
                f"expected at least 2 training samples to hold some out for validation, got {len(train)}: add data or "
                "set val_fraction to 0"
            )
        parts["val"] = train.derive(transform, indices=held)
        records["val"] = records["train"]  # the same files
    examples = {split: _first(part, records[split]) for split, part in parts.items()}
    parts["probe"] = train.derive(transform, indices=_probe_indices(kept, targets, number=probe_samples, seed=seed))
    records["probe"] = records["train"]
    parts["train"] = train.derive(train_transform, indices=kept, views=views)
    return Parts(parts, records, targets, examples["train"])


def _probe_indices(
    kept: NDArray[np.int64], targets: NDArray[np.int64] | None, *, number: int, seed: int
) -> NDArray[np.int64]:
    """A labelled subset of the training samples `kept`, of all where none is known to have a label."""
    targets = None if targets is None else targets[kept]
    if targets is not None and (targets >= 0).any():
        kept, targets = kept[targets >= 0], targets[targets >= 0]
    return kept[draw(len(kept), number, seed=seed + 1, targets=targets)]


def _length(dataset: Dataset[Any], split: str) -> int:
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise DataError(
            f"expected the {split} dataset to have a length and indices, or to be a torch IterableDataset, got "
            f"{type(dataset).__name__}: add __len__"
        )
    if not len(dataset):
        raise DataError(f"expected samples in the {split} dataset, got none: check where it reads from")
    return len(dataset)


def _first(part: Samples, record: Unreadable) -> Sample:
    """The first readable sample; mistakes in the dataset show here, in the main process, with a short message."""
    sample = part[0]
    record.take(sample)
    return sample
