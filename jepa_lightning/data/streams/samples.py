"""Samples of a stream: one worker's share of it, pass after pass, without what cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

from torch.utils.data import Dataset, IterableDataset, get_worker_info

from jepa_lightning.data.batch import Sample, to_sample
from jepa_lightning.data.errors import DataError
from jepa_lightning.data.samples import READ_ERRORS, TRIES
from jepa_lightning.data.sources.records import Record, RecordList
from jepa_lightning.data.streams.base import UnreadableRecord, as_stream
from jepa_lightning.data.views import ViewTransform, draw_views
from jepa_lightning.randomness import derive_seed, reseed


@dataclass
class Place:
    """Where reading begins, and whose share is read.

    Attributes:
        seed: of the run.
        epoch: whose order it is.
        rank: of this process.
        ranks: processes that share the stream.
        start: batches of this rank that were handed out before, and are left out.
    """

    seed: int = 0
    epoch: int = 0
    rank: int = 0
    ranks: int = 1
    start: int = 0


class StreamSamples(IterableDataset[Sample]):
    """A stream as sample dicts without an end, pass after pass; never fails on an unreadable sample.

    Args:
        stream: gives the records.
        prepare: makes of a dataset of records one of what `to_sample` takes.
        name: key of the input.
        transform: sample dict to sample dict, or None. Must be picklable.
        batch_size: samples a batch.
        views: how many views of each sample; more than one need a `ViewTransform`.

    Attributes:
        place: set it before each iteration.
    """

    def __init__(
        self,
        stream: IterableDataset[Any],
        *,
        prepare: Callable[[Dataset[Any]], Dataset[Any]],
        name: str,
        transform: Callable[[Sample], Sample] | None,
        batch_size: int,
        views: int = 1,
    ) -> None:
        self.dataset = as_stream(stream)
        self.name = name
        self.transform = transform
        self.batch_size = batch_size
        self.views = views
        self.place = Place()
        self._slot = RecordList([None])  # a record is put here, and read through what the modality made of it
        self._slot.streamed = True
        self._prepared = prepare(self._slot)

    def __iter__(self) -> Iterator[Sample]:
        info, place = get_worker_info(), self.place
        workers, worker = (1, 0) if info is None else (info.num_workers, info.id)
        # Batches come from the workers in turn: after `start` of them it is another worker's turn.
        worker = (worker + place.start) % workers
        skip = -(-max(0, place.start - worker) // workers) * self.batch_size
        part, parts = place.rank * workers + worker, place.ranks * workers
        failed: list[tuple[str, str]] = []
        for index, record in enumerate(self._passes(part, parts)):
            if index < skip:
                continue
            if isinstance(record, UnreadableRecord):
                failed.append(record)
            else:
                seed = derive_seed(place.seed, place.epoch, part, index)
                reseed(seed)
                sample_id = f"stream[{index * parts + part}]"
                try:
                    sample = self.read(record, sample_id, seed)
                except DataError:
                    raise  # the data as a whole are not what they should be
                except READ_ERRORS as error:
                    sample_id = record.id if isinstance(record, Record) else sample_id
                    failed.append((sample_id, f"{type(error).__name__}: {error}"))
                else:
                    yield sample | {"unreadable": failed} if failed else sample
                    failed = []
            if len(failed) >= TRIES:
                yield {"unreadable": failed}
                failed = []

    def read(self, record: Any, sample_id: str, seed: int | None = None) -> Sample:
        """Read a record as a sample, transformed; errors pass through. Views are drawn from `seed`."""
        self._slot.items[0] = record
        sample = to_sample(self._prepared[0], name=self.name, sample_id=sample_id)
        if self.views > 1 and isinstance(self.transform, ViewTransform):
            return draw_views(sample, self.transform, views=self.views, seed=seed)
        return sample if self.transform is None else self.transform(sample)

    def _passes(self, part: int, parts: int) -> Iterator[Any]:
        for number in count():
            seed = derive_seed(self.place.seed, self.place.epoch, number)
            good, failed = False, []
            for record in self.dataset.records(part, parts, seed=seed):
                good = good or not isinstance(record, UnreadableRecord)
                failed += [record] if isinstance(record, UnreadableRecord) and not good else []
                yield record
            if not good:
                listing = "".join(f"\n  {name} ({reason})" for name, reason in failed[:20])
                raise DataError(
                    f"expected samples in the stream for each of {parts} loader workers (of all ranks), got none for "
                    f"one: set fewer data.num_workers, or check where it reads from{listing}"
                )
