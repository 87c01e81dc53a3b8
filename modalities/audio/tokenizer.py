"""Waveforms to patches of a normalised log-mel spectrogram."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.modality import Batch, Tokenizer
from jepa_lightning.patches import patch_grid, patchify
from jepa_lightning.tokens import Tokens
from modalities.audio.front_end import LogMel, in_float32


class SpectrogramTokenizer(Tokenizer):
    """Log-mel spectrograms of clips of one length, normalised, and cut into a grid of patches.

    Positions are (frequency, time) counted in patches, from the lowest band and the first frame. Frames at the end
    that do not fill a patch are cut off.

    The spectrogram is normalised by one mean and one standard deviation, those of the training set: (x - mean) / std
    (AST, Gong et al. 2021, divides by twice the standard deviation). They are estimated once, by `estimate`, and kept
    in the checkpoint; until then they are 0 and 1.

    In clips shorter than the others (`length` in the batch), a patch is valid when the window of its first frame
    begins inside the clip. What lies behind the clip in such a patch is silence, so a clip's valid tokens do not
    depend on how many zeros follow it.

    Args:
        front_end: makes log-mel spectrograms of waveforms.
        samples: L of the clips' waveforms.
        patch_size: (mel bands, frames) of a patch; the bands must divide the front end's.
        mean: of the log-mel values; with `std`, nothing is estimated.
        std: likewise.

    Raises:
        ValueError: the patches do not fit, or only one of mean and std is given; when called: the batch holds no
            clips of this length.
    """

    mean: Tensor
    std: Tensor
    estimated: Tensor

    def __init__(
        self,
        *,
        front_end: LogMel,
        samples: int,
        patch_size: tuple[int, int],
        mean: float | None = None,
        std: float | None = None,
    ) -> None:
        super().__init__()
        if (mean is None) != (std is None):
            raise ValueError(f"expected both mean and std, or neither; got {mean} and {std}")
        if std is not None and not 0 < std < math.inf:
            raise ValueError(f"std must be positive, got {std}")
        if mean is not None and not math.isfinite(mean):
            raise ValueError(f"mean must be a finite number, got {mean}")
        self.front_end = front_end
        self.samples = samples
        self.frames = front_end.frames(samples)
        self.patch_size = patch_size
        bands, length = patch_size
        self.used = self.frames // max(length, 1) * length or self.frames  # fewer than a patch: refused below
        axes = {"mel bands": "mels", "frames": "seconds"}
        grid = patch_grid((front_end.mels, self.used), (bands, length), what="a spectrogram", axes=axes)
        self.grid = (grid[0], grid[1])
        self.register_buffer("mean", torch.tensor(0.0 if mean is None else mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(1.0 if std is None else std, dtype=torch.float32))
        self.register_buffer("estimated", torch.tensor(mean is not None))

    @property
    def needs_statistics(self) -> bool:  # type: ignore[override]
        """Whether mean and std are neither given, nor estimated, nor loaded from a checkpoint."""
        return not bool(self.estimated)

    @torch.no_grad()
    def estimate(self, batches: Iterable[Batch]) -> None:
        """Set mean and std to those of all log-mel values in the batches, frames of padding left out.

        Sums are taken in float64, on the CPU. Distributed processes that see different batches get different values:
        the caller must agree on one.

        Raises:
            ValueError: there is no batch, or all values are the same.
        """
        count, total, squares = 0, 0.0, 0.0
        for batch in batches:
            log_mel = self._log_mel(batch, self.mean.device).cpu().double()  # not all devices have float64
            frames = self.real_frames(batch)
            if frames is not None:
                real = torch.arange(log_mel.shape[2]) < frames.cpu()[:, None]
                log_mel = log_mel.transpose(1, 2)[real]
            count += log_mel.numel()
            total += float(log_mel.sum())
            squares += float(log_mel.square().sum())
        if not count:
            raise ValueError("no batch to estimate the spectrograms' mean and std from: give mean and std")
        mean = total / count
        std = max(squares / count - mean**2, 0.0) ** 0.5
        if not std > 1e-4:
            raise ValueError(
                f"all log-mel values of the training audio are {mean:.4g}, as of silence: check the data, or give "
                "mean and std"
            )
        self.mean.fill_(mean)
        self.std.fill_(std)
        self.estimated.fill_(True)

    def forward(self, batch: Batch) -> Tokens:
        """Tokens with values (B, N, 1, f, t) from `batch["waveform"]` (B, L), or `batch["log_mel"]` (B, F, T).

        Values have the input's type (half precision in a model of half precision), computed in float32.
        """
        spectrogram = self.spectrogram(batch)
        values = patchify(spectrogram.unsqueeze(1).to(_input(batch).dtype), self.patch_size)
        positions = grid_positions(self.grid, spectrogram.device)
        return Tokens(values=values, positions=positions, grid=self.grid, valid=self._valid(batch))

    def spectrogram(self, batch: Batch) -> Tensor:
        """Normalised log-mel (B, F, T') float32, cut to a whole number of patches."""
        return (self._log_mel(batch)[:, :, : self.used] - self.mean) / self.std

    def real_frames(self, batch: Batch) -> Tensor | None:
        """Number of frames (B,) of each clip that begin inside it, at least 1; None when all do, as far as is said."""
        length = batch.get("length")
        if length is None:
            return None
        hop = self.front_end.hop if "waveform" in batch else 1
        return ((length + hop - 1) // hop).clamp(min=1)

    def _valid(self, batch: Batch) -> Tensor | None:
        """Which patches (B, N) hold a frame that begins inside the clip."""
        frames = self.real_frames(batch)
        if frames is None:
            return None
        bands, steps = self.grid
        first = torch.arange(steps, device=frames.device) * self.patch_size[1]
        return (first < frames[:, None]).repeat(1, bands)

    def _log_mel(self, batch: Batch, device: torch.device | None = None) -> Tensor:
        """Log-mel (B, F, T) float32 before normalisation, on the batch's device or another."""
        given = _input(batch)
        inside = (self.samples,) if "waveform" in batch else (self.front_end.mels, self.frames)
        if not given.is_floating_point():
            raise ValueError(f"expected audio as floats from -1 to 1, got {given.dtype}: use AudioData, or scale them")
        if tuple(given.shape[1:]) != inside:
            what = "waveforms of (samples,)" if "waveform" in batch else "log_mel of (bands, frames)"
            raise ValueError(
                f"expected {what} {inside}, got {tuple(given.shape[1:])}: make the modality's seconds and sample_rate "
                "(and mels, hop_ms) those of the data"
            )
        given = given if device is None else given.to(device)
        return self.front_end(given) if "waveform" in batch else given.float()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SpectrogramTokenizer:
        """Move to devices, and keep mean and std in float32."""
        super()._apply(in_float32(fn), recurse)
        return self


def _input(batch: Batch) -> Tensor:
    for name in ("waveform", "log_mel"):
        if name in batch:
            return batch[name]
    raise ValueError(
        f"an audio batch needs the key 'waveform' or 'log_mel', this one has {sorted(batch)}: check the data"
    )
