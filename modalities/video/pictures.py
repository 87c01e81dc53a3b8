"""Moving pictures of clips: what masks show and hide, and what features look like."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jepa_lightning.pictures.drawing import paint, panels, shown, to_rgb, veil
from jepa_lightning.tokens import Masks


def masks(video: Tensor, draws: Sequence[Masks], grid: tuple[int, ...]) -> list[Tensor]:
    """Draw the clip, then context and targets of each draw, under each other: one uint8 (T, 3, H, W) a sample."""
    rgb = to_rgb(video)
    parts = [rgb]
    for mask in draws:
        valid = None if mask.targets_valid is None else mask.targets_valid.flatten(1)
        parts.append(veil(rgb, shown(mask.context, mask.context_valid, grid)))
        parts.append(veil(rgb, shown(mask.targets.flatten(1), valid, grid)))
    return _column(parts)


def features(video: Tensor, colours: Tensor, grid: tuple[int, ...]) -> list[Tensor]:
    """Draw the clip and colours (B, N, 3) in 0-1 of its tubelets under each other: one uint8 (T, 3, H, W) a sample."""
    rgb = to_rgb(video)
    return _column([rgb, paint(colours, grid, rgb.shape[2:])])


def samples(video: Tensor) -> list[Tensor]:
    """Draw the clip alone: one uint8 (T, 3, H, W) a sample."""
    return _column([to_rgb(video)])


def _column(parts: Sequence[Tensor]) -> list[Tensor]:
    """Put (B, 3, T, H, W) parts under each other."""
    samples = zip(*parts, strict=True)  # of each sample, its parts (3, T, H, W)
    return [torch.stack(panels([part.movedim(1, 0) for part in sample], dim=2)) for sample in samples]
