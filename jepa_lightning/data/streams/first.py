"""The first records of a stream, kept in memory for what needs a length: probes, validation and pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from torch.utils.data import Dataset, IterableDataset

from jepa_lightning.data.sources.records import Encoded, Record, RecordList
from jepa_lightning.data.streams.base import Stream, UnreadableRecord, as_stream

KEPT_BYTES = 2**30  # of encoded samples that are kept in memory
FEW = 256  # training samples that are kept where there is no probe, to look at


def map_style(
    sets: dict[str, Dataset[Any]], *, prepare: Callable[[Dataset[Any]], Dataset[Any]], number: int
) -> dict[str, Dataset[Any]]:
    """Put the first samples of each stream in its place.

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


def first_records(stream: Stream, number: int) -> RecordList:
    """Read the first records, shuffled by a fixed seed, at most 1 GiB of them; the same in every process."""
    kept: list[Any] = []
    size = 0
    for record in stream.records(seed=0):
        if isinstance(record, UnreadableRecord):
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
    return RecordList(kept, classes=stream.classes)
