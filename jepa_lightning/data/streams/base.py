"""Data that are read from the beginning to the end: shared out over ranks and workers, shuffled, and resumed."""

from __future__ import annotations

import math
import random
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, count, islice
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from jepa_lightning.data.batch import Sample, to_sample
from jepa_lightning.data.errors import DataError
from jepa_lightning.data.samples import READ_ERRORS, TRIES, ReportingLoader
from jepa_lightning.data.sources.records import Encoded, Listed, Record
from jepa_lightning.data.views import ViewTransform, draw_views
from jepa_lightning.modality import Batch
from jepa_lightning.randomness import derive_seed, reseed, undisturbed
from jepa_lightning.shown import Shown

KEPT_BYTES = 2**30  # of encoded samples that are kept in memory
FEW = 256  # training samples that are kept where there is no probe, to look at


class Failed(NamedTuple):
    """In a record's place: what could not be read, and why."""

    id: str
    reason: str


class Stream(Shown, IterableDataset[Any], ABC):
    """Records in shards, each read from its beginning to its end.

    A pass reads every record once: the shards in an order drawn from a seed, and shared out over all workers of all
    ranks. Where there are fewer shards than workers, each worker reads all shards and keeps every n-th record.

    Args:
        shuffle_buffer: so many undecoded records wait in each worker, and a random one of them comes next; 1 keeps the
            order within a shard.

    Raises:
        DataError: `shuffle_buffer` below 1.
    """

    classes: list[str] | None = None

    def __init__(self, *, shuffle_buffer: int = 1000) -> None:
        if shuffle_buffer < 1:
            raise DataError(f"expected shuffle_buffer of at least 1, got {shuffle_buffer}")
        self.shuffle_buffer = shuffle_buffer

    @property
    @abstractmethod
    def shards(self) -> int:
        """How many shards there are."""

    @abstractmethod
    def read(self, shard: int) -> Iterator[Any]:
        """The records of a shard in their order; `Failed` for what is damaged. Nothing is decoded here."""

    def records(self, part: int = 0, parts: int = 1, *, seed: int | None = None) -> Iterator[Any]:
        """One pass: what worker `part` of `parts` reads, shuffled by `seed`; None keeps the order."""
        order = np.arange(self.shards) if seed is None else np.random.default_rng(seed).permutation(self.shards)
        alone = len(order) >= parts
        found = chain.from_iterable(map(self.read, (order[part::parts] if alone else order).tolist()))
        mine = found if alone else islice(found, part, None, parts)
        return mine if seed is None else shuffled(mine, self.shuffle_buffer, random.Random(derive_seed(seed, part)))

    def __iter__(self) -> Iterator[Any]:
        return self.records()


class Plain(Stream):
    """Anyone's iterable dataset, which must give the same samples in every process: each keeps its share of them."""

    def __init__(self, dataset: IterableDataset[Any]) -> None:
        super().__init__()
        if type(dataset).__module__.partition(".")[0] == "datasets":  # it would share itself out a second time
            raise DataError("expected HuggingFaceStream for a streamed Hugging Face dataset: name it as data.dataset")
        self.dataset = dataset
        self.classes = getattr(dataset, "classes", None)

    @property
    def shards(self) -> int:
        """One."""
        return 1

    def read(self, shard: int) -> Iterator[Any]:
        """All samples."""
        return iter(self.dataset)


def shuffled(items: Iterator[Any], size: int, rng: random.Random) -> Iterator[Any]:
    """The items, each a random one of the `size` that come next."""
    buffer: list[Any] = list(islice(items, size - 1))
    for item in items:
        buffer.append(item)
        chosen = rng.randrange(len(buffer))
        buffer[chosen], buffer[-1] = buffer[-1], buffer[chosen]
        yield buffer.pop()
    rng.shuffle(buffer)
    yield from buffer


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
        self._slot = Listed([None])  # a record is put here, and read through what the modality made of it
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
            if isinstance(record, Failed):
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
        """A record as a sample, transformed; errors pass through. Views are drawn from `seed`."""
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
                good = good or not isinstance(record, Failed)
                failed += [record] if isinstance(record, Failed) and not good else []
                yield record
            if not good:
                listing = "".join(f"\n  {name} ({reason})" for name, reason in failed[:20])
                raise DataError(
                    f"expected samples in the stream for each of {parts} loader workers (of all ranks), got none for "
                    f"one: set fewer data.num_workers, or check where it reads from{listing}"
                )


