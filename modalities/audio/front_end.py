"""From waveforms to log-mel spectrograms, in batch and on their device."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_lightning.names.shown import ShownModule
from modalities.audio.requirements import torchaudio

EPSILON = torch.finfo(torch.float32).eps

_PREEMPHASIS = 0.97  # Kaldi's
_WIDEST = 8  # times the window, the longest transform that is tried where bands would be empty


class LogMel(ShownModule, nn.Module):
    """Waveforms (B, L) to the logarithm of mel-band energies (B, F, T), in float32.

    Frame t is the window over the samples from t * hop on; nothing is centred or reflected. Behind the end of the
    waveform lie zeros, and there are ceil(L / hop) frames: each begins inside the waveform. So no frame changes when
    zeros are appended, the frames of a clip of n samples are its first ceil(n / hop) ones, and those behind are the
    frames of silence, log(floor).

    Two kinds:
        - `log_mel`: the power spectrum of Hann-windowed frames in HTK's mel bands, as torchaudio's `MelSpectrogram`
          with `center=False` gives it, save that the window begins at t * hop also where it is shorter than the
          transform.
        - `fbank`: Kaldi's filter banks, as `torchaudio.compliance.kaldi.fbank` gives them without dither (AST, Gong et
          al. 2021; BEATs, Chen et al. 2023): the mean of each frame is taken out, pre-emphasis 0.97, Kaldi's mel bands.
          Kaldi's own last frames are missing (it keeps only those that lie inside the waveform altogether).

    All is computed in float32, under autocast and in a module of another type as well: in half precision the spectrum
    would be wrong.

    Args:
        sample_rate: of the waveforms, in Hz.
        window_ms: length of a frame's window in milliseconds; rounded down to whole samples, as in Kaldi.
        hop_ms: from one frame to the next; likewise.
        n_fft: length of the Fourier transform in samples, at least the window's. None: the smallest power of two, and
            for `log_mel` one that leaves no mel band empty.
        mels: number F of mel bands.
        f_min: lower edge of the lowest band in Hz.
        f_max: upper edge of the highest band in Hz; None is half the sample rate.
        floor: smallest energy; the default is Kaldi's.
        kind: `log_mel` or `fbank`.
        window: `hann`, or `povey` (Kaldi's own default, for `fbank` only).

    Raises:
        ValueError: a setting is out of range; when called: the waveforms are not (B, L), or have no samples.

    Examples:
        >>> import torch
        >>> from modalities.audio import LogMel
        >>> front_end = LogMel(sample_rate=8000, mels=32)
        >>> front_end(torch.randn(2, 8000)).shape
        torch.Size([2, 32, 100])
    """

    shape: Tensor  # (window,) weights of a frame's samples
    bands: Tensor  # (F, n_fft / 2 + 1) weights of the frequencies

    def __init__(
        self,
        *,
        sample_rate: int = 16000,
        window_ms: float = 25.0,
        hop_ms: float = 10.0,
        n_fft: int | None = None,
        mels: int = 128,
        f_min: float = 20.0,
        f_max: float | None = None,
        floor: float = EPSILON,
        kind: Literal["log_mel", "fbank"] = "log_mel",
        window: Literal["hann", "povey"] = "hann",
    ) -> None:
        super().__init__()
        if kind not in ("log_mel", "fbank"):
            raise ValueError(f"kind must be log_mel or fbank, got {kind!r}")
        if window not in ("hann", "povey") or (window == "povey" and kind != "fbank"):
            raise ValueError(f"window must be hann, or povey for kind fbank; got {window!r} for {kind}")
        if sample_rate < 1:
            raise ValueError(f"sample_rate must be at least 1 Hz, got {sample_rate}")
        top = sample_rate / 2 if f_max is None else float(f_max)
        if not 0 <= f_min < top <= sample_rate / 2:
            raise ValueError(f"expected 0 <= f_min < f_max <= {sample_rate / 2:g} Hz, got {f_min:g} and {top:g}")
        if mels < 4:
            raise ValueError(f"mels must be at least 4, got {mels}")
        if not floor > 0:
            raise ValueError(f"floor must be positive, got {floor}")
        self.sample_rate = sample_rate
        self.window_size = _samples("window_ms", window_ms, sample_rate, least=2)
        self.hop = _samples("hop_ms", hop_ms, sample_rate, least=1)
        self.mels = mels
        self.floor = floor
        self.kind = kind
        bands = _kaldi_bands if kind == "fbank" else _htk_bands
        smallest = 1 << (self.window_size - 1).bit_length()
        with _float32():
            if n_fft is None and kind == "log_mel":
                n_fft = _without_empty_bands(smallest, mels, sample_rate, f_min, top)
            self.n_fft = smallest if n_fft is None else n_fft
            if self.n_fft < self.window_size or self.n_fft % 2:
                raise ValueError(
                    f"n_fft must be even and at least the window of {self.window_size} samples, got {n_fft}"
                )
            shape = torch.hann_window(self.window_size, periodic=kind == "log_mel")
            self.register_buffer("shape", shape.pow(0.85) if window == "povey" else shape, persistent=False)
            self.register_buffer("bands", bands(self.n_fft, mels, sample_rate, f_min, top), persistent=False)
        self.settings: dict[str, Any] = {
            "kind": kind,
            "sample_rate": sample_rate,
            "window": window,
            "window_size": self.window_size,
            "hop": self.hop,
            "n_fft": self.n_fft,
            "mels": mels,
            "f_min": float(f_min),
            "f_max": top,
            "floor": floor,
        }
        """All that the values depend on, as plain types."""

    def frames(self, samples: int) -> int:
        """Number T of frames of so many samples."""
        return -(-samples // self.hop)

    def forward(self, waveform: Tensor) -> Tensor:
        """Log-mel (B, F, T) float32 of waveforms (B, L) of any float type."""
        if waveform.ndim != 2 or not waveform.shape[1] or not waveform.is_floating_point():
            raise ValueError(
                f"expected waveforms (B, L) of floats, with at least one sample, got {waveform.dtype} "
                f"{tuple(waveform.shape)}: average the channels and convert whole numbers first"
            )
        with torch.autocast(waveform.device.type, enabled=False):
            compute = self._fbank if self.kind == "fbank" else self._log_mel
            return compute(waveform.float()).clamp(min=self.floor).log()

    def _log_mel(self, waveform: Tensor) -> Tensor:
        """Energies (B, F, T)."""
        before = (self.n_fft - self.window_size) // 2  # the transform has the window in its middle
        power = torchaudio.functional.spectrogram(
            self._padded(waveform, before, self.n_fft),
            pad=0,
            window=self.shape,
            n_fft=self.n_fft,
            hop_length=self.hop,
            win_length=self.window_size,
            power=2.0,
            normalized=False,
            center=False,
        )
        return self.bands @ power

    def _fbank(self, waveform: Tensor) -> Tensor:
        """Energies (B, F, T)."""
        frames = self._padded(waveform, 0, self.window_size).unfold(1, self.window_size, self.hop)
        frames = frames - frames.mean(2, keepdim=True)
        previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
        spectrum = torch.view_as_real(torch.fft.rfft((frames - _PREEMPHASIS * previous) * self.shape, n=self.n_fft))
        return self.bands @ spectrum.square().sum(-1).transpose(1, 2)

    def _padded(self, waveform: Tensor, before: int, window: int) -> Tensor:
        """Zeros before and behind, so that there are windows of this size for all frames, and no samples more."""
        samples = waveform.shape[1]
        return F.pad(waveform, (before, (self.frames(samples) - 1) * self.hop + window - before - samples))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LogMel:
        """Move to devices, and stay in float32 when the model becomes another type."""
        super()._apply(in_float32(fn), recurse)
        return self


def in_float32(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """What `nn.Module._apply` does to each tensor, without a change of type."""

    def moved(tensor: Tensor) -> Tensor:
        result = fn(tensor)
        return result if result.dtype == tensor.dtype else tensor.to(result.device)

    return moved


def _samples(name: str, ms: float, sample_rate: int, *, least: int) -> int:
    samples = int(ms * sample_rate / 1000 + 1e-6)  # 1e-6: 25 ms are 400 samples, whatever the product is rounded to
    if samples < least:
        raise ValueError(f"{name} must hold at least {least} samples at {sample_rate} Hz, got {ms:g} ms")
    return samples


class _float32:
    """Tensors are made in float32 inside, whatever the default (Lightning builds bf16 models with another one)."""

    def __enter__(self) -> None:
        self.before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)

    def __exit__(self, *_: object) -> None:
        torch.set_default_dtype(self.before)


def _htk_bands(n_fft: int, mels: int, sample_rate: int, f_min: float, f_max: float) -> Tensor:
    """Weights (F, n_fft / 2 + 1) of triangular bands on HTK's mel scale."""
    bands = torchaudio.functional.melscale_fbanks(n_fft // 2 + 1, f_min, f_max, mels, sample_rate, None, "htk")
    return bands.T.contiguous()


def _kaldi_bands(n_fft: int, mels: int, sample_rate: int, f_min: float, f_max: float) -> Tensor:
    """Weights (F, n_fft / 2 + 1) of Kaldi's bands; the highest frequency has none."""
    bands, _ = torchaudio.compliance.kaldi.get_mel_banks(mels, n_fft, sample_rate, f_min, f_max, 100.0, -500.0, 1.0)
    return F.pad(bands, (0, 1))


def _without_empty_bands(smallest: int, mels: int, sample_rate: int, f_min: float, f_max: float) -> int:
    """The smallest transform, in powers of two, whose frequencies lie close enough for the narrowest band."""
    n_fft = smallest
    while n_fft <= smallest * _WIDEST:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of empty bands, which are looked for here
            bands = _htk_bands(n_fft, mels, sample_rate, f_min, f_max)
        if bool(bands.amax(1).gt(0).all()):
            return n_fft
        n_fft *= 2
    raise ValueError(
        f"{mels} mel bands from {f_min:g} to {f_max:g} Hz are too narrow for windows of {smallest} samples at most: "
        "use fewer mels, a longer window_ms, or set n_fft"
    )
