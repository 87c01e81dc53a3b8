"""Hugging Face datasets: from the hub, from a folder, at random places or as a stream."""

from __future__ import annotations

import itertools
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jepa_lightning.data.errors import DataError
from jepa_lightning.data.files.file_list import nearest, regular_file
from jepa_lightning.data.sources.records import Encoded, Record, Records, label_value
from jepa_lightning.data.streams.base import Failed, Stream

_MEDIA = ("Image", "Audio", "Video")
_ROWS = 32  # of a stream that are read at a time
_NAMES = ("__key__", "id", "key", "path", "file", "filename")  # columns that may name a sample
_log = logging.getLogger(__name__)
_EXTRA = 'Hugging Face datasets need the package datasets: pip install "jepa-lightning[hub]"'


class Columns:
    """Which columns of a table are the input and the labels.

    Args:
        features: of the table; None where it does not say.
        columns: names of its columns.
        input: the input's column. None: the first of images, sounds or videos, or the only one that is no label.
        labels: label columns, the primary one first. None: those of classes, or label.
        classes: names of the classes, where the primary label is a text and the table does not say.

    Raises:
        DataError: there are no such columns, or the input is not clear.
    """

    def __init__(
        self,
        features: Mapping[str, Any] | None,
        columns: Sequence[str],
        *,
        input: str | None,
        labels: Sequence[str] | None,
        classes: Sequence[str] | None,
    ) -> None:
        self.features = features = features or {}
        kinds = {name: type(features[name]).__name__ if name in features else "" for name in columns}
        for name in [input, *(labels or ())]:
            if name is not None and name not in columns:
                raise DataError(
                    f"expected a column {name}, found {', '.join(columns)}{nearest(name, columns)}: check "
                    "dataset.input and dataset.labels"
                )
        if labels is None:
            labels = [n for n in columns if kinds[n] == "ClassLabel"] or [n for n in columns if n == "label"]
        if input is None:
            media = [name for name in columns if kinds[name] in _MEDIA]
            rest = [name for name in columns if name not in labels]
            input = media[0] if media else rest[0] if len(rest) == 1 else None
        if input is None:
            raise DataError(
                f"expected to be told which column is the input, of {', '.join(columns)}: set dataset.input"
            )
        self.input = input
        self.labels = [name for name in labels if name != input]
        self.media = {name: features[name] for name in columns if kinds[name] in _MEDIA}
        self.classes = list(classes) if classes is not None else None
        if self.classes is None and self.labels and kinds[self.labels[0]] == "ClassLabel":
            self.classes = list(features[self.labels[0]].names)

    def _missing(self, name: str) -> int | float | None:
        """What stands for a label that a row lacks: -1 for a class, NaN for a number; None for a list of numbers."""
        dtype = str(getattr(self.features.get(name), "dtype", ""))
        if dtype.startswith("float"):
            return math.nan
        return -1 if dtype.startswith(("int", "uint", "bool", "string", "large_string")) else None

    def undecoded(self, dataset: Any) -> Any:
        """The dataset with the bytes of images, sounds and videos in place of what they decode to."""
        for name, feature in self.media.items():
            dataset = dataset.cast_column(name, type(feature)(decode=False))
        return dataset

    def record(self, row: Mapping[str, Any], sample_id: str) -> Record:
        """A row as a record.

        Raises:
            OSError: the input is missing or cannot be read.
            DataError: a label is neither a number nor a class.
        """
        named = next((row[name] for name in _NAMES if name != self.input and isinstance(row.get(name), str)), None)
        value = _input(row[self.input], named or sample_id)
        if isinstance(value, Encoded) and named is None and isinstance(row[self.input], dict):
            named = row[self.input].get("path") and os.path.basename(row[self.input]["path"])
        labels = {
            name: self._missing(name)
            if row[name] is None
            else label_value(row[name], name=name, classes=self.classes if name == self.labels[0] else None)
            for name in self.labels
        }
        labels = {name: value for name, value in labels.items() if value is not None}
        return Record(value, labels, f"{sample_id} ({named})" if named else sample_id)


class HuggingFace(Records):
    """A Hugging Face dataset, in any order: downloaded or on disk, as Arrow files.

    Images, sounds and videos are decoded by the modality's own reader; columns of numbers become arrays.

    Args:
        path: name on the hub (needs a network), a folder of parquet files or of `save_to_disk`, or a builder such as
            imagefolder, parquet or webdataset, with `data_dir` or `data_files`.
        split: which of its splits, or a part of one: "train", "train[:90%]", "train+test". The single table of a folder
            of `save_to_disk` is "train", and what it is called itself.
        name: which configuration of a dataset on the hub.
        data_dir: folder of files, for a builder.
        data_files: the files themselves, likewise.
        revision: version of a dataset on the hub.
        input: column of the input (`Columns`).
        labels: label columns, the primary one first (`Columns`).
        classes: names of the classes, where the primary label is a text. None: the names that occur, sorted.

    Raises:
        DataError: the package datasets is not installed; there is no such dataset, split or column.

    Example:
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
        columns = Columns(table.features, table.column_names, input=input, labels=labels, classes=classes)
        self.name = f"{Path(path).name}/{split}"
        self.table = columns.undecoded(table).with_format(None)
        self.columns = columns
        values = self._primary()
        known = [value for value in values if value is not None]
        if known and all(isinstance(value, str) for value in known):
            columns.classes = columns.classes or sorted(set(known))
            numbers = [label_value(v, name="label", classes=columns.classes) if v is not None else -1 for v in values]
            self.targets = np.array(numbers) if all(isinstance(number, int) for number in numbers) else None
        elif known and all(isinstance(value, int) for value in known):
            self.targets = np.array([-1 if value is None else value for value in values], dtype=np.int64)
        if known and len(known) < len(values):
            _log.info("%s: %d of %d rows have no label", self.name, len(values) - len(known), len(values))
        self.classes = columns.classes

    def _primary(self) -> list[Any]:
        """The primary label of all rows, without reading their inputs; None for a row without."""
        if not self.columns.labels:
            return []
        return list(self.table.select_columns([self.columns.labels[0]])[:][self.columns.labels[0]])

    def __len__(self) -> int:
        return len(self.table)

    def sample_id(self, index: int) -> str:
        """The dataset's name, the split and the row: photos/train[12]."""
        return f"{self.name}[{index}]"

    def __getitem__(self, index: int) -> Record:
        return self.columns.record(self.table[int(index)], self.sample_id(index))


