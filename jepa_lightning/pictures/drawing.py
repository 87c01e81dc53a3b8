"""What the modalities' pictures share: values as colours, which tokens are shown, panels beside each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_lightning.tokens import Masks

HIDDEN = 0.5  # how grey a hidden token is
GAP = 4  # pixels between panels
PANEL = 112  # smaller panels are enlarged to about this side
UNUSED = (0.85, 0.85, 0.85)
CONTEXT = (0.0, 0.35, 0.75)  # this and the four below can be told apart by the colour-blind
COOL = ((0.05, 0.03, 0.20), (0.25, 0.20, 0.55), (0.15, 0.50, 0.55), (0.35, 0.75, 0.40), (0.98, 0.92, 0.20))
HOT = ((0.02, 0.01, 0.10), (0.30, 0.07, 0.42), (0.70, 0.20, 0.33), (0.95, 0.50, 0.10), (0.99, 0.96, 0.60))
TARGETS = ((0.9, 0.5, 0.05), (0.62, 0.12, 0.1), (0.97, 0.93, 0.45), (0.35, 0.05, 0.25))  # of blocks, in turn


def to_rgb(values: Tensor) -> Tensor:
    """(B, C, ...) normalised pixels to (B, 3, ...) in 0-1, each sample stretched to its own range.

    Of other numbers of channels than three, the first three are shown, or the first alone in grey.
    """
    values = values.detach().float().cpu()
    sizes = values.shape[2:]
    values = values[:, :3] if values.shape[1] >= 3 else values[:, :1].expand(-1, 3, *sizes)
    flat = values.flatten(1)
    low, high = (limit.view(-1, 1, *[1] * len(sizes)) for limit in (flat.amin(1), flat.amax(1)))
    return (values - low) / (high - low).clamp(min=1e-6)


def colour_map(values: Tensor, colours: Sequence[tuple[float, float, float]] = COOL) -> Tensor:
    """Numbers of any shape, 0 to 1, as colours (..., 3) between `colours`, the first for 0 and the last for 1.

    `COOL` goes from dark blue over green to yellow and `HOT` from black over red to pale yellow, both ever brighter.
    """
    table = torch.tensor(colours)
    place = values.detach().float().cpu().clamp(0, 1) * (len(table) - 1)
    before = place.long().clamp(max=len(table) - 2)
    share = (place - before).unsqueeze(-1)
    return (1 - share) * table[before] + share * table[before + 1]


def heat(values: Tensor, valid: Tensor | None = None) -> Tensor:
    """A number for each token as a colour, for `Modality.draw_features`; each sample has its own scale.

    Args:
        values: (B, N); a sample's smallest is black, its largest pale yellow (where all are equal, all are black).
        valid: (B, N) bool; tokens where it is False, and those whose value is not finite, are grey.

    Returns:
        (B, N, 3) float32 in 0-1, on the CPU.
    """
    values = values.detach().float().cpu()
    known = values.isfinite() if valid is None else values.isfinite() & valid.cpu()
    low = values.masked_fill(~known, torch.inf).amin(1, keepdim=True)
    high = values.masked_fill(~known, -torch.inf).amax(1, keepdim=True)
    place = torch.where(known, (values - low) / (high - low).clamp(min=1e-12), 0.0)
    return torch.where(known.unsqueeze(-1), colour_map(place, HOT), torch.tensor(UNUSED))


def shown(index: Tensor, valid: Tensor | None, grid: Sequence[int]) -> Tensor:
    """Which tokens of a grid occur in `index` (B, K), where `valid` (B, K) says so: (B, 1, *grid) of 0 and 1."""
    index = index.cpu()
    seen = torch.zeros(index.shape[0], int(torch.Size(grid).numel()))
    seen.scatter_add_(1, index, torch.ones(index.shape) if valid is None else valid.cpu().float())
    return seen.view(-1, 1, *grid).clamp(max=1)


def roles(mask: Masks, count: int) -> Tensor:
    """What a mask makes of each of `count` tokens, (B, N) int64: 0 nothing, 1 to M a target block, M + 1 context."""
    batch, blocks = mask.targets.shape[:2]
    valid = mask.targets_valid
    parts = [(mask.targets[:, i], None if valid is None else valid[:, i]) for i in range(blocks)]
    parts.append((mask.context, mask.context_valid))
    found = torch.zeros(batch, count, dtype=torch.int64, device=mask.context.device)
    for role, (index, real) in enumerate(parts, start=1):
        found.scatter_reduce_(1, index, torch.full_like(index, role) if real is None else real * role, "amax")
    return found


def role_colours(blocks: int) -> Tensor:
    """A colour for each of `roles` of M blocks, (M + 2, 3): grey, warm colours in turn, and blue for the context."""
    return torch.tensor([UNUSED, *(TARGETS[i % len(TARGETS)] for i in range(blocks)), CONTEXT])


def veil(rgb: Tensor, seen: Tensor) -> Tensor:
    """`rgb` (B, 3, *sizes) where `seen` (B, 1, *grid) is above 0, and grey elsewhere."""
    return torch.where(F.interpolate(seen, rgb.shape[2:]) > 0, rgb, HIDDEN)


def paint(colours: Tensor, grid: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """Colours (B, N, 3) in 0-1 of the tokens of a grid as (B, 3, *sizes)."""
    painted = colours.detach().float().cpu().unflatten(1, tuple(grid)).movedim(-1, 1)
    return F.interpolate(painted, tuple(sizes))


def panels(parts: Sequence[Tensor], *, dim: int = 3) -> list[Tensor]:
    """Lay (B, 3, H, W) parts of one size in a row (`dim` 3) or a column (2) with white gaps: uint8 (3, H, W) a sample.

    Small ones are enlarged by a whole factor.
    """
    factor = max(1, round(PANEL / max(parts[0].shape[-2:])))
    enlarged = [F.interpolate(part, scale_factor=factor) for part in parts]
    size = list(enlarged[0].shape)
    size[dim] = GAP
    spaced = [piece for part in enlarged for piece in (torch.ones(size), part)][1:]
    return list((torch.cat(spaced, dim=dim) * 255).round().to(torch.uint8))
