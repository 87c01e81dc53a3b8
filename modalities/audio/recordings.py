"""Recordings that are not read yet: in a file, in memory, as an array. Any part of one can be read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from jepa_lightning.data import DataError, Encoded
from modalities.audio.reading import LARGEST, Info, Waveform, info, read, resample

_CHANNELS = 64  # more rows than this are time, not channels


class Recording(ABC):
    """A mono recording at the wanted sample rate, of which any part can be read.

    Attributes:
        length: number of samples.
    """

    length: int

    @abstractmethod
    def read(self, start: int, count: int) -> Waveform:
        """Read samples `start` to `start + count`, (count,) float32; the caller stays within the length."""


class ArrayRecording(Recording):
    """A recording in memory.

    Args:
        waveform: (L,) float32.
    """

    def __init__(self, waveform: Waveform) -> None:
        self.waveform = waveform
        self.length = len(waveform)

    def read(self, start: int, count: int) -> Waveform:
        """Give a view of the part."""
        return self.waveform[start : start + count]


def as_recording(value: Any, *, sample_rate: int, own_rate: int | None = None) -> Recording:
    """Make a recording of what a data set gave.

    Args:
        value: (L,) or (channels, L), tensor or array. Whole numbers are scaled to -1 to 1 by their type's range,
            floats are left as they are. Channels are averaged.
        sample_rate: wanted, in Hz.
        own_rate: the value's; None: the wanted one.

    Raises:
        DataError: another type or shape.
        OSError: it is empty, or holds NaN or infinity.
    """
    if isinstance(value, Recording):
        return value
    wave = value.numpy(force=True) if isinstance(value, Tensor) else np.asarray(value)
    if wave.dtype.kind not in "iuf" or wave.ndim not in (1, 2) or (wave.ndim == 2 and len(wave) > _CHANNELS):
        raise DataError(
            f"expected waveforms of numbers, of shape (L,) or (channels, L), got {wave.dtype} {wave.shape}: have the "
            "dataset return these, or give it a transform"
        )
    if not wave.size:
        raise OSError("there are no samples in it")
    if wave.dtype.kind in "iu":
        half = 2.0 ** (8 * wave.dtype.itemsize - 1)
        wave = (wave.astype(np.float32) - (half if wave.dtype.kind == "u" else 0)) / np.float32(half)
    wave = wave.astype(np.float32, copy=False)
    wave = wave.mean(0) if wave.ndim == 2 else wave
    if not np.isfinite(wave).all():
        raise OSError("there are NaN or infinite samples in it")
    if np.abs(wave).max() > LARGEST:
        raise OSError(f"there are samples beyond {LARGEST:g} in it")
    return ArrayRecording(resample(wave, own_rate or sample_rate, sample_rate))


class FileRecording(Recording):
    """A recording in a file; only what is asked for is decoded.

    Args:
        path: of the file.
        sample_rate: wanted, in Hz.
        known: what its header says.
    """

    def __init__(self, path: str, *, sample_rate: int, known: Info) -> None:
        self.path = path
        self.sample_rate = sample_rate
        self.length = known.length(sample_rate)

    def read(self, start: int, count: int) -> Waveform:
        """Decode the part, mono and resampled; errors as `modalities.audio.reading.read`."""
        return read(self.path, start=start, count=count, sample_rate=self.sample_rate)


class StoredRecording(Recording):
    """An audio file, on disk or in memory; only what is asked for is decoded.

    Errors as `modalities.audio.reading.info`.

    Args:
        file: its path, or what a shard or a table holds.
        sample_rate: wanted, in Hz.
    """

    def __init__(self, file: str | Encoded, *, sample_rate: int) -> None:
        self.file = file
        self.sample_rate = sample_rate
        self.length = info(file).length(sample_rate)

    def read(self, start: int, count: int) -> Waveform:
        """Decode the part, mono and resampled; errors as `modalities.audio.reading.read`."""
        return read(self.file, start=start, count=count, sample_rate=self.sample_rate)


def parts_of(
    read: Callable[[int], NDArray[Any]],
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
    *,
    size: int,
    dtype: np.dtype[Any],
) -> NDArray[Any]:
    """Copy parts of arrays (n,) into rows (B, V, size), zeros behind them.

    Args:
        read: gives the array of row number b.
        starts: (B, V) of the parts.
        counts: (B,) entries of each.
        size: of the rows.
        dtype: of the arrays.
    """
    whole = bool((counts == size).all())
    rows = (np.empty if whole else np.zeros)((*starts.shape, size), dtype=dtype)
    for number, (row, begins, count) in enumerate(zip(rows, starts.tolist(), counts.tolist(), strict=True)):
        array = read(number)
        for view, start in zip(row, begins, strict=True):
            view[:count] = array[start : start + count]
    return rows
