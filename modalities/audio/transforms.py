"""Crops and views of audio: what of a recording is read, and how a view of it is changed."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from jepa_lightning.data import DataError, Sample, ViewTransform
from modalities.audio.cache import LogMelCache
from modalities.audio.recordings import Recording

Short = Literal["pad", "tile"]
"""What is done with clips that are too short: zeros behind them, or played again and again."""

_POINTS = 5  # of a random filter


class Crop:
    """Replaces a recording by a clip of fixed length: `waveform` (L,) float32 and `length`, its number of real samples.

    Args:
        samples: L.
        random: at a uniformly drawn place (by torch's global generator, seeded for each training sample); else the
            middle.
        short: what is done with recordings that are shorter than L. Padding is behind the audio, and `length` is less
            than L; tiled recordings count as real from end to end.
        gain: in training, a louder or softer clip: up to this many dB either way, drawn uniformly. 0: none.
        speed: in training, a faster or slower clip: by a factor of up to 1 + speed, its logarithm drawn uniformly. What
            is read is longer or shorter, so that the clip has L samples. 0: none.
    """

    def __init__(
        self, samples: int, *, random: bool = False, short: Short = "pad", gain: float = 0.0, speed: float = 0.0
    ) -> None:
        self.samples = samples
        self.random = random
        self.short = short
        self.gain = gain
        self.speed = speed

    def __call__(self, sample: Sample) -> Sample:
        """Put the clip in the sample."""
        recording: Recording = sample["waveform"]
        factor = 1.0
        if self.speed and self.random:
            factor = (1 + self.speed) ** (2 * float(torch.rand(())) - 1)
        need = max(1, round(self.samples * factor))
        start = place(recording.length, need, random=self.random)
        clip = torch.from_numpy(np.ascontiguousarray(recording.read(start, min(need, recording.length))))
        if factor != 1:
            clip = at_speed(clip, self.samples if len(clip) == need else max(1, int(len(clip) / factor)))
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
    """Views of audio: a crop at a random time, played faster or slower, filtered, louder or softer, and masked.

    The masks are SpecAugment's (Park et al. 2019, arXiv:1904.08779), one of each. A stretch is silenced. A
    band is taken out of the waveform (its Fourier coefficients are zero); its width is a share of the mel scale from
    0 Hz to half the sample rate. Of a file, each view reads its own crop and no more.

    `speed` is speed perturbation (Ko et al. 2015, section 2): a clip played faster is shorter, and its pitch and
    formants are higher, as if another person spoke. `filter` is a random equaliser (FilterAugment's linear kind: Nam et
    al. 2022, arXiv:2110.03282), as of other microphones and voices.

    With `log_mel_cache`, both masks set values of the spectrogram to its mean, the filter is added to its bands, and
    there is neither gain nor speed.

    Deviations: widths of masks are uniform from 0 to the largest share, and not a fixed number of frames and mel
    channels; speeds are uniform in their logarithm, and not three fixed ones; the filter has a fixed number of points.

    Args:
        gain: up to this many dB louder or softer, drawn uniformly; 0 with `log_mel_cache`.
        time_mask: largest share of the clip's real part that is silenced; 0 for none.
        frequency_mask: largest share of the mel scale that is taken out; 0 for none.
        speed: 0.25: up to a quarter faster, or 1.25 times as long; 0 for none, and with `log_mel_cache`.
        filter: the equaliser's decibels, up to this many either way, drawn uniformly at five points that divide the
            mel scale from 0 Hz to half the sample rate evenly, and linear in between; 0 for none.

    Raises:
        DataError: a setting is out of range, or gain or speed with `log_mel_cache`.

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

    def __init__(
        self,
        *,
        gain: float = 6.0,
        time_mask: float = 0.2,
        frequency_mask: float = 0.2,
        speed: float = 0.0,
        filter: float = 0.0,
    ) -> None:
        for name, decibels in (("gain", gain), ("filter", filter)):
            if not 0 <= decibels <= 60:
                raise DataError(f"expected {name} from 0 to 60 dB, got {decibels:g}")
        for name, share in (("time_mask", time_mask), ("frequency_mask", frequency_mask)):
            if not 0 <= share < 1:
                raise DataError(f"expected {name} from 0 to below 1, got {share:g}")
        if not 0 <= speed <= 1:
            raise DataError(f"expected speed from 0 to 1, got {speed:g}")
        self.gain = gain
        self.time_mask = time_mask
        self.frequency_mask = frequency_mask
        self.speed = speed
        self.filter = filter

    def configure(self, data: Any) -> None:
        """Take the clips' length and the sample rate from the data module."""
        self.rate = data.rate
        self.crop = copy.copy(data.transforms()[0])
        if isinstance(self.crop, Crop):
            self.crop.gain = self.gain
            self.crop.speed = self.speed
            return
        for name, value in (("gain", self.gain), ("speed", self.speed)):
            if value:
                raise DataError(
                    f"expected no {name} with log_mel_cache, got {value:g}: set data.view_transform.{name} to 0"
                )

    def __call__(self, sample: Sample, view: int = 0) -> Sample:
        """Make one view of the sample's `waveform` (L,), or `log_mel` (F, T)."""
        sample = self.crop(dict(sample))
        real = int(sample["length"])
        if "log_mel" in sample:
            log_mel: Tensor = sample["log_mel"].clone()
            part = log_mel[:, :real]
            if self.filter:
                places = (torch.arange(len(part)) + 1) / (len(part) + 1)  # of the bands' centres
                part += (self._decibels(places) / 10 * math.log(10))[:, None]
            mean = part.mean()
            if self.time_mask:
                part[:, self._stretch(real)] = mean
            if self.frequency_mask:
                low, high = self._band(self.frequency_mask)
                part[round(low * len(part)) : round(high * len(part))] = mean
            return {**sample, "log_mel": log_mel}
        waveform: Tensor = sample["waveform"].clone()
        if self.filter or self.frequency_mask:
            decibels = self._decibels if self.filter else None
            waveform[:real] = filtered(waveform[:real], decibels, self._band(self.frequency_mask), rate=self.rate)
        if self.time_mask:
            waveform[:real][self._stretch(real)] = 0
        return {**sample, "waveform": waveform}

    def _stretch(self, length: int) -> slice:
        low, high = self._band(self.time_mask)
        return slice(round(low * length), round(high * length))

    def _decibels(self, places: Tensor) -> Tensor:
        """Draw a filter: its decibels at places from 0 to 1 of the mel scale."""
        return between((2 * torch.rand(_POINTS) - 1) * self.filter, places)

    @staticmethod
    def _band(share: float) -> tuple[float, float]:
        """Draw a part of 0 to 1: its width uniform up to `share`, its place uniform."""
        width, place = torch.rand(2).tolist()
        low = place * (1 - width * share)
        return low, low + width * share


def between(values: Tensor, places: Tensor) -> Tensor:
    """Interpolate between values (P,) that lie evenly from 0 to 1: linearly, at places (N,) from 0 to 1."""
    at = places * (len(values) - 1)
    left = at.long().clamp(max=len(values) - 2)
    return torch.lerp(values[left], values[left + 1], at - left)


def mel_places(count: int, rate: int, *, device: torch.device | None = None) -> Tensor:
    """Place the frequencies of a real transform of `count` samples on the mel scale, from 0 Hz, 0, to rate / 2, 1."""
    return (1 + torch.fft.rfftfreq(count, 1 / rate, device=device) / 700).log() / math.log(1 + rate / 2 / 700)


def filtered(
    waveform: Tensor,
    decibels: Callable[[Tensor], Tensor] | None = None,
    without: tuple[float, float] = (0.0, 0.0),
    *,
    rate: int,
) -> Tensor:
    """Filter a waveform (L,) without a change of phase.

    Args:
        waveform: real, of at least one sample.
        decibels: gives those of places (N,), from 0 to 1 of the mel scale from 0 Hz to half the sample rate; None: 0.
        without: a band that is taken out, as places from its lower edge to below its upper one.
        rate: sample rate in Hz.
    """
    spectrum = torch.fft.rfft(waveform)
    places = mel_places(len(waveform), rate)
    if decibels is not None:
        spectrum *= 10 ** (decibels(places) / 20)
    spectrum[(places >= without[0]) & (places < without[1])] = 0
    return torch.fft.irfft(spectrum, n=len(waveform))


def at_speed(waveform: Tensor, length: int) -> Tensor:
    """Play a waveform (L,) faster or slower, so that it has `length` samples; pitch and formants move along.

    By Fourier coefficients, as `scipy.signal.resample`: those above the new Nyquist frequency are left out, and those
    above the old one are zero.
    """
    have = len(waveform)
    if have == length:
        return waveform
    spectrum = torch.fft.rfft(waveform)
    kept = min(have, length)
    resized = torch.zeros(length // 2 + 1, dtype=spectrum.dtype)
    resized[: kept // 2 + 1] = spectrum[: kept // 2 + 1]
    if kept % 2 == 0:  # the Nyquist frequency of one of the two, which has its other half only there
        resized[kept // 2] *= 0.5 if length > have else 2.0
    return torch.fft.irfft(resized, n=length) * (length / have)
