"""The audio modality: patches of log-mel spectrograms, random masks and a ViT."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from jepa_lightning.encoders import SinCosPositions, TokenSpec, ViT
from jepa_lightning.maskers import Masker, Random
from jepa_lightning.modality import Batch, EncoderFactory, Extent, Modality
from jepa_lightning.tokens import Masks, Tokens
from modalities.audio import pictures
from modalities.audio.front_end import EPSILON, LogMel
from modalities.audio.tokenizer import SpectrogramTokenizer


class Audio(Modality):
    """Audio clips as grids of spectrogram patches (M2D, Niizumi et al. 2023; Audio-JEPA, Tuncay et al. 2025).

    Batches hold `waveform` (B, L), mono at the sample rate, or `log_mel` (B, F, T) from a cache, and for shorter
    clips `length` (B,), in samples or frames; see `SpectrogramTokenizer` and `LogMel`.

    Spectrograms are computed in float32 in every precision. Prefer `bf16-mixed` to `bf16-true`, which
    rounds the waveforms themselves to 8 bits before the spectrogram.

    Args:
        sample_rate: sample rate in Hz; the data module resamples to it.
        seconds: length of a clip; the data module crops to it. Frames that fill no patch are cut off.
        mels: number of mel bands.
        window_ms: length of a frame's window in milliseconds.
        hop_ms: hop between frames in milliseconds.
        n_fft: length of the Fourier transform in samples; None: chosen from the window and the bands.
        f_min: lower edge of the lowest band in Hz.
        f_max: upper edge of the highest band; None is half the sample rate.
        floor: smallest energy before the logarithm.
        kind: `log_mel`, or `fbank` for Kaldi's filter banks.
        window: `hann`, or `povey` (with `fbank` only).
        patch_size: (mel bands, frames) of a patch, or one number for both. (16, 16) is AST's; patches over all bands
            and few frames, such as (128, 2), have a fine time resolution. None: the whole clip is one patch, for
            `ConvEncoder`; there is nothing to mask then.
        mean: mean of the log-mel values, for normalisation. None: estimated from the training set.
        std: standard deviation, likewise.
        encoder: builds the encoder from the token spec: `ViT`, `TimmEncoder` or your own `Encoder`.
        masker: draws contexts and targets; 60 % of the patches at random by default.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from jepa_lightning.encoders import ViT
        >>> from modalities.audio import Audio
        >>> audio = Audio(sample_rate=8000, seconds=1.0, mels=32, encoder=partial(ViT, width=32, depth=1, heads=2))
        >>> tokens = audio.tokenizer({"waveform": torch.randn(2, 8000)})
        >>> tokens.values.shape, audio.encoder(tokens).shape
        (torch.Size([2, 12, 1, 16, 16]), torch.Size([2, 12, 32]))
    """

    name = "audio"
    masks_legend = (
        "From above: the spectrogram, low frequencies at the bottom; then what the context encoder sees, and what not."
    )

    def __init__(
        self,
        *,
        sample_rate: int = 16000,
        seconds: float = 2.0,
        mels: int = 128,
        window_ms: float = 25.0,
        hop_ms: float = 10.0,
        n_fft: int | None = None,
        f_min: float = 20.0,
        f_max: float | None = None,
        floor: float = EPSILON,
        kind: Literal["log_mel", "fbank"] = "log_mel",
        window: Literal["hann", "povey"] = "hann",
        patch_size: int | tuple[int, int] | None = 16,
        mean: float | None = None,
        std: float | None = None,
        encoder: EncoderFactory = ViT,
        masker: Masker | None = None,
    ) -> None:
        front_end = LogMel(
            sample_rate=sample_rate,
            window_ms=window_ms,
            hop_ms=hop_ms,
            n_fft=n_fft,
            mels=mels,
            f_min=f_min,
            f_max=f_max,
            floor=floor,
            kind=kind,
            window=window,
        )
        self.sample_rate = sample_rate
        self.seconds = seconds
        self.samples = round(seconds * sample_rate)
        if self.samples < 1:
            raise ValueError(f"seconds must hold at least 1 sample at {sample_rate} Hz, got {seconds:g}")
        if patch_size is None:
            patch_size = mels, front_end.frames(self.samples)
        patch = (patch_size, patch_size) if isinstance(patch_size, int) else (patch_size[0], patch_size[1])
        self.tokenizer: SpectrogramTokenizer = SpectrogramTokenizer(
            front_end=front_end, samples=self.samples, patch_size=patch, mean=mean, std=std
        )
        self.grid = self.tokenizer.grid
        self.spec = TokenSpec(shape=(1, *patch), grid=self.grid, positions=SinCosPositions)
        self.extent = Extent(
            key="waveform",
            sizes=(self.samples,),
            tokens=math.prod(self.grid),
            cut={"seconds": seconds},
            same={"sample_rate": sample_rate},
        )
        self.masker = masker or Random(target_ratio=0.6)
        self.encoder = encoder(self.spec)

    def draw_masks(self, batch: Batch, masks: list[Masks]) -> list[Tensor]:
        """A column a sample: the spectrogram, and for each draw what its context shows and what it hides."""
        tokenizer = self.tokenizer
        return pictures.masks(tokenizer.spectrogram(batch), masks, self.grid, tokenizer.real_frames(batch))

    def draw_features(self, batch: Batch, tokens: Tokens, colours: Tensor) -> list[Tensor]:
        """A column a sample: the spectrogram and the colour of each patch."""
        tokenizer = self.tokenizer
        return pictures.features(tokenizer.spectrogram(batch), colours, self.grid, tokenizer.real_frames(batch))

    def example(self, count: int, generator: torch.Generator) -> Batch:
        """Quiet noise."""
        return {"waveform": 0.1 * torch.randn(count, self.samples, generator=generator)}

    def draw_samples(self, batch: Batch) -> list[Tensor]:
        """The spectrogram of each sample."""
        return pictures.samples(self.tokenizer.spectrogram(batch), self.tokenizer.real_frames(batch))

    @torch.no_grad()
    def raw_features(self, batch: Batch) -> Tensor:
        """Mean and spread over the real frames of each mel band: (B, 2 F)."""
        mel = self.tokenizer.spectrogram(batch)  # (B, F, T)
        frames = self.tokenizer.real_frames(batch)  # (B,) or None
        weight = torch.ones_like(mel[:, :1])
        if frames is not None:
            weight = (torch.arange(mel.shape[2], device=mel.device) < frames[:, None]).to(mel.dtype)[:, None]
        count = weight.sum(2).clamp(min=1)
        mean = (mel * weight).sum(2) / count
        spread = ((mel - mean[..., None]).square() * weight).sum(2) / count
        return torch.cat([mean, spread.sqrt()], dim=1)
