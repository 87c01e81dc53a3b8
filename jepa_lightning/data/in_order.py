"""Every sample of a split once, in order, none augmented and none in another's place."""

from __future__ import annotations

from collections.abc import Sequence

from torch.utils.data import Dataset

from jepa_lightning.data.batch import Collate, Sample
from jepa_lightning.data.errors import DataError
from jepa_lightning.data.loaders import SPLITS
from jepa_lightning.data.module import JEPADataModule
from jepa_lightning.data.samples import READ_ERRORS, Samples
from jepa_lightning.modality import Batch

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


def splits_in_order(data: JEPADataModule, split: str = "all") -> dict[str, Samples]:
    """The parts of `data` with the evaluation transform.

    Args:
        data: bound to a modality, where it needs one.
        split: "train" (without what is held out of it for validation), "val", "test", or "all" that there are.

    Raises:
        DataError: there is no such split, or it is a stream.
    """
    if split not in (*SPLITS, "all"):
        raise DataError(f"expected the split {', '.join(SPLITS)} or all, got {split!r}")
    names = data.splits if split == "all" else (split,)
    parts = {name: data.part(name) for name in names}
    if data.stream is not None and "train" in parts:
        kind = type(data.stream.dataset).__name__
        raise DataError(
            f"expected data with a length and an order, got the stream {kind}: read them with --data.dataset "
            f"{_WITH_ORDER.get(kind, 'CLASS')} in its place, or choose a split that is none"
        )
    transform = data.part("probe").transform  # that of evaluation
    return {name: part.derive(transform) for name, part in parts.items()}
