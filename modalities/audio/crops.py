"""A sound that is not read yet, and the crop that reads the part it needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from jepa_lightning.data import DataError, Sample
from modalities.audio.reading import LARGEST, Waveform, resample

Short = Literal["pad", "tile"]
"""What is done with clips that are too short: zeros behind them, or played again and again."""

_CHANNELS = 64  # more rows than this are time, not channels


class Sound(ABC):
    """A mono sound at the wanted sample rate, of which any part can be read.

    Attributes:
        length: number of samples.
    """

    length: int

    @abstractmethod
    def read(self, start: int, count: int) -> Waveform:
        """Samples `start` to `start + count`, (count,) float32; the caller stays within the length."""


class ArraySound(Sound):
    """A sound in memory.

    Args:
        waveform: (L,) float32.
    """

    def __init__(self, waveform: Waveform) -> None:
        self.waveform = waveform
        self.length = len(waveform)

    def read(self, start: int, count: int) -> Waveform:
        """A view of the part."""
        return self.waveform[start : start + count]


def as_sound(value: Any, *, sample_rate: int, own_rate: int | None = None) -> Sound:
    """A sound from what a data set gave.

    Args:
        value: (L,) or (channels, L), tensor or array. Whole numbers are scaled to -1 to 1 by their type's range,
            floats are left as they are. Channels are averaged.
        sample_rate: wanted, in Hz.
        own_rate: the value's; None: the wanted one.

    Raises:
        DataError: another type or shape.
        OSError: it is empty, or holds NaN or infinity.
    """
    if isinstance(value, Sound):
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
    return ArraySound(resample(wave, own_rate or sample_rate, sample_rate))


class Crop:
    """Replaces a sound by a clip of fixed length: `waveform` (L,) float32 and `length`, its number of real samples.

    Args:
        samples: L.
        random: at a uniformly drawn place (by torch's global generator, seeded for each training sample); else the
            middle.
        short: what is done with sounds that are shorter than L. Padding is behind the sound, and `length` is less
            than L; tiled sounds count as real from end to end.
        gain: in training, a louder or softer clip: up to this many dB either way, drawn uniformly. 0: none.
    """

    def __init__(self, samples: int, *, random: bool = False, short: Short = "pad", gain: float = 0.0) -> None:
        self.samples = samples
        self.random = random
        self.short = short
        self.gain = gain

    def __call__(self, sample: Sample) -> Sample:
        """The sample, with the clip in it."""
        sound: Sound = sample["waveform"]
        start = place(sound.length, self.samples, random=self.random)
        clip = torch.from_numpy(np.ascontiguousarray(sound.read(start, min(self.samples, sound.length))))
        length = len(clip)
        if length < self.samples:
            clip, length = fill(clip, self.samples, short=self.short)
        if self.gain and self.random:
            clip = clip * 10 ** (self.gain * (2 * float(torch.rand(())) - 1) / 20)
        sample["waveform"] = clip
        sample["length"] = torch.tensor(length)
        return sample


def place(have: int, need: int, *, random: bool) -> int:
    """Where a crop of `need` out of `have` begins; 0 where there is no choice."""
    room = max(0, have - need)
    return int(torch.randint(room + 1, ())) if random and room else room // 2


def fill(clip: Tensor, length: int, *, short: Short, value: Tensor | float = 0.0) -> tuple[Tensor, int]:
    """A clip (n, ...) as (length, ...), padded with `value` or tiled, and how much of it is real."""
    have = len(clip)
    if short == "tile":
        return clip[torch.arange(length) % have], length
    filled = torch.empty(length, *clip.shape[1:], dtype=clip.dtype)
    filled[:have] = clip
    filled[have:] = value
    return filled, have
