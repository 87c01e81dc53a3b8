"""Decoded samples in memory, or in one file on disk, so that each file is decoded once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from jepa_lightning.data.errors import DataError
from jepa_lightning.run.locks import waiting
from jepa_lightning.run.writing import replacing

_CHUNK = 1024  # arrays in one block


class MemoryCache:
    """The arrays of a data set, read by several threads when it is built and laid one behind the other.

    In a few large tensors and not in a list of arrays: reference counts would copy a list into every worker, and where
    workers are spawned, tensors travel as shared memory.

    With `path` they lie in a file, which is mapped: a later run finds it there and reads nothing, all processes of a
    machine share its pages, and it may be larger than memory. Of several processes one writes it, and the others wait;
    where it is there, nothing is written, so the folder may be read-only. A damaged file is written anew.

    Args:
        count: number of arrays.
        read: gives array `index`; its shape may differ, its type and number of axes may not.
        path: of the file, whose name must hold all that the arrays depend on (two files: PATH.bin and PATH.npz);
            None: in memory.

    Attributes:
        unreadable: index and reason of those for which `read` raised OSError or ValueError.
        shape: of every array, where all could be read and have the same; else None.
        dtype: of the arrays.

    Raises:
        DataError: the file cannot be written.
    """

    def __init__(self, count: int, read: Callable[[int], NDArray[Any]], *, path: Path | None = None) -> None:
        self.path = path
        self.unreadable: dict[int, str] = {}
        self._offsets = np.zeros(count, dtype=np.int64)
        self._shapes = np.zeros((count, 0), dtype=np.int64)
        self._sizes: list[int] = []  # of the blocks
        self.dtype = np.dtype(np.float32)
        if path is None:
            self._blocks = [torch.from_numpy(block) for block in self._read(read)]
        elif not self._open(path):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with waiting(path.with_suffix(".lock")):
                    if not self._open(path):  # else another process has written it meanwhile
                        self._write(path, read)
            except OSError as error:
                raise DataError(
                    f"cannot write decoded files to {path.parent}: {error}: make room there, or name another folder"
                ) from error
        readable = np.isin(np.arange(count), list(self.unreadable), invert=True)
        same = readable.all() and count and (self._shapes == self._shapes[:1]).all()
        self.shape = tuple(self._shapes[0].tolist()) if same else None

    def _read(self, read: Callable[[int], NDArray[Any]]) -> Iterator[NDArray[Any]]:
        """Read all, block by block, and note where each lies."""
        count = len(self._offsets)
        shapes: dict[int, tuple[int, ...]] = {}

        def attempt(index: int) -> NDArray[Any] | str:
            try:
                return np.asarray(read(index))
            except (OSError, ValueError) as error:
                return f"{type(error).__name__}: {error}"

        with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 8)) as pool:
            for start in range(0, count, _CHUNK):
                pieces, offset = [], 0
                for index, array in enumerate(pool.map(attempt, range(start, min(start + _CHUNK, count))), start):
                    if isinstance(array, str):
                        self.unreadable[index] = array
                        continue
                    self._offsets[index], shapes[index] = offset, array.shape
                    pieces.append(array.reshape(-1))
                    offset += array.size
                block = np.concatenate(pieces) if pieces else np.zeros(0, dtype=self.dtype)
                self.dtype = block.dtype if pieces else self.dtype
                self._sizes.append(block.size)
                yield block
        self._shapes = np.zeros((count, len(next(iter(shapes.values()), ()))), dtype=np.int64)
        for index, shape in shapes.items():
            self._shapes[index] = shape

    def _write(self, path: Path, read: Callable[[int], NDArray[Any]]) -> None:
        self.unreadable, self._sizes = {}, []
        data, index = path.with_suffix(".bin"), path.with_suffix(".npz")
        with replacing(data, unique=True) as beside, open(beside, "xb") as file:
            for block in self._read(read):
                block.tofile(file)
        with replacing(index, unique=True) as beside, open(beside, "xb") as file:  # last: without it there is nothing
            np.savez(
                file,
                offsets=self._offsets,
                shapes=self._shapes,
                sizes=np.array(self._sizes),
                dtype=np.array(self.dtype.str),
                unreadable=np.array(json.dumps(list(self.unreadable.items()))),
            )
        self._map(data)

    def _open(self, path: Path) -> bool:
        """Map what an earlier process wrote; whether it is there and whole."""
        data = path.with_suffix(".bin")
        try:
            with np.load(path.with_suffix(".npz"), allow_pickle=False) as found:
                offsets, shapes, sizes = found["offsets"], found["shapes"], found["sizes"].tolist()
                dtype = np.dtype(str(found["dtype"]))
                unreadable = {int(index): str(reason) for index, reason in json.loads(str(found["unreadable"]))}
            whole = len(offsets) == len(self._offsets) and data.stat().st_size == sum(sizes) * dtype.itemsize
        except (OSError, ValueError, EOFError, KeyError, TypeError, BadZipFile):  # not there, or damaged
            return False
        if whole:
            self._offsets, self._shapes, self._sizes, self.dtype = offsets, shapes, sizes, dtype
            self.unreadable = unreadable
            self._map(data)
        return whole

    def _map(self, data: Path) -> None:
        ends = np.cumsum([0, *self._sizes])
        # "c": torch knows no tensors that cannot be written; what would be written stays in this process
        mapped = np.memmap(data, self.dtype, mode="c") if ends[-1] else np.zeros(0, dtype=self.dtype)
        self._blocks = [torch.from_numpy(mapped[start:end]) for start, end in pairwise(ends)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Leave what is mapped to the other process, which maps it itself."""
        if self.path is None:
            return super().__reduce_ex__(protocol)
        return partial(MemoryCache, path=self.path), (len(self._offsets), _gone)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Length of the first axis of each array."""
        return self._shapes[:, 0]

    def finite(self) -> bool:
        """Return whether no number is NaN or infinite; reads all of them."""
        return all(bool(np.isfinite(block.numpy()).all()) for block in self._blocks)

    def take(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """Copy arrays of one shape: (B, ...).

        Raises:
            ValueError: they are not.
        """
        if self.shape is None:
            raise ValueError("expected arrays of one shape to take many at once")
        found = np.empty((len(indices), *self.shape), dtype=self.dtype)
        for number in np.unique(indices // _CHUNK):
            which = indices // _CHUNK == number
            found[which] = self._blocks[number].numpy().reshape(-1, *self.shape)[indices[which] % _CHUNK]
        return found

    def __getitem__(self, index: int) -> NDArray[Any]:
        """Take array `index`, a view.

        Raises:
            OSError: it could not be read.
        """
        if index in self.unreadable:
            raise OSError(self.unreadable[index])
        shape = self._shapes[index].tolist()
        start = int(self._offsets[index])
        return self._blocks[index // _CHUNK].numpy()[start : start + int(np.prod(shape))].reshape(shape)


def _gone(index: int) -> NDArray[Any]:
    raise RuntimeError("expected decoded samples where another process found them, got no such file: it was removed")
