"""The files of one split as a dataset, perhaps kept in memory. What is read from a file is the modality's business."""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from jepa_lightning.data.cache import MemoryCache
from jepa_lightning.data.errors import DataError
from jepa_lightning.data.files.file_list import FileList

CACHE_BYTES = 2**30  # below which sets are kept in memory unless a setting says otherwise
_VERSION = 1  # of decoded files on disk; another one makes the old ones misses
_OF_FILES = ("files", "targets", "classes", "unreadable")  # attributes that `read` does not depend on


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
        return {self.key: self.in_memory.take(indices), "labels": self.files.labels_of(indices)}  # type: ignore[arg-type]

    @property
    def in_memory(self) -> MemoryCache:
        """What `cache` read.

        Raises:
            ValueError: nothing yet.
        """
        if self._cache is None:
            raise ValueError("expected inputs in memory to take many at once: call `cache` first")
        return self._cache

    def cache(self, folder: str | None = None) -> None:
        """Read every input into memory, or into a file in `folder` that a later run finds again.

        Those that cannot be read are listed in `unreadable`. The file's name is a hash of all paths, sizes and times of
        change, and of this object's public attributes, so that files are read again where one has changed.
        """
        self._cache = MemoryCache(len(self), self.read, path=None if folder is None else self._stored(folder))
        self.unreadable = self._cache.unreadable

    def _stored(self, folder: str) -> Path:
        settings = {name: value for name, value in vars(self).items() if name not in _OF_FILES and name[0] != "_"}
        key = hashlib.sha256(json.dumps([_VERSION, self.key, settings], default=str).encode())
        for index in range(len(self)):
            path = self.files.path(index)
            try:
                found = os.stat(path)
                state = f"{found.st_size}\n{found.st_mtime_ns}"
            except OSError:
                state = "missing"
            key.update(f"\n{os.path.abspath(path)}\n{state}".encode("utf-8", "surrogateescape"))
        return Path(folder).expanduser() / key.hexdigest()[:32]


def cache_sets(sets: Iterable[CachedFileSet], keep: bool | None, folder: str | None = None) -> bool:
    """Read sets into memory where `keep` says so, or all into `folder` where it is given.

    Args:
        sets: of files.
        keep: None: if they take less than 1 GiB.
        folder: see `CachedFileSet.cache`.

    Returns:
        Whether it was done.

    Raises:
        DataError: a folder, but sets are not to be kept; or nothing can be written there.
    """
    sets = list(sets)
    if folder is not None and keep is False:
        raise DataError(f"expected cache: true or null with cache_folder {folder}, got false: leave one out")
    if keep is None:
        keep = folder is not None or sum(files.bytes_in_memory() for files in sets) < CACHE_BYTES
    if keep:
        for files in sets:
            files.cache(folder)
    return keep