class HuggingFaceStream(Stream):
    """A Hugging Face dataset that is read from its beginning to its end, without being downloaded first.

    Args:
        path: as in `HuggingFace`; not a folder of `save_to_disk`.
        split: which of its splits.
        name: which configuration of a dataset on the hub.
        data_dir: folder of files, for a builder.
        data_files: the files themselves, likewise.
        revision: version of a dataset on the hub.
        input: column of the input (`Columns`).
        labels: label columns, the primary one first (`Columns`).
        classes: names of the classes, where the primary label is a text.
        shuffle_buffer: undecoded samples that wait in each worker; a random one comes next.

    Raises:
        DataError: the package datasets is not installed; there is no such dataset, split or column.

    Example:
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
        columns = Columns(table.features, names, input=input, labels=labels, classes=classes)
        self.name = f"{Path(path).name}/{split}"
        self.table = columns.undecoded(table)
        self.columns = columns
        self.classes = columns.classes

    @property
    def shards(self) -> int:
        """How many files there are."""
        return int(self.table.num_shards)

    def read(self, shard: int) -> Iterator[Record | Failed]:
        """The rows of a file."""
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
                    record: Record | Failed = self.columns.record(row, f"{start}{number}]")
                except OSError as error:
                    record = Failed(f"{start}{number}]", f"OSError: {error}")
                yield record
        except DataError:
            raise
        except Exception as error:  # what readers of files and networks raise is their own business
            yield Failed(f"{self.name}[file {shard}]", f"the file ends early: {type(error).__name__}: {error}")


def load(path: str, *, split: str, streaming: bool = False, **source: Any) -> Any:
    """A split of a Hugging Face dataset, as the package datasets gives it.

    Raises:
        DataError: that package is not installed, or there is no such dataset or split.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"{_EXTRA} ({error})") from error
    folder = Path(path).expanduser()
    source = {key: value for key, value in source.items() if value is not None}
    try:
        if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
            if streaming:
                raise DataError(f"expected no folder of save_to_disk to stream, got {path}: take HuggingFace")
            return _part_of(datasets.load_from_disk(str(folder)), split, path)
        return datasets.load_dataset(
            str(folder) if folder.exists() else path, split=split, streaming=streaming, **source
        )
    except DataError:
        raise
    except Exception as error:  # a wrong name, no network, a broken file: its first line says which
        reason = next(iter((str(error).strip() or repr(error)).splitlines()))
        raise DataError(f"expected a Hugging Face dataset {path} with a split {split}: {reason}") from error


def _part_of(found: Any, split: str, path: str) -> Any:
    """A split, or a part of one, of what was saved: a dict of tables, or a single one.

    A single table is that split that it says, and "train" whatever it says.
    """
    import datasets

    if isinstance(found, datasets.DatasetDict):
        tables = dict(found)
    else:
        tables = {str(found.split or "train"): found, "train": found}
    if split in tables:
        return tables[split]
    sizes = {name: len(table) for name, table in tables.items()}
    try:
        parts = datasets.ReadInstruction.from_spec(split).to_absolute(sizes)
        chosen = [tables[part.splitname].select(range(part.from_ or 0, _end(part.to, sizes[part.splitname])))
                  for part in parts]  # fmt: skip
    except (ValueError, KeyError, AssertionError) as error:
        known = " or ".join(dict.fromkeys(tables))
        single = "" if isinstance(found, datasets.DatasetDict) else ", which holds a single table"
        reason = " ".join(str(error).split())[:120]
        raise DataError(
            f"expected a split of {path}{single}: {known}, or a part such as {next(iter(tables))}[:90%]; got {split} "
            f"({reason}): set dataset.split"
        ) from None
    return chosen[0] if len(chosen) == 1 else datasets.concatenate_datasets(chosen)


def _end(to: int | None, size: int) -> int:
    return size if to is None else to


def _input(value: Any, name: str) -> Any:
    if isinstance(value, dict) and {"bytes", "path"} >= value.keys():
        path, data = value.get("path"), value.get("bytes")
        if data is None and path:
            return _file(path)
        if data is None:
            raise OSError("there is nothing in it")
        return Encoded(os.path.basename(path) if path else name, data)
    if isinstance(value, bytes):
        return Encoded(name, value)
    if isinstance(value, str):
        return _file(value)
    if isinstance(value, list):
        return np.asarray(value, dtype=np.float32 if _is_float(value) else None)
    if value is None:
        raise OSError("there is nothing in it")
    return value


def _file(path: str) -> Encoded:
    if "://" not in path:
        return Encoded(path, Path(regular_file(path)).read_bytes())
    import fsspec

    with fsspec.open(path, "rb") as file:
        return Encoded(path, file.read())


def _is_float(value: Any) -> bool:
    while isinstance(value, list) and value:
        value = value[0]
    return isinstance(value, float)
