"""Every sample of a split once, in order, none augmented and none in another's place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset

from jepa_lightning.data.batch import Collate, Sample
from jepa_lightning.data.errors import DataError
from jepa_lightning.data.module import JEPADataModule
from jepa_lightning.data.samples import READ_ERRORS, Samples
from jepa_lightning.data.streams.samples import StreamSamples
from jepa_lightning.modality import Batch

SPLITS = ("train", "val", "test")
_WITH_ORDER = {"ShardStream": "Shards", "HuggingFaceStream": "HuggingFace"}


class InOrder(Dataset[Sample]):
    """The samples of a part; one that cannot be read is `{"unreadable": [(id, reason)]}`, where `Samples` replaces it.

    Args:
        samples: the part, with the evaluation transform.
        start: position of the first.
    """

    def __init__(self, samples: Samples, *, start: int = 0) -> None:
        self.samples = samples
        self.start = start

    def __len__(self) -> int:
        return len(self.samples) - self.start

    def __getitem__(self, position: int) -> Sample:
        index = int(self.samples.indices[self.start + position])
        try:
            return self.samples.read(index)
        except DataError:
            raise  # the dataset as a whole is not what it should be
        except READ_ERRORS as error:
            return {"unreadable": [(self.samples.sample_id(index), f"{type(error).__name__}: {error}")]}


class CollateReadable:
    """A batch of those samples that could be read; without `id` where none could.

    Args:
        collate: makes the batch.
    """

    def __init__(self, collate: Collate) -> None:
        self.collate = collate

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """The batch, with `unreadable`: (id, reason) of those that are missing."""
        readable = [sample for sample in samples if "id" in sample]
        batch = self.collate(readable) if readable else {}
        return {**batch, "unreadable": [bad for sample in samples for bad in sample.get("unreadable", ())]}


def splits_in_order(data: JEPADataModule, split: str = "all") -> tuple[dict[str, Samples], CollateReadable]:
    """The parts of `data` with the evaluation transform, and what makes batches of them.

    Args:
        data: its `drop_last` must be False.
        split: "train" (without what is held out of it for validation), "val", "test", or "all" that there are.

    Raises:
        DataError: there is no such split.
    """
    if split not in (*SPLITS, "all"):
        raise DataError(f"expected the split {', '.join(SPLITS)} or all, got {split!r}")
    loaders: dict[str, Any] = {"train": data.train_dataloader(), "val": data.val_dataloader()}
    if data.has_test:
        loaders["test"] = data.test_dataloader()
    found = {name: loader for name, loader in loaders.items() if loader and split in (name, "all")}
    if not found:
        there = ", ".join(name for name, loader in loaders.items() if loader)
        raise DataError(f"expected a split {split}, but these data have only {there}: choose one of them, or add it")
    stream = next((loader.dataset for loader in found.values() if isinstance(loader.dataset, StreamSamples)), None)
    if stream is not None:
        kind = type(stream.dataset).__name__
        raise DataError(
            f"expected data with a length and an order, got the stream {kind}: read them with --data.dataset "
            f"{_WITH_ORDER.get(kind, 'CLASS')} in its place, or choose a split that is none"
        )
    transform = data.transforms()[1]
    parts = {}
    for name, loader in found.items():
        part: Samples = loader.dataset
        parts[name] = Samples(part.dataset, name=part.name, split=part.split, indices=part.indices, transform=transform)
    return parts, CollateReadable(next(iter(found.values())).collate_fn)
