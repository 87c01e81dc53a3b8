"""Positions as a stored table: what a released model's `pos_embed` is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jepa_lightning.encoders.base import TokenSpec
from jepa_lightning.weights.formats.tables import published


class StoredPositions(nn.Module):
    """A fixed table of one row a token of a grid: (..., P) coordinates to (..., width).

    Released models store their positions, and what is stored is no formula of ours: I-JEPA's table holds the columns'
    half before the rows' (Assran et al. 2023), V-JEPA's splits the width in its own way (Bardes et al. 2024), and a
    fine-tuned one is no formula at all. It begins as the published form (`weights.formats.tables.published`), is part
    of the weights (a buffer, `table`), and is not trained.

    Args:
        width: output width.
        grid: tokens along each axis.

    Raises:
        ValueError: there is no grid.
    """

    table: Tensor

    def __init__(self, width: int, *, grid: Sequence[int] | None) -> None:
        super().__init__()
        if grid is None:
            raise ValueError("positions: stored needs tokens on a grid, these have none: leave it out")
        self.grid = tuple(grid)
        self.register_buffer("table", published(self.grid, width).float())

    def check(self, grid: Sequence[int]) -> None:
        """See that all tokens of another grid have a row.

        Raises:
            ValueError: it is larger than the table's.
        """
        if len(grid) != len(self.grid) or any(n > m for n, m in zip(grid, self.grid, strict=True)):
            raise ValueError(
                f"positions are stored for a grid of {self.grid}, got tokens on {tuple(grid)}: set the modality's "
                "sizes to those of the data, and the table is resampled when the weights are loaded"
            )

    def forward(self, positions: Tensor) -> Tensor:
        """Look up coordinates, whole numbers of the grid."""
        index = torch.zeros_like(positions[..., 0], dtype=torch.long)
        for axis, size in enumerate(self.grid):
            index = index * size + positions[..., axis].long()
        return self.table[index]


def position_embedding(spec: TokenSpec, width: int, *, rotary: object, stored: bool) -> nn.Module | None:
    """Build what embeds coordinates: a stored table, the modality's own module, or None with rotary attention."""
    if rotary:
        return None
    return StoredPositions(width, grid=spec.grid) if stored else spec.positions(width)
