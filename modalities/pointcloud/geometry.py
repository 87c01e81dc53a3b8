"""Farthest points, nearest points and an ordering by proximity: batched, exact, on the device of the input.

Distances are sums of squared differences. The shortcut |a|^2 + |b|^2 - 2 a b, which is faster for many coordinates,
loses all digits where a cloud lies far from the origin, and with them who is nearest.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def farthest_points(xyz: Tensor, count: int, start: Tensor | None = None) -> Tensor:
    """Farthest point sampling: each point is the one farthest from those before it (Eldar et al. 1997; PointNet++).

    Points are distinct as long as they differ; in clouds with fewer distinct points than `count`, copies follow, but no
    index comes twice. Of points that are equally far, the first is taken.

    Args:
        xyz: (B, N, 3) coordinates.
        count: number of points to choose, at most N.
        start: (B,) int64 index of each cloud's first point; None for the point farthest from the cloud's centroid,
            which does not depend on the order of the points.

    Returns:
        (B, count) int64 indices into N, in the order in which they were chosen.

    Raises:
        ValueError: there are fewer points than `count`.
    """
    batch, points = xyz.shape[:2]
    if not 1 <= count <= points:
        raise ValueError(f"{count} points cannot be chosen of clouds of {points}: give from 1 to {points}")
    axes = xyz.transpose(1, 2).contiguous()  # (B, 3, N): each coordinate lies together
    if start is None:
        start = _squared(axes, axes.mean(2, keepdim=True)).argmax(1)
    chosen = torch.empty(count, batch, dtype=torch.int64, device=xyz.device)
    far = torch.full((batch, points), torch.inf, dtype=xyz.dtype, device=xyz.device)
    last = start.unsqueeze(1)  # (B, 1)
    for step in range(count):
        chosen[step] = last[:, 0]
        if step + 1 < count:
            here = axes.gather(2, last.unsqueeze(1).expand(-1, 3, -1))  # (B, 3, 1)
            torch.minimum(far, _squared(axes, here), out=far)
            far.scatter_(1, last, -1.0)  # never again, also where all that is left are copies
            last = far.argmax(1, keepdim=True)
    return chosen.t().contiguous()


@torch.no_grad()
def nearest(xyz: Tensor, centres: Tensor, k: int) -> Tensor:
    """The k points nearest to each centre, by ascending distance.

    Args:
        xyz: (B, N, 3) coordinates.
        centres: (B, G, 3) coordinates, which need not be of the cloud.
        k: number of points, at most N.

    Returns:
        (B, G, k) int64 indices into N. Which of several points at the same distance comes first is not defined.

    Raises:
        ValueError: there are fewer points than k.
    """
    if not 1 <= k <= xyz.shape[1]:
        raise ValueError(f"a cloud of {xyz.shape[1]} points has no {k} nearest ones: give from 1 to {xyz.shape[1]}")
    return _distances(centres, xyz).topk(k, dim=2, largest=False).indices


@torch.no_grad()
def greedy_order(centres: Tensor) -> Tensor:
    """Point-JEPA's ordering (Saito et al. 2024, arXiv:2404.16432, section 3.2): each centre beside a near one.

    It starts at the centre of the smallest coordinate sum, and continues with the nearest that was not visited yet.

    Args:
        centres: (B, G, 3) coordinates.

    Returns:
        (B, G) int64: a permutation of each cloud's centres, whatever their coordinates.
    """
    batch, count = centres.shape[:2]
    most = torch.finfo(centres.dtype).max
    distances = _distances(centres, centres).clamp(max=most)  # a visited one is farther than any
    visited = torch.zeros(batch, count, dtype=torch.bool, device=centres.device)
    order = torch.empty(count, batch, dtype=torch.int64, device=centres.device)
    rows = torch.arange(batch, device=centres.device)
    last = centres.sum(2).argmin(1)  # (B,)
    for step in range(count):
        order[step] = last
        if step + 1 < count:
            visited.scatter_(1, last.unsqueeze(1), True)
            last = distances[rows, last].masked_fill_(visited, torch.inf).argmin(1)
    return order.t().contiguous()


def _squared(axes: Tensor, point: Tensor) -> Tensor:
    """Squared distances (B, N) of points (B, 3, N) to one point (B, 3, 1)."""
    return (axes - point).square_().sum(1)


def _distances(first: Tensor, second: Tensor) -> Tensor:
    """Distances (B, G, N) between points (B, G, 3) and (B, N, 3)."""
    if not torch.compiler.is_compiling():
        return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")
    axes = zip(first.unbind(-1), second.unbind(-1), strict=True)  # ONNX and torch.export know no cdist; 5 times slower
    squares = [(one.unsqueeze(2) - two.unsqueeze(1)).square() for one, two in axes]
    return (squares[0] + squares[1] + squares[2]).sqrt()
