"""Training data that lie in memory, moved to the device that trains once: batches are gathered there by index."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jepa_lightning.data.batched import HELD, InMemory, PartsInMemory
from jepa_lightning.data.errors import DataError

_CHUNK = 256  # samples moved at a time
_SHARE, _SHARE_UNASKED = 2, 8  # the data may take one half, or unasked one eighth, of the memory that is free


class OnDevice:
    """The inputs of some samples of a data set on a device. It is taken for the data set by what makes batches.

    In place of inputs it gives the numbers of their rows under `HELD`, which travel to the device, where `gather` puts
    the inputs in their place: the same values in the same type. Labels and names stay where they are.

    Args:
        dataset: in memory, of inputs of one size, or with `take_parts`.
        indices: (n,) of its samples; row r is sample `indices[r]`.
        device: that trains.

    Attributes:
        device: the same.
        key: of an input in a batch.
        nbytes: that the inputs take.
        values: one input behind the other; None in another process.
        starts: (n,) where each begins; likewise.
    """

    def __init__(self, dataset: InMemory, indices: NDArray[np.int64], device: torch.device) -> None:
        self.device = device
        self.input_shape = dataset.input_shape
        self.parts = isinstance(dataset, PartsInMemory)
        self.lengths = cast(PartsInMemory, dataset).lengths[indices] if self.parts else np.ones(len(indices), np.int64)
        self._tail = int(self.lengths.max()) if self.parts else 0  # zeros behind, so that a part may begin anywhere
        ends = np.cumsum(self.lengths)
        self.starts = torch.from_numpy(ends - self.lengths).to(device)
        values: Tensor | None = None
        labels: list[dict[str, NDArray[Any]]] = []
        for first in range(0, len(indices), _CHUNK):
            key, rows, found = self._rows(
                dataset, indices[first : first + _CHUNK], self.lengths[first : first + _CHUNK]
            )
            labels.append(found)
            if values is None:
                self.key = key
                size = int(ends[-1]) + self._tail, *rows.shape[1:]
                values = torch.zeros(size, dtype=rows.dtype, device=device)
            begin = int(ends[first] - self.lengths[first])
            values[begin : begin + len(rows)] = rows.to(device)
        assert values is not None
        self.values = values
        self.nbytes = values[: int(ends[-1])].nbytes
        self._labels = {name: np.concatenate([np.asarray(each[name]) for each in labels]) for name in labels[0]}

    def _rows(
        self, dataset: InMemory, indices: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> tuple[str, Tensor, dict[str, Any]]:
        """Take samples as rows that lie one behind the other, with their key and labels."""
        if self.parts:
            starts = np.zeros((len(indices), 1), np.int64)
            found = cast(PartsInMemory, dataset).take_parts(indices, starts, lengths, int(lengths.max()))
        else:
            found = dataset.take(indices)
        labels = found.pop("labels", {})
        ((key, values),) = found.items()
        if self.parts:
            values = np.concatenate([row[0, :count] for row, count in zip(values, lengths, strict=True)])
        return key, torch.from_numpy(np.ascontiguousarray(values)), labels

    def __getstate__(self) -> dict[str, Any]:
        """Leave the values to the process that trains: a loader's workers give numbers of rows alone."""
        return {**self.__dict__, "values": None, "starts": None}

    def take(self, indices: NDArray[np.int64]) -> dict[str, Any]:
        """Give the numbers of rows, and labels (B, ...)."""
        return {HELD: {"rows": torch.from_numpy(indices)}, "labels": self._labels_of(indices)}

    def take_parts(
        self, indices: NDArray[np.int64], starts: NDArray[np.int64], counts: NDArray[np.int64], size: int
    ) -> dict[str, Any]:
        """Give what `gather` makes parts (B, V, size) of, and labels; see `PartsInMemory`."""
        held = {"rows": indices, "starts": starts, "counts": counts}
        places: dict[str, Any] = {name: torch.from_numpy(each) for name, each in held.items()}
        return {HELD: {**places, "size": size}, "labels": self._labels_of(indices)}

    def gather(self, held: dict[str, Any]) -> Tensor:
        """Gather inputs (B, ...), or parts of them (B, V, size), on the device.

        Args:
            held: what `take` or `take_parts` gave, on the device.
        """
        rows, size = held["rows"], held.get("size")
        if size is None:
            return self.values.index_select(0, rows)
        if held["starts"].shape[1] == 1 and (self.lengths == size).all():  # all of each
            return self.values[: len(self.lengths) * size].view(-1, size).index_select(0, rows)[:, None]
        first = self.starts[rows][:, None] + held["starts"]  # (B, V)
        if rows.device.type == "cpu":  # where rows are copied faster than indexed value by value
            empty = self.values.new_empty if bool((held["counts"] == size).all()) else self.values.new_zeros
            found = empty((*first.shape, size, *self.values.shape[1:]))
            for row, begins, count in zip(found, first.tolist(), held["counts"].tolist(), strict=True):
                for view, begin in zip(row, begins, strict=True):
                    view[:count] = self.values[begin : begin + count]
            return found
        return self._by_index(first, held["counts"], size)

    def _by_index(self, first: Tensor, counts: Tensor, size: int) -> Tensor:
        """Gather parts in one operation: rows of a view that begins anew at each value, without an index a value."""
        if size > self._tail:  # than the longest input: the view would end too soon
            self.values = torch.cat([self.values, self.values.new_zeros(size - self._tail)])
            self._tail = size
        found = self.values.unfold(0, size, 1)[first]
        behind = torch.arange(size, device=first.device) >= counts[:, None, None]
        return found.masked_fill_(behind, 0)

    def _labels_of(self, indices: NDArray[np.int64]) -> dict[str, Any]:
        return {name: values[indices] for name, values in self._labels.items()}


def room_on(device: torch.device) -> int | None:
    """Bytes of memory that are free on a device; None where it is not known."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if device.type != "cpu" or not meminfo.is_file():
        return None
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    return 1024 * int(lines["MemAvailable"].split()[0]) if "MemAvailable" in lines else None


def bytes_of(dataset: InMemory, indices: NDArray[np.int64]) -> int:
    """Bytes that the inputs of these samples take."""
    none = np.zeros((1, 1), np.int64)
    if isinstance(dataset, PartsInMemory):
        one = dataset.take_parts(indices[:1], none, none[0], 1)
        count = int(dataset.lengths[indices].sum())
    else:
        one, count = dataset.take(indices[:1]), len(indices)
    return count * sum(value.nbytes for name, value in one.items() if name != "labels")


def fits(dataset: InMemory, indices: NDArray[np.int64], device: torch.device, *, asked: bool) -> bool:
    """Return whether inputs are to be moved to a device: as asked for, or else to a GPU where they are small.

    Raises:
        DataError: asked for, and they take more than half of the memory that is free there.
    """
    if not asked and device.type != "cuda":
        return False
    needed, free = bytes_of(dataset, indices), room_on(device)
    if free is None or needed <= free // (_SHARE if asked else _SHARE_UNASKED):
        return free is not None or asked
    if asked:
        raise DataError(
            f"expected training data of at most half of the {free / 1e9:,.2f} GB that are free on {device}, got "
            f"{needed / 1e9:,.2f} GB: set data.on_device to false (or null), or use fewer or smaller samples"
        )
    return False
