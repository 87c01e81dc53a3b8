"""Tubes: one frame's masks, the same in all frames."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from jepa_lightning.maskers.base import Masker
from jepa_lightning.maskers.grids import by, full_grid, sorted_slots
from jepa_lightning.maskers.random import Random
from jepa_lightning.tokens import Masks, Ragged, Tokens


class Tube(Masker):
    """Masks one frame and repeats the masks through all frames (VideoMAE: Tong et al. 2022, section 3.3).

    A frame is the grid without its first axis, for any number of axes: rows and columns of a
    video's (time, row, column). Nothing is visible in one frame that is hidden in another, so a target cannot be
    copied from its neighbour in time. Indices are in raster order, time first, where the frame's are; slots that are
    filler come last.

    Args:
        masker: draws the masks of one frame; it is handed the first frame's tokens, on that frame's grid. None is
            `Random(target_ratio=0.9)`, VideoMAE's.

    Raises:
        ValueError: when called: the tokens fill no grid of at least two axes, or have padding.

    Examples:
        >>> import torch
        >>> from jepa_lightning import Tokens
        >>> from jepa_lightning.maskers import Random, Tube
        >>> tokens = Tokens(values=torch.zeros(2, 64, 3), positions=torch.zeros(1, 64, 3), grid=(4, 4, 4))
        >>> masks = Tube(Random(target_ratio=0.75))(tokens, torch.Generator().manual_seed(0))
        >>> masks[0].context.shape, masks[0].targets.shape
        (torch.Size([2, 16]), torch.Size([2, 1, 48]))
    """

    def __init__(self, masker: Masker | None = None) -> None:
        self.masker = Random(target_ratio=0.9) if masker is None else masker

    @property
    def reads_shapes_only(self) -> bool:
        """Return whether the frame's masker does."""
        return self.masker.reads_shapes_only

    def __call__(self, tokens: Tokens, generator: torch.Generator) -> list[Masks]:
        """The frame's masks over the whole grid: with F frames, contexts (B, F K) and targets (B, M, F T)."""
        grid = full_grid(tokens, "Tube")
        if len(grid) < 2:
            raise ValueError(f"Tube needs a grid of time and at least one more axis, got {by(grid)}: use Random")
        if isinstance(tokens.values, Ragged):
            raise ValueError("Tube needs tokens of one size, got ragged ones: use Random")
        frame = math.prod(grid[1:])
        first = Tokens(values=tokens.values[:, :frame], positions=tokens.positions[:, :frame], grid=grid[1:])
        return [_through(masks, grid[0], frame) for masks in self.masker(first, generator)]


def _through(masks: Masks, frames: int, size: int) -> Masks:
    context, context_valid = _repeat(masks.context, masks.context_valid, frames, size)
    targets, targets_valid = _repeat(masks.targets, masks.targets_valid, frames, size)
    return Masks(context=context, targets=targets, context_valid=context_valid, targets_valid=targets_valid)


def _repeat(index: Tensor, valid: Tensor | None, frames: int, size: int) -> tuple[Tensor, Tensor | None]:
    """Indices (..., S) into a frame of `size` tokens, and their validity, for all frames: (..., frames S)."""
    offset = torch.arange(frames, device=index.device)[:, None] * size
    index = (index.unsqueeze(-2) + offset).flatten(-2)
    return (index, None) if valid is None else sorted_slots(index, valid.repeat(*[1] * (valid.ndim - 1), frames))
