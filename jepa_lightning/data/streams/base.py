"""Streams: data that are read from the beginning to the end, shared out over ranks and workers, and shuffled."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import IterableDataset

from jepa_lightning.data.errors import DataError
from jepa_lightning.names.shown import Shown
from jepa_lightning.randomness import derive_seed


class UnreadableRecord(NamedTuple):
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
        """Read the records of a shard in order, undecoded; `UnreadableRecord` for what is damaged."""

    def records(self, part: int = 0, parts: int = 1, *, seed: int | None = None) -> Iterator[Any]:
        """Make one pass: what worker `part` of `parts` reads, shuffled by `seed`; None keeps the order."""
        order = np.arange(self.shards) if seed is None else np.random.default_rng(seed).permutation(self.shards)
        single = len(order) >= parts
        found = chain.from_iterable(map(self.read, (order[part::parts] if single else order).tolist()))
        mine = found if single else islice(found, part, None, parts)
        return mine if seed is None else shuffled(mine, self.shuffle_buffer, random.Random(derive_seed(seed, part)))

    def __iter__(self) -> Iterator[Any]:
        return self.records()


class IterableStream(Stream):
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
        """Give all samples."""
        return iter(self.dataset)


def as_stream(dataset: IterableDataset[Any]) -> Stream:
    """Make a stream of any iterable dataset."""
    return dataset if isinstance(dataset, Stream) else IterableStream(dataset)


def shuffled(items: Iterator[Any], size: int, rng: random.Random) -> Iterator[Any]:
    """Shuffle items: each is a random one of the `size` that come next."""
    buffer: list[Any] = list(islice(items, size - 1))
    for item in items:
        buffer.append(item)
        chosen = rng.randrange(len(buffer))
        buffer[chosen], buffer[-1] = buffer[-1], buffer[chosen]
        yield buffer.pop()
    rng.shuffle(buffer)
    yield from buffer
