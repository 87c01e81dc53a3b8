"""Crops and views of audio: what of a recording is read, and how a view of it is changed."""

from __future__ import annotations

import copy
import math
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from jepa_lightning.data import DataError, Sample, ViewTransform
from modalities.audio.cache import LogMelCache
from modalities.audio.recordings import Recording

Short = Literal["pad", "tile"]
"""What is done with clips that are too short: zeros behind them, or played again and again."""


class Crop:
    """Replaces a recording by a clip of fixed length: `waveform` (L,) float32 and `length`, its number of real samples.

    Args:
        samples: L.
        random: at a uniformly drawn place (by torch's global generator, seeded for each training sample); else the
            middle.
        short: what is done with recordings that are shorter than L. Padding is behind the audio, and `length` is less
            than L; tiled recordings count as real from end to end.
        gain: in training, a louder or softer clip: up to this many dB either way, drawn uniformly. 0: none.
    """

    def __init__(self, samples: int, *, random: bool = False, short: Short = "pad", gain: float = 0.0) -> None:
        self.samples = samples
        self.random = random
        self.short = short
        self.gain = gain

    def __call__(self, sample: Sample) -> Sample:
        """Put the clip in the sample."""
        recording: Recording = sample["waveform"]
        start = place(recording.length, self.samples, random=self.random)
        clip = torch.from_numpy(np.ascontiguousarray(recording.read(start, min(self.samples, recording.length))))
        length = len(clip)
        if length < self.samples:
            clip, length = fill(clip, self.samples, short=self.short)
        if self.gain and self.random:
            clip = clip * 10 ** (self.gain * (2 * float(torch.rand(())) - 1) / 20)
        sample["waveform"] = clip
        sample["length"] = torch.tensor(length)
        return sample


def place(have: int, need: int, *, random: bool) -> int:
    """Choose where a crop of `need` out of `have` begins; 0 where there is no choice."""
    room = max(0, have - need)
    return int(torch.randint(room + 1, ())) if random and room else room // 2


def fill(clip: Tensor, length: int, *, short: Short, value: Tensor | float = 0.0) -> tuple[Tensor, int]:
    """Pad a clip (n, ...) with `value` to (length, ...), or tile it, and say how much of it is real."""
    have = len(clip)
    if short == "tile":
        return clip[torch.arange(length) % have], length
    filled = torch.empty(length, *clip.shape[1:], dtype=clip.dtype)
    filled[:have] = clip
    filled[have:] = value
    return filled, have


class LogMelCrop:
    """Replaces an audio file by a crop of its spectrogram: `log_mel` (F, T) float32 and `length` in frames.

    Like `Crop`, with frames for samples. Padding has the values of silence. The frames at a crop's ends have seen
    the audio beside it, which they have not where the waveform is cropped.

    Args:
        cache: gives the spectrograms.
        samples: length of a clip, from which T follows.
        random: at a uniformly drawn place; else the middle.
        short: as in `Crop`.
    """

    def __init__(self, cache: LogMelCache, samples: int, *, random: bool = False, short: Short = "pad") -> None:
        self.cache = cache
        self.frames = cache.frames(samples)
        self.random = random
        self.short = short
        self._silence = torch.from_numpy(cache.silence(samples)).float()

    def __call__(self, sample: Sample) -> Sample:
        """Put `log_mel` in the place of `waveform`."""
        whole: Any = self.cache(sample.pop("waveform"))
        start = place(len(whole), self.frames, random=self.random)
        clip = torch.from_numpy(whole[start : start + self.frames].astype(np.float32))
        length = len(clip)
        if length < self.frames:
            clip, length = fill(clip, self.frames, short=self.short, value=self._silence)
        sample["log_mel"] = clip.T.contiguous()
        sample["length"] = torch.tensor(length)
        return sample


