"""Pictures of spectrograms, low frequencies at the bottom: what masks show and hide, what features look like."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jepa_lightning.pictures.drawing import colour_map, paint, panels, shown, veil
from jepa_lightning.tokens import Masks

_STRIPE = 3  # pixels of a stripe over padding


def masks(spectrogram: Tensor, draws: Sequence[Masks], grid: tuple[int, int], frames: Tensor | None) -> list[Tensor]:
    """Draw the spectrogram, then context and targets of each draw, under each other: one uint8 (3, H, W) a sample.

    Args:
        spectrogram: (B, F, T).
        draws: the masks.
        grid: patches along frequency and time.
        frames: (B,) number of frames before the padding, which is striped; None without padding.
    """
    rgb = coloured(spectrogram, frames)
    parts = [rgb]
    for mask in draws:
        valid = None if mask.targets_valid is None else mask.targets_valid.flatten(1)
        parts.append(veil(rgb, shown(mask.context, mask.context_valid, grid)))
        parts.append(veil(rgb, shown(mask.targets.flatten(1), valid, grid)))
    return _column(parts, frames)


def features(spectrogram: Tensor, colours: Tensor, grid: tuple[int, int], frames: Tensor | None) -> list[Tensor]:
    """Draw the spectrogram, and colours (B, N, 3) in 0-1 of its patches below: one uint8 (3, H, W) a sample."""
    rgb = coloured(spectrogram, frames)
    return _column([rgb, paint(colours, grid, rgb.shape[2:])], frames)


def samples(spectrogram: Tensor, frames: Tensor | None) -> list[Tensor]:
    """Draw the spectrogram alone: one uint8 (3, H, W) a sample."""
    return _column([coloured(spectrogram, frames)], frames)


def coloured(spectrogram: Tensor, frames: Tensor | None = None) -> Tensor:
    """Colour (B, F, T) as (B, 3, F, T) in 0-1, from dark blue to yellow over the range of each sample's real frames."""
    values = spectrogram.detach().float().cpu()
    if frames is not None:
        values = torch.where(_padded(values.shape[2], frames)[:, None], values[:, :, :1], values)
    low, high = values.amin((1, 2), keepdim=True), values.amax((1, 2), keepdim=True)
    return colour_map((values - low) / (high - low).clamp(min=1e-6)).movedim(-1, 1)


def _column(parts: Sequence[Tensor], frames: Tensor | None) -> list[Tensor]:
    """Put (B, 3, F, T) parts under each other, padding striped in white and grey."""
    bands, length = parts[0].shape[2:]
    if frames is not None:
        padded = _padded(length, frames)
        stripes = (torch.arange(bands)[:, None] + torch.arange(length)) // _STRIPE % 2 * 0.25 + 0.75
        parts = [torch.where(padded[:, None, None, :], stripes, part) for part in parts]
    return panels([part.flip(2) for part in parts], dim=2)


def _padded(length: int, frames: Tensor) -> Tensor:
    """Find which of the frames are padding: (B, T)."""
    return torch.arange(length) >= frames.cpu()[:, None]
