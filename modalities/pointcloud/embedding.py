"""A small PointNet that embeds groups of points."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class MiniPointNet(nn.Module):
    """Embed groups of points, each by itself, whatever the order of its points: (..., k, C) to (..., width).

    The embedding of Point-BERT (Yu et al. 2022), Point-MAE and Point-JEPA: each point goes through C -> h -> 2h, the
    maximum over the group joins each point's channels, 4h -> 4h -> width follow, and the maximum over the group is the
    token. ReLU between. There, h is 128 for a width of 384; here it is a third of any width, since on a small machine
    this would cost more than the whole encoder.

    Deviation: there, BatchNorm precedes the ReLUs. Its statistics run over the points of all groups, hidden ones and
    other samples' too, so what is hidden would leak. Here LayerNorm precedes the second ReLU, and nothing the first:
    a norm over channels there would take out how far a point lies from its centre.

    Args:
        width: channels of a token.
        channels: numbers C of a point: its coordinates and features.
    """

    def __init__(self, width: int, *, channels: int = 3) -> None:
        super().__init__()
        h = max(width // 3, 16)
        self.first = nn.Sequential(nn.Linear(channels, h), nn.ReLU(), nn.Linear(h, 2 * h))
        # One linear map of [group, point], in two parts: the group's part is the same for all of its points.
        self.of_group = nn.Linear(2 * h, 4 * h, bias=False)
        self.of_point = nn.Linear(2 * h, 4 * h)
        self.norm = nn.LayerNorm(4 * h)
        self.last = nn.Linear(4 * h, width)
        nn.init.zeros_(self.first[0].bias)  # type: ignore[arg-type]

    def forward(self, points: Tensor) -> Tensor:
        """Embed groups."""
        x = self.first(points.to(next(self.first.parameters()).dtype))
        x = self.of_point(x) + self.of_group(x.amax(-2, keepdim=True))
        return self.last(F.relu(self.norm(x))).amax(-2)
