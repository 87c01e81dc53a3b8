"""Hugging Face datasets as a stream: read from the beginning to the end, without being downloaded first."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jepa_lightning.data.errors import DataError
from jepa_lightning.data.sources.fields import Fields
from jepa_lightning.data.sources.hub_tables import Columns, load
from jepa_lightning.data.sources.records import Record
from jepa_lightning.data.streams.base import Stream, UnreadableRecord

_ROWS = 32  # that are read at a time


class HuggingFaceStream(Stream):
    """A Hugging Face dataset that is read from its beginning to its end, without being downloaded first.

    Args:
        path: as in `HuggingFace`; not a folder of `save_to_disk`.
        split: which of its splits.
        name: which configuration of a dataset on the hub.
        data_dir: folder of files, for a builder.
        data_files: the files themselves, likewise.
        revision: version of a dataset on the hub.
        input: column of the input (`Fields`).
        labels: label columns, the primary one first (`Fields`).
        classes: names of the classes, where the primary label is a text.
        shuffle_buffer: undecoded samples that wait in each worker; a random one comes next.

    Raises:
        DataError: the package datasets is not installed; there is no such dataset, split or column.

    Examples:
        >>> import datasets
        >>> from jepa_lightning.data import HuggingFaceStream
        >>> table = datasets.Dataset.from_dict({"series": [[1.0, 2.0], [3.0, 4.0]], "label": [0, 1]})
        >>> _ = table.to_parquet("tables/train.parquet")
        >>> stream = HuggingFaceStream("tables", input="series", shuffle_buffer=1)
        >>> [record.labels for record in stream]
        [{'label': 0}, {'label': 1}]
    """

    def __init__(
        self,
        path: str,
        *,
        split: str = "train",
        name: str | None = None,
        data_dir: str | None = None,
        data_files: str | list[str] | None = None,
        revision: str | None = None,
        input: str | None = None,
        labels: list[str] | None = None,
        classes: list[str] | None = None,
        shuffle_buffer: int = 1000,
    ) -> None:
        super().__init__(shuffle_buffer=shuffle_buffer)
        source: dict[str, Any] = {"name": name, "data_dir": data_dir, "data_files": data_files, "revision": revision}
        table = load(path, split=split, streaming=True, **source)
        names = table.column_names or list(next(iter(table), {}))
        columns = Columns(Fields(input, labels, classes), features=table.features, names=names)
        self.name = f"{Path(path).name}/{split}"
        self.table = columns.undecoded(table)
        self.columns = columns
        self.classes = columns.fields.classes

    @property
    def shards(self) -> int:
        """How many files there are."""
        return int(self.table.num_shards)

    def read(self, shard: int) -> Iterator[Record | UnreadableRecord]:
        """Read the rows of a file."""
        table = self.table.shard(num_shards=self.shards, index=shard) if self.shards > 1 else self.table
        start = f"{self.name}[file {shard}, row "
        try:
            # Not by iter(table): in a worker that would share the rows out once more.
            rows = (
                dict(zip(batch, values, strict=True))
                for batch in table.iter(batch_size=_ROWS)
                for values in zip(*batch.values(), strict=True)
            )
            for number in itertools.count():
                row = next(rows, None)
                if row is None:
                    return
                try:
                    record: Record | UnreadableRecord = self.columns.record(row, f"{start}{number}]")
                except OSError as error:
                    record = UnreadableRecord(f"{start}{number}]", f"OSError: {error}")
                yield record
        except DataError:
            raise
        except Exception as error:  # what readers of files and networks raise is their own business
            yield UnreadableRecord(
                f"{self.name}[file {shard}]", f"the file ends early: {type(error).__name__}: {error}"
            )