class AudioViews(ViewTransform):
    """Views of audio: a crop at a random time, louder or softer, with a stretch and a band of frequencies left out.

    The last two are SpecAugment's masks (Park et al. 2019, arXiv:1904.08779), one of each. A stretch is silenced. A
    band is taken out of the waveform (its Fourier coefficients are zero); its width is a share of the mel scale from
    0 Hz to half the sample rate. With `log_mel_cache`, both masks set values of the spectrogram to its mean. Of a
    file, each view reads its own crop and no more.

    Deviation: widths are uniform from 0 to the largest share, and not a fixed number of frames and mel channels.

    Args:
        gain: up to this many dB louder or softer, drawn uniformly; 0 with `log_mel_cache`.
        time_mask: largest share of the clip's real part that is silenced; 0 for none.
        frequency_mask: largest share of the mel scale that is taken out; 0 for none.

    Raises:
        DataError: a setting is out of range, or gain with `log_mel_cache`.

    Examples:
        ```yaml
        data:
          class_path: AudioData
          init_args: {views: 2, view_transform: {class_path: AudioViews, init_args: {gain: 12.0, time_mask: 0.0}}}
        ```
    """

    name = "waveform"
    crop: Crop | LogMelCrop
    rate: int

    def __init__(self, *, gain: float = 6.0, time_mask: float = 0.2, frequency_mask: float = 0.2) -> None:
        if not 0 <= gain <= 60:
            raise DataError(f"expected gain from 0 to 60 dB, got {gain:g}")
        for name, share in (("time_mask", time_mask), ("frequency_mask", frequency_mask)):
            if not 0 <= share < 1:
                raise DataError(f"expected {name} from 0 to below 1, got {share:g}")
        self.gain = gain
        self.time_mask = time_mask
        self.frequency_mask = frequency_mask

    def configure(self, data: Any) -> None:
        """Take the clips' length and the sample rate from the data module."""
        self.rate = data.rate
        self.crop = copy.copy(data.transforms()[0])
        if isinstance(self.crop, Crop):
            self.crop.gain = self.gain
        elif self.gain:
            raise DataError(
                f"expected no gain with log_mel_cache, got {self.gain:g}: set data.view_transform.gain to 0"
            )

    def __call__(self, sample: Sample, view: int = 0) -> Sample:
        """Make one view of the sample's `waveform` (L,), or `log_mel` (F, T)."""
        sample = self.crop(dict(sample))
        real = int(sample["length"])
        if "log_mel" in sample:
            log_mel: Tensor = sample["log_mel"].clone()
            part = log_mel[:, :real]
            mean = part.mean()
            if self.time_mask:
                part[:, self._stretch(real)] = mean
            if self.frequency_mask:
                low, high = self._band(self.frequency_mask)
                part[round(low * len(part)) : round(high * len(part))] = mean
            return {**sample, "log_mel": log_mel}
        waveform: Tensor = sample["waveform"].clone()
        if self.frequency_mask:
            waveform[:real] = without_band(waveform[:real], *self._band(self.frequency_mask), rate=self.rate)
        if self.time_mask:
            waveform[:real][self._stretch(real)] = 0
        return {**sample, "waveform": waveform}

    def _stretch(self, length: int) -> slice:
        low, high = self._band(self.time_mask)
        return slice(round(low * length), round(high * length))

    @staticmethod
    def _band(share: float) -> tuple[float, float]:
        """Draw a part of 0 to 1: its width uniform up to `share`, its place uniform."""
        width, place = torch.rand(2).tolist()
        low = place * (1 - width * share)
        return low, low + width * share


def without_band(waveform: Tensor, low: float, high: float, *, rate: int) -> Tensor:
    """Remove the frequencies from `low` to `high` of a waveform (L,), shares of the mel scale from 0 Hz to rate / 2."""
    top = 2595 * math.log10(1 + rate / 2 / 700)
    first, last = (700 * (10 ** (top * share / 2595) - 1) for share in (low, high))
    spectrum = torch.fft.rfft(waveform)
    hertz = torch.fft.rfftfreq(len(waveform), 1 / rate)
    spectrum[(hertz >= first) & (hertz < last)] = 0
    return torch.fft.irfft(spectrum, n=len(waveform))
