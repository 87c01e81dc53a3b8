"""Pictures of images: what a mask shows and hides, and what features look like."""

from __future__ import annotations

from torch import Tensor

from jepa_lightning.pictures.drawing import paint, panels, shown, to_rgb, veil
from jepa_lightning.tokens import Masks


def masks(image: Tensor, mask: Masks, patch: tuple[int, int]) -> list[Tensor]:
    """Draw image, context and each target block side by side: one uint8 (3, H, W) a sample."""
    rgb = to_rgb(image)
    grid = (rgb.shape[-2] // patch[0], rgb.shape[-1] // patch[1])
    seen = [shown(mask.context, mask.context_valid, grid)]
    for block in range(mask.targets.shape[1]):
        valid = None if mask.targets_valid is None else mask.targets_valid[:, block]
        seen.append(shown(mask.targets[:, block], valid, grid))
    return panels([rgb, *(veil(rgb, part) for part in seen)])


def features(image: Tensor, colours: Tensor, grid: tuple[int, ...]) -> list[Tensor]:
    """Draw the image and colours (B, N, 3) in 0-1 of its patches side by side: one uint8 (3, H, W) a sample."""
    rgb = to_rgb(image)
    return panels([rgb, paint(colours, grid, rgb.shape[-2:])])


def samples(image: Tensor) -> list[Tensor]:
    """Draw the image alone: one uint8 (3, H, W) a sample."""
    return panels([to_rgb(image)])