class StreamLoader(ReportingLoader):
    """Training batches of a stream, equally many on every rank; its place is part of a checkpoint.

    Args:
        *args: the DataLoader's.
        place: whose share is read.
        batches: in an epoch; None: without an end.
        epoch: gives the epoch as an iteration begins.
        **kwargs: the DataLoader's, and `unreadable`.
    """

    def __init__(
        self,
        *args: Any,
        place: Place,
        batches: int | None = None,
        epoch: Callable[[], int] = lambda: 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        # Lightning warns of what is seen to here: that every worker reads its own share.
        warnings.filterwarnings("ignore", message="Your `IterableDataset` has `__len__` defined")
        self.place = place
        self.batches = batches
        self._current = epoch
        self._resume: tuple[int, int] | None = None
        self._epoch = self._batches = 0

    def __len__(self) -> int:
        if self.batches is None:
            raise TypeError("this stream has no end")
        return self.batches

    def __bool__(self) -> bool:
        return True  # with or without an end

    def state_dict(self) -> dict[str, Any]:
        """Seed, epoch, how many batches of it were handed out, and to how many readers."""
        readers = (self.place.ranks, self.num_workers)
        return {"seed": self.place.seed, "epoch": self._epoch, "batches": self._batches, "readers": readers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after those batches, if the next iteration is of that epoch; and with that seed."""
        self.place.seed = int(state["seed"])
        self._resume = int(state["epoch"]), int(state["batches"])
        self._epoch, self._batches = self._resume
        readers = (self.place.ranks, self.num_workers)
        if tuple(state["readers"]) != readers:
            warnings.warn(
                "the stream goes on in another order than before: (ranks, data.num_workers) were "
                f"{tuple(state['readers'])}, and are {readers}",
                stacklevel=2,
            )

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        resume, self._resume = self._resume, None
        self._epoch, self._batches = self._current(), 0
        if resume is not None and resume[0] == self._epoch and (self.batches is None or resume[1] < self.batches):
            self._batches = resume[1]
        self.place.epoch, self.place.start = self._epoch, self._batches
        self.dataset.place = self.place  # type: ignore[attr-defined]  # workers begin with a copy of it
        found = super().__iter__()
        while self.batches is None or self._batches < self.batches:
            if self.num_workers:
                batch = next(found)
            else:
                with undisturbed():  # augmentation seeds the generators of this process
                    batch = next(found)
            self._batches += 1
            yield batch


def as_stream(dataset: IterableDataset[Any]) -> Stream:
    """Any iterable dataset as a stream."""
    return dataset if isinstance(dataset, Stream) else Plain(dataset)


def map_style(
    sets: dict[str, Dataset[Any]], *, prepare: Callable[[Dataset[Any]], Dataset[Any]], number: int
) -> dict[str, Dataset[Any]]:
    """The data sets by split, with the first samples of each stream in its place.

    Args:
        sets: by split.
        prepare: makes of a dataset of records one of what `to_sample` takes.
        number: samples of a stream, at most; of training streams without validation data, fewer do.
    """
    found = dict(sets)
    for split, dataset in sets.items():
        if isinstance(dataset, IterableDataset):
            few = number if len(sets) > 1 else min(number, FEW)
            found[split] = prepare(first_records(as_stream(dataset), few))
    return found


def epoch_batches(trainer: Any, epoch_samples: int | None, together: int) -> int | None:
    """Batches in an epoch of a stream, on each rank.

    Args:
        trainer: None, or what has no steps to count, where nothing trains.
        epoch_samples: of all ranks; None for the whole run.
        together: samples of the batches of all ranks.

    Raises:
        DataError: there is no batch in an epoch, or nothing says how long it is.
    """
    if epoch_samples is not None:
        if epoch_samples < together:
            raise DataError(
                f"expected epoch_samples of at least {together}, a batch on each process, got {epoch_samples}"
            )
        return epoch_samples // together
    steps = getattr(trainer, "max_steps", None)
    if steps is None:
        return None
    if steps < 0:
        raise DataError(
            "expected trainer.max_steps or data.epoch_samples with a stream, which has no length, got neither: set one"
        )
    return max(1, steps * trainer.accumulate_grad_batches)


def first_records(stream: Stream, number: int) -> Listed:
    """The first records, shuffled by a fixed seed, at most 1 GiB of them; the same in every process."""
    kept: list[Any] = []
    size = 0
    for record in stream.records(seed=0):
        if isinstance(record, Failed):
            continue
        data = record.input.data if isinstance(record, Record) and isinstance(record.input, Encoded) else b""
        size += len(data)
        if len(kept) == number or (kept and size > KEPT_BYTES):
            break
        kept.append(record)
    labels = {
        name: value for record in reversed(kept) if isinstance(record, Record) for name, value in record.labels.items()
    }
    without = {
        name: math.nan if isinstance(value, float) else -1 for name, value in labels.items() if np.ndim(value) == 0
    }
    kept = [replace(r, labels={**without, **r.labels}) if isinstance(r, Record) and without else r for r in kept]
    return Listed(kept, classes=stream.classes)
