"""Decoded samples in memory, so that each file is read once."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_CHUNK = 1024  # arrays in one block


class MemoryCache:
    """The arrays of a data set, read by several threads when it is built and laid one behind the other.

    In a few large tensors and not in a list of arrays: reference counts would copy a list into every worker, and where
    workers are spawned, tensors travel as shared memory.

    Args:
        count: number of arrays.
        read: gives array `index`; its shape may differ, its type and number of axes may not.

    Attributes:
        unreadable: index and reason of those for which `read` raised OSError or ValueError.
        shape: of every array, where all could be read and have the same; else None.
        dtype: of the arrays.
    """

    def __init__(self, count: int, read: Callable[[int], NDArray[Any]]) -> None:
        self.unreadable: dict[int, str] = {}
        self._blocks: list[Tensor] = []
        self._offsets = np.zeros(count, dtype=np.int64)
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
                self._blocks.append(torch.from_numpy(np.concatenate(pieces)) if pieces else torch.zeros(0))
        self._shapes = np.zeros((count, len(next(iter(shapes.values()), ()))), dtype=np.int64)
        for index, shape in shapes.items():
            self._shapes[index] = shape
        same = len(shapes) == count and len(set(shapes.values())) == 1
        self.shape = next(iter(shapes.values())) if same else None
        self.dtype = self._blocks[0].numpy().dtype if self._blocks else np.dtype(np.float32)

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
