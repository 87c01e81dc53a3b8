"""Tables of the package datasets: opened, and their rows turned into records."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jepa_lightning.data.errors import DataError
from jepa_lightning.data.sources.fields import Fields, label_value
from jepa_lightning.data.sources.records import Encoded, Record, open_file
from jepa_lightning.names.nearest import did_you_mean

_MEDIA = ("Image", "Audio", "Video")
_NAMES = ("__key__", "id", "key", "path", "file", "filename")  # columns that may name a sample
_EXTRA = 'Hugging Face datasets need the package datasets: pip install "jepa-lightning[hub]"'


class Columns:
    """Find the input and the labels among the columns of a table.

    Args:
        fields: what was asked for.
        features: of the table; None where it does not say.
        names: of its columns.

    Attributes:
        input: the input's column.
        fields: the columns that were found; `classes` are the table's own where it has them.

    Raises:
        DataError: there are no such columns, or the input is not clear.
    """

    def __init__(self, fields: Fields, *, features: Mapping[str, Any] | None, names: Sequence[str]) -> None:
        self.features = features = features or {}
        kinds = {name: type(features[name]).__name__ if name in features else "" for name in names}
        for name in [fields.input, *(fields.labels or ())]:
            if name is not None and name not in names:
                raise DataError(
                    f"expected a column {name}, found {', '.join(names)}{did_you_mean(name, names)}: check "
                    "dataset.input and dataset.labels"
                )
        input, labels, classes = fields.input, fields.labels, fields.classes
        if labels is None:
            labels = [n for n in names if kinds[n] == "ClassLabel"] or [n for n in names if n == "label"]
        if input is None:
            media = [name for name in names if kinds[name] in _MEDIA]
            rest = [name for name in names if name not in labels]
            input = media[0] if media else rest[0] if len(rest) == 1 else None
        if input is None:
            raise DataError(f"expected to be told which column is the input, of {', '.join(names)}: set dataset.input")
        labels = [name for name in labels if name != input]
        if classes is None and labels and kinds[labels[0]] == "ClassLabel":
            classes = list(features[labels[0]].names)
        self.input = input
        self.fields = Fields(input, labels, None if classes is None else list(classes))
        self.media = {name: features[name] for name in names if kinds[name] in _MEDIA}

    def _missing(self, name: str) -> int | float | None:
        """Stand in for a label that a row lacks: -1 for a class, NaN for a number; None for a list of numbers."""
        dtype = str(getattr(self.features.get(name), "dtype", ""))
        if dtype.startswith("float"):
            return math.nan
        return -1 if dtype.startswith(("int", "uint", "bool", "string", "large_string")) else None

    def undecoded(self, dataset: Any) -> Any:
        """Return the dataset with the bytes of images, audio and videos in place of what they decode to."""
        for name, feature in self.media.items():
            dataset = dataset.cast_column(name, type(feature)(decode=False))
        return dataset

    def record(self, row: Mapping[str, Any], sample_id: str) -> Record:
        """Turn a row into a record.

        Raises:
            OSError: the input is missing or cannot be read.
            DataError: a label is neither a number nor a class.
        """
        input, labels, classes = self.input, self.fields.labels or (), self.fields.classes
        named = next((row[name] for name in _NAMES if name != input and isinstance(row.get(name), str)), None)
        value = _input(row[input], named or sample_id)
        if isinstance(value, Encoded) and named is None and isinstance(row[input], dict):
            named = row[input].get("path") and os.path.basename(row[input]["path"])
        found = {
            name: self._missing(name)
            if row[name] is None
            else label_value(row[name], name=name, classes=classes if name == labels[0] else None)
            for name in labels
        }
        found = {name: value for name, value in found.items() if value is not None}
        return Record(value, found, f"{sample_id} ({named})" if named else sample_id)


def load(path: str, *, split: str, streaming: bool = False, **source: Any) -> Any:
    """Open a split of a Hugging Face dataset, as the package datasets gives it.

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
    """Choose a split, or a part of one, of what was saved: a dict of tables, or a single one.

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
            return open_file(path)
        if data is None:
            raise OSError("there is nothing in it")
        return Encoded(os.path.basename(path) if path else name, data)
    if isinstance(value, bytes):
        return Encoded(name, value)
    if isinstance(value, list):
        return np.asarray(value, dtype=np.float32 if _is_float(value) else None)
    if value is None:
        raise OSError("there is nothing in it")
    return value


def _is_float(value: Any) -> bool:
    while isinstance(value, list) and value:
        value = value[0]
    return isinstance(value, float)
