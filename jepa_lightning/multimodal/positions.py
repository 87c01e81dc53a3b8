"""Where tokens of several modalities lie, for the predictor."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class JointPositions(nn.Module):
    """A learned vector for each modality, added to its own embedding of coordinates: (..., 1 + P) to (..., width).

    Args:
        width: output width.
        positions: builds the embedding of each modality's coordinates, in order (`TokenSpec.positions`).
        axes: number of coordinates of each.
    """

    def __init__(self, width: int, *, positions: Sequence[Callable[[int], nn.Module]], axes: Sequence[int]) -> None:
        super().__init__()
        self.axes = tuple(axes)
        self.embeddings = nn.ModuleList([build(width) for build in positions])
        self.modality = nn.Parameter(torch.empty(len(self.embeddings), width))
        nn.init.trunc_normal_(self.modality, std=0.02)

    def forward(self, positions: Tensor) -> Tensor:
        """Embed the numbers of modalities and the coordinates behind them."""
        number = positions[..., 0].long()
        found = self.modality[number]
        for i, (embed, axes) in enumerate(zip(self.embeddings, self.axes, strict=True)):
            own = embed(positions[..., 1 : 1 + axes]).to(found.dtype)
            found = found + own.masked_fill((number != i).unsqueeze(-1), 0)
        return found
