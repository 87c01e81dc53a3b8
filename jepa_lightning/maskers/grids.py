"""What maskers on a grid share: its checks, blocks as index tensors, and sets of tokens as slots."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from jepa_lightning.tokens import Tokens


def checked_range(name: str, values: Sequence[float], *, most: float = math.inf) -> tuple[float, float]:
    """A checked (low, high)."""
    if len(values) != 2 or not 0 < values[0] <= values[1] <= most or math.isinf(values[1]):
        limit = "" if math.isinf(most) else f" <= {most:g}"
        raise ValueError(f"{name} must be two numbers with 0 < low <= high{limit}, got {list(values)}")
    return float(values[0]), float(values[1])


def by(sizes: Sequence[int]) -> str:
    """Sizes as `8x14x14`."""
    return "x".join(map(str, sizes))


def full_grid(tokens: Tokens, masker: str, *, padding: bool = False) -> tuple[int, ...]:
    """The grid that the tokens fill, checked; `masker` is the name to use in errors, `padding` whether there may be."""
    if tokens.grid is None:
        raise ValueError(f"{masker} needs tokens that fill a grid, but Tokens.grid is None: use Random")
    grid = tuple(tokens.grid)
    if not grid or min(grid) < 1 or math.prod(grid) != tokens.count:
        raise ValueError(
            f"a grid of {by(grid) or 'no axes'} does not hold {tokens.count} tokens: "
            f"Tokens.grid must multiply to the number of tokens"
        )
    if tokens.valid is not None and tokens.valid.shape != (tokens.batch_size, tokens.count):
        wanted = (tokens.batch_size, tokens.count)
        raise ValueError(f"Tokens.valid must be {wanted} (B, N), got {tuple(tokens.valid.shape)}")
    if tokens.valid is not None and not padding:
        raise ValueError(f"{masker} needs a grid without padding, but Tokens.valid is set: use Random")
    return grid


def block_starts(
    grid: tuple[int, ...], size: tuple[int, ...], shape: tuple[int, ...], generator: torch.Generator
) -> Tensor:
    """Index of the first token of blocks of one size, at places drawn uniformly: `shape`."""
    start = torch.zeros(shape, dtype=torch.int64, device=generator.device)
    for length, block in zip(grid, size, strict=True):
        place = torch.randint(length - block + 1, shape, generator=generator, device=generator.device)
        start = start * length + place
    return start


def block_cells(grid: tuple[int, ...], size: tuple[int, ...], device: torch.device) -> Tensor:
    """Indices (T,) of a block's tokens counted from its first, in raster order."""
    cells = torch.zeros(1, dtype=torch.int64, device=device)
    for length, block in zip(grid, size, strict=True):
        cells = (cells[:, None] * length + torch.arange(block, device=device)).flatten()
    return cells


def cover(index: Tensor, count: int) -> Tensor:
    """Which of `count` tokens occur in `index` (B, S): (B, count) bool."""
    return torch.zeros(index.shape[0], count, dtype=torch.bool, device=index.device).scatter_(1, index, True)


def as_slots(chosen: Tensor, size: int) -> Tensor:
    """The tokens of `chosen` (B, N) bool as indices (B, size): ascending, and 0 in the slots that are left over.

    Nothing is read from the tensors, so nothing waits for their device; `size` must hold the largest set.
    """
    batch, count = chosen.shape
    slot = torch.where(chosen, chosen.cumsum(1) - 1, size)  # tokens that are not chosen all go to one slot too many
    index = torch.zeros(batch, size + 1, dtype=torch.int64, device=chosen.device)
    return index.scatter_(1, slot, torch.arange(count, device=chosen.device).expand(batch, -1))[:, :size].contiguous()


def sorted_slots(index: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Slots (..., S) with the real ones first, in ascending order, and 0 in the others; and which of them are real."""
    first = torch.arange(real.shape[-1], device=real.device) < real.sum(-1, keepdim=True)
    last = torch.iinfo(index.dtype).max
    return torch.where(first, index.masked_fill(~real, last).sort(dim=-1).values, 0), first


def marked_slots(chosen: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """`as_slots`, and which of the slots (B, size) are real."""
    real = torch.arange(size, device=chosen.device) < chosen.sum(1, keepdim=True)
    return as_slots(chosen, size), real


def least_visible(valid: Tensor, least: int) -> Tensor:
    """How many tokens (B,) a sample of `valid` (B, N) shows at least: `least`, or half of its own if they are few."""
    return ((valid.sum(1) + 1) // 2).clamp(max=least)


def fitting_draw(hidden: Tensor, valid: Tensor, least: int) -> Tensor:
    """Of several draws of what is hidden (B, A, N), the first (B,) that fits a sample's `valid` (B, N) tokens.

    One fits that hides a valid token and shows as many as `least_visible` says. Where none fits it is the first.
    """
    visible = (valid[:, None] & ~hidden).sum(2)
    fits = (visible >= least_visible(valid, least)[:, None]) & (valid[:, None] & hidden).any(2)
    return fits.int().argmax(1)


def without_padding(hidden: Tensor, valid: Tensor, least: int, keys: Tensor) -> tuple[Tensor, Tensor]:
    """What samples show and hide of their valid tokens: two (B, N) bool.

    A sample that would show fewer than `least_visible` says shows some of its hidden tokens after all.

    Args:
        hidden: (B, N) what was drawn, as if there were no padding.
        valid: (B, N) False for padding.
        least: smallest number of visible tokens.
        keys: (B, N) random numbers from 0 to below 1: the hidden tokens with the smallest are shown first.
    """
    visible, hidden = valid & ~hidden, valid & hidden
    lack = least_visible(valid, least) - visible.sum(1)
    rank = keys.masked_fill(~hidden, 2.0).argsort(1).argsort(1)
    shown = hidden & (rank < lack[:, None])
    return visible | shown, hidden & ~shown
