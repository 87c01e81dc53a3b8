"""Samples as shards and tables store them: an input that is not decoded yet, labels and a name."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from jepa_lightning.data.arrays import native
from jepa_lightning.data.errors import DataError
from jepa_lightning.data.files.file_list import regular_file
from jepa_lightning.names.shown import Shown


@dataclass(frozen=True)
class Encoded:
    """The bytes of a file that lies in a shard or a table.

    Attributes:
        name: of the file; its ending may say the format.
        data: what is in it.
    """

    name: str
    data: bytes

    def open(self) -> io.BytesIO:
        """Open the bytes as a file."""
        return io.BytesIO(self.data)


@dataclass(frozen=True)
class Record:
    """One sample.

    Attributes:
        input: an `Encoded`, the path or URL of a file (or the text itself, for modalities that take texts), or what a
            modality takes from any dataset.
        labels: by name; perhaps none.
        id: its name.
    """

    input: Any
    labels: dict[str, Any]
    id: str


Decode = Callable[[str | Encoded], Any]
"""From a file, its path or its bytes, to what the modality takes from any dataset."""


class Records(Shown, Dataset[Any]):
    """A dataset of `Record`s. May have `targets`, `classes` and `sample_id(index)`, as any dataset here."""

    targets: NDArray[np.int64] | None = None
    classes: list[str] | None = None
    streamed = False  # whether the same index gives other records as time goes by

    def __len__(self) -> int:
        raise TypeError(f"{type(self).__name__} has no length")


class RecordList(Records):
    """Records, or samples of any dataset, in a list."""

    def __init__(self, items: Sequence[Any], *, classes: list[str] | None = None) -> None:
        self.items = list(items)
        self.classes = classes

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class Decoded(Dataset[Any]):
    """Records as sample dicts, their inputs decoded; what is no record passes through.

    Args:
        records: gives them.
        name: key of the input, e.g. "image".
        decode: for inputs that are `Encoded`. Must be picklable.
        texts: whether a string is the input itself, and not the path of a file.
    """

    def __init__(self, records: Records, *, name: str, decode: Decode, texts: bool = False) -> None:
        self.records = records
        self.name = name
        self.decode = decode
        self.texts = texts
        self.targets = records.targets
        self.classes = records.classes
        self.streamed = records.streamed
        if hasattr(records, "sample_id"):
            self.sample_id = records.sample_id

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Any:
        item = self.records[index]
        if not isinstance(item, Record):
            return item
        value = item.input
        if isinstance(value, str) and not self.texts:
            value = open_file(value)
        if isinstance(value, Encoded):
            value = self.decode(value)
        return {self.name: value, "labels": item.labels, "id": item.id}


def open_file(path: str) -> Encoded:
    """Read a file on this machine, or by fsspec one at a URL.

    Raises:
        OSError: it cannot be read.
    """
    if "://" not in path:
        return Encoded(path, Path(regular_file(path)).read_bytes())
    import fsspec

    with fsspec.open(path, "rb") as file:
        return Encoded(path, file.read())


def decode_array(file: str | Encoded) -> NDArray[Any]:
    """Read the array of an .npy file: what every modality can read.

    Raises:
        DataError: another kind of file.
        ValueError: it is damaged.
    """
    name, source = (file.name, file.open()) if isinstance(file, Encoded) else (file, file)
    if not name.lower().endswith(".npy"):
        instead = ": name another field with dataset.input" if isinstance(file, Encoded) else ""
        raise DataError(f"expected .npy files for these data, got {name}{instead}")
    try:
        array: NDArray[Any] = native(np.load(source, allow_pickle=False))
    except MemoryError as error:  # a header that lies
        raise ValueError(str(error)) from error
    return array
