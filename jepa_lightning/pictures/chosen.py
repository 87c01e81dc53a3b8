"""Single samples of a split, in order and without augmentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader

from jepa_lightning.data import DataError, JEPADataModule, Samples
from jepa_lightning.data.batch import Sample
from jepa_lightning.data.in_order import CollateReadable, InOrder, splits_in_order
from jepa_lightning.modality import Batch
from jepa_lightning.names.nearest import nearest_names
from jepa_lightning.pretexts.trajectories import first_observations

_COMPARED = 5000  # names that a mistyped one is compared to


class ChosenSamples:
    """The samples of a split by their positions, 0 to n - 1.

    Args:
        data: bound to a modality, where it needs one.
        split: "train", "val" or "test".

    Attributes:
        unreadable: id and reason of the samples that could not be read so far.

    Raises:
        DataError: there is no such split.
    """

    def __init__(self, data: JEPADataModule, split: str = "val") -> None:
        self._samples = splits_in_order(data, split)[split]
        self._collate = CollateReadable(data.collate)
        self._batch_size = data.batch_size
        self._workers = data.workers
        self.split = split
        self.unreadable: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._samples)

    def spread(self, count: int) -> list[int]:
        """The positions of at most `count` samples, evenly over the split."""
        count = min(count, len(self))
        return [] if count < 1 else torch.linspace(0, len(self) - 1, count).round().long().unique().tolist()

    def find(self, ids: Sequence[str]) -> list[int]:
        """The positions of the samples of these ids, in that order.

        Raises:
            DataError: there is no such sample.
        """
        known = {self._samples.sample_id(int(index)): place for place, index in enumerate(self._samples.indices)}
        for name in ids:
            if name not in known:
                close = nearest_names(name, list(known)[:_COMPARED], cutoff=0.5) or list(known)[:1]
                raise DataError(
                    f"expected ids of the split {self.split}, got {name!r}, which it lacks: ids look like {close[0]!r}"
                )
        return [known[name] for name in ids]

    def batches(self, positions: Sequence[int]) -> Iterator[Batch]:
        """Batches of the samples at these positions that can be read, in that order.

        They have `position`, a list of each row's position: several clips of one video are rows of one position. Of
        trajectories it is the first observation of each.
        """
        part = self._samples
        chosen = part.derive(part.transform, indices=part.indices[list(positions)])
        many = len(positions) > self._batch_size
        loader = DataLoader(
            _Numbered(chosen, positions),
            batch_size=self._batch_size,
            num_workers=self._workers if many else 0,
            collate_fn=self._collate,
        )
        for batch in loader:
            self.unreadable |= dict(batch.pop("unreadable"))
            if "id" in batch:
                yield first_observations(batch)

    def read(self, positions: Sequence[int]) -> Batch:
        """One batch of the samples at these positions; those that cannot be read are missing.

        Raises:
            DataError: none can be read.
        """
        size, self._batch_size = self._batch_size, len(positions)
        try:
            found = next(self.batches(positions), None)
        finally:
            self._batch_size = size
        if found is None:
            raise DataError(f"expected samples that can be read, got none: {next(iter(self.unreadable.items()), '')}")
        return found


class _Numbered(InOrder):
    """Samples that carry their position in the split."""

    def __init__(self, samples: Samples, positions: Sequence[int]) -> None:
        super().__init__(samples)
        self.positions = list(positions)

    def __getitem__(self, position: int) -> Sample:
        sample: dict[str, Any] = super().__getitem__(position)
        return {**sample, "position": self.positions[position]} if "id" in sample else sample
