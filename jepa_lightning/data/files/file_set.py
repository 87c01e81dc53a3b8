"""The files of one split as a dataset, perhaps kept in memory. What is read from a file is the modality's business."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from jepa_lightning.data.cache import MemoryCache
from jepa_lightning.data.errors import DataError
from jepa_lightning.data.files.file_list import FileList

CACHE_BYTES = 2**30  # below which sets are kept in memory unless a setting says otherwise


class FileSet(Dataset[dict[str, Any]], ABC):
    """The files of one split as dicts: the input under `key`, and `labels`.

    Args:
        files: where they lie, and their labels.

    Attributes:
        key: of the input, e.g. "image".
        targets: class of each file, or None.
        classes: names of the classes, or None.
    """

    key: ClassVar[str]

    def __init__(self, files: FileList) -> None:
        self.files = files
        self.targets = files.targets
        self.classes = files.classes

    def __len__(self) -> int:
        return len(self.files)

    def sample_id(self, index: int) -> str:
        """Name file `index` by its path, from the folder that holds `root` on, or as the CSV file has it."""
        return self.files.sample_id(index)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {self.key: self.value(index), "labels": self.files.labels_of(index)}

    @abstractmethod
    def value(self, index: int) -> Any:
        """Give the input of sample `index`, read or to be read later.

        Raises:
            OSError, ValueError: the file cannot be read.
        """


class CachedFileSet(FileSet):
    """A `FileSet` whose inputs are arrays that can be kept in memory.

    Args:
        files: where they lie, and their labels.

    Attributes:
        examined: how many files tell how large the set is.
        unreadable: index and reason of the files that `cache` could not read.
    """

    examined: ClassVar[int] = 64

    def __init__(self, files: FileList) -> None:
        super().__init__(files)
        self.unreadable: dict[int, str] = {}
        self._cache: MemoryCache | None = None

    def value(self, index: int) -> Any:
        """Give the input of sample `index`, from memory if it is there; errors as `read`."""
        return self.read(index) if self._cache is None else self._cache[index]

    @abstractmethod
    def read(self, index: int) -> Any:
        """Read the input of sample `index` from its file, as an array.

        Raises:
            OSError, ValueError: the file cannot be read.
        """

    def bytes_of(self, index: int) -> float:
        """Estimate the size of input `index` in memory; by default it is read."""
        return float(self.read(index).nbytes)

    def bytes_in_memory(self) -> float:
        """Estimate the size of the whole set in memory, from some files that are evenly spaced."""
        sizes = []
        for index in self.spaced(self.examined):
            try:
                sizes.append(self.bytes_of(index))
            except DataError:
                raise
            except Exception:  # a damaged file: met again, and reported, when it is read
                continue
        return float(np.mean(sizes)) * len(self) if sizes else 0.0

    def spaced(self, count: int) -> list[int]:
        """List the numbers of up to `count` files, evenly spaced."""
        return [int(index) for index in np.linspace(0, len(self) - 1, min(count, len(self))).astype(int)]

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """Shape of every input, where all are in memory, of one shape and of 8 bits."""
        return self._cache.shape if self._cache is not None and self._cache.dtype == np.uint8 else None

    def take(self, indices: NDArray[np.int64]) -> dict[str, Any]:
        """Take many inputs (B, ...) and their labels from memory."""
        if self._cache is None:
            raise ValueError("expected inputs in memory to take many at once: call `cache` first")
        return {self.key: self._cache.take(indices), "labels": self.files.labels_of(indices)}  # type: ignore[arg-type]

    def cache(self) -> None:
        """Read every input into memory; those that cannot be read are listed in `unreadable`."""
        self._cache = MemoryCache(len(self), self.read)
        self.unreadable = self._cache.unreadable


def cache_sets(sets: Iterable[CachedFileSet], keep: bool | None) -> bool:
    """Read sets into memory where `keep` says so; None: if they take less than 1 GiB. Return whether it was done."""
    sets = list(sets)
    if keep is None:
        keep = sum(files.bytes_in_memory() for files in sets) < CACHE_BYTES
    if keep:
        for files in sets:
            files.cache()
    return keep
