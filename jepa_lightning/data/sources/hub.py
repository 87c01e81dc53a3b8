"""Hugging Face datasets in any order: from the hub, or from a folder."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jepa_lightning.data.sources.fields import Fields, label_value
from jepa_lightning.data.sources.hub_tables import Columns, load
from jepa_lightning.data.sources.records import Record, Records

_log = logging.getLogger(__name__)


class HuggingFace(Records):
    """A Hugging Face dataset, in any order: downloaded or on disk, as Arrow files.

    Images, audio and videos are decoded by the modality's own reader; columns of numbers become arrays.

    Args:
        path: name on the hub (needs a network), a folder of parquet files or of `save_to_disk`, or a builder such as
            imagefolder, parquet or webdataset, with `data_dir` or `data_files`.
        split: which of its splits, or a part of one: "train", "train[:90%]", "train+test". The single table of a folder
            of `save_to_disk` is "train", and what it is called itself.
        name: which configuration of a dataset on the hub.
        data_dir: folder of files, for a builder.
        data_files: the files themselves, likewise.
        revision: version of a dataset on the hub.
        input: column of the input (`Fields`).
        labels: label columns, the primary one first (`Fields`).
        classes: names of the classes, where the primary label is a text. None: the names that occur, sorted.

    Raises:
        DataError: the package datasets is not installed; there is no such dataset, split or column.

    Examples:
        >>> import datasets
        >>> from jepa_lightning.data import HuggingFace
        >>> table = datasets.Dataset.from_dict({"series": [[1.0, 2.0], [3.0, 4.0]], "label": ["no", "yes"]})
        >>> _ = table.to_parquet("tables/train.parquet")
        >>> data = HuggingFace("tables", input="series")
        >>> len(data), data.classes, data[1].labels
        (2, ['no', 'yes'], {'label': 1})
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
    ) -> None:
        table = load(path, split=split, name=name, data_dir=data_dir, data_files=data_files, revision=revision)
        fields = Fields(input, labels, classes)
        columns = Columns(fields, features=table.features, names=table.column_names)
        self.name = f"{Path(path).name}/{split}"
        self.table = columns.undecoded(table).with_format(None)
        self.columns = columns
        values = self._primary()
        known = [value for value in values if value is not None]
        if known and all(isinstance(value, str) for value in known):
            names = columns.fields.classes or sorted(set(known))
            columns.fields = replace(columns.fields, classes=names)
            numbers = [label_value(v, name="label", classes=names) if v is not None else -1 for v in values]
            self.targets = np.array(numbers) if all(isinstance(number, int) for number in numbers) else None
        elif known and all(isinstance(value, int) for value in known):
            self.targets = np.array([-1 if value is None else value for value in values], dtype=np.int64)
        if known and len(known) < len(values):
            _log.info("%s: %d of %d rows have no label", self.name, len(values) - len(known), len(values))
        self.classes = columns.fields.classes

    def _primary(self) -> list[Any]:
        """Read the primary label of all rows, without reading their inputs; None for a row without."""
        if not self.columns.fields.labels:
            return []
        primary = self.columns.fields.labels[0]
        return list(self.table.select_columns([primary])[:][primary])

    def __len__(self) -> int:
        return len(self.table)

    def sample_id(self, index: int) -> str:
        """Name sample `index` by the dataset's name, the split and the row: photos/train[12]."""
        return f"{self.name}[{index}]"

    def __getitem__(self, index: int) -> Record:
        return self.columns.record(self.table[int(index)], self.sample_id(index))
