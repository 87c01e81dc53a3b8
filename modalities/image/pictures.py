"""Pictures of images: what a mask shows and hides, and what features look like."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_lightning.tokens import Masks

HIDDEN = 0.5  # how grey a hidden patch is
GAP = 4  # pixels between panels
PANEL = 112  # smaller images are enlarged to about this side


def to_rgb(image: Tensor) -> Tensor:
    """(B, C, H, W) normalised images to (B, 3, H, W) in 0-1, each stretched to its own range."""
    image = image.detach().float().cpu()
    image = image[:, :3] if image.shape[1] >= 3 else image[:, :1].expand(-1, 3, -1, -1)
    low, high = image.amin((1, 2, 3), keepdim=True), image.amax((1, 2, 3), keepdim=True)
    return (image - low) / (high - low).clamp(min=1e-6)


def masks(image: Tensor, mask: Masks, patch: tuple[int, int]) -> list[Tensor]:
    """Image, context and each target block side by side: one uint8 (3, H, W) a sample."""
    rgb = to_rgb(image)
    grid = (rgb.shape[-2] // patch[0], rgb.shape[-1] // patch[1])
    shown = [_shown(mask.context, mask.context_valid, grid)]
    for block in range(mask.targets.shape[1]):
        valid = None if mask.targets_valid is None else mask.targets_valid[:, block]
        shown.append(_shown(mask.targets[:, block], valid, grid))
    panels = [rgb] + [torch.where(F.interpolate(s, rgb.shape[-2:]) > 0, rgb, HIDDEN) for s in shown]
    return _rows(panels)


def features(image: Tensor, colours: Tensor, grid: tuple[int, int]) -> list[Tensor]:
    """Image and colours (B, N, 3) in 0-1 of its patches side by side: one uint8 (3, H, W) a sample."""
    rgb = to_rgb(image)
    painted = colours.detach().float().cpu().unflatten(1, grid).permute(0, 3, 1, 2)
    return _rows([rgb, F.interpolate(painted, rgb.shape[-2:])])


def _shown(index: Tensor, valid: Tensor | None, grid: tuple[int, int]) -> Tensor:
    """(B, 1, rows, columns) of 0 and 1 from indices (B, K)."""
    index = index.cpu()
    seen = torch.zeros(index.shape[0], grid[0] * grid[1])
    seen.scatter_add_(1, index, torch.ones(index.shape) if valid is None else valid.cpu().float())
    return seen.view(-1, 1, *grid).clamp(max=1)


def _rows(panels: list[Tensor]) -> list[Tensor]:
    """Lay (B, 3, H, W) panels side by side on white, enlarged by a whole factor."""
    factor = max(1, round(PANEL / max(panels[0].shape[-2:])))
    panels = [F.interpolate(p, scale_factor=factor) for p in panels]
    gap = torch.ones(*panels[0].shape[:3], GAP)
    spaced = [part for panel in panels for part in (gap, panel)][1:]
    return list((torch.cat(spaced, dim=3) * 255).round().to(torch.uint8))
