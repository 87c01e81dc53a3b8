"""Tables of sin-cos positions as released models store them: made, recognised, and resampled to another grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

ROWS, COLUMNS, UNIFORM, TIME, EQUAL = (
    "rows first",
    "columns first",
    "ceil(D/6)*2 an axis",
    "D/2, D/4, D/4",
    "even shares",
)
_FORMS = {1: (ROWS,), 2: (COLUMNS, ROWS), 3: (UNIFORM, TIME, EQUAL)}  # by the number of axes, the published one first
_CLOSE = 5e-3  # of a table in half precision; two forms differ by the order of one


def published(grid: Sequence[int], width: int, form: str | None = None) -> Tensor:
    """Compute the table of sin-cos positions that a released model stores: (N, width) float64.

    Args:
        grid: tokens along each axis, in raster order: (rows, columns), or (time, rows, columns).
        width: channels.
        form: None: the published one. Of two axes "columns first" (I-JEPA: the columns' half before the rows') or
            "rows first" (MAE; `sincos`); of three "ceil(D/6)*2 an axis" (V-JEPA, cut to the width), "D/2, D/4, D/4"
            (V-JEPA without `uniform_power`), or "even shares" (`sincos`).
    """
    axes = torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in grid), indexing="ij")
    return at_places([axis.flatten() for axis in axes], width, form)


def at_places(places: Sequence[Tensor], width: int, form: str | None = None) -> Tensor:
    """As `published`, at any coordinates: one (N,) a axis."""
    if len(places) not in _FORMS:
        return _joined(places, [width // (2 * len(places)) * 2] * len(places), width)
    form = form or _FORMS[len(places)][0]
    if form == COLUMNS:
        places = places[::-1]
    shares = {
        UNIFORM: [math.ceil(width / 6) * 2] * 3,
        TIME: [width // 2, width // 4, width // 4],
    }.get(form, [width // (2 * len(places)) * 2] * len(places))
    return _joined(places, shares, width)


def _joined(places: Sequence[Tensor], shares: Sequence[int], width: int) -> Tensor:
    """Sines then cosines of each axis, cut or filled with zeros to the width."""
    parts = []
    for place, share in zip(places, shares, strict=True):
        half = share // 2
        angles = place[:, None] * 10_000.0 ** -(torch.arange(half, dtype=place.dtype) / max(half, 1))
        parts += [angles.sin(), angles.cos()]
    table = torch.cat(parts, dim=1)[:, :width]
    return F.pad(table, (0, width - table.shape[1]))


def recognise(table: Tensor, grid: Sequence[int]) -> str | None:
    """Say which published form a table (N, D) of a grid is; None: none of them, so it was learned or changed."""
    for form in _FORMS.get(len(grid), ()):
        if (
            math.prod(grid) == len(table)
            and (table.double() - published(grid, table.shape[1], form)).abs().max() < _CLOSE
        ):
            return form
    return None


def grids(count: int, axes: int) -> list[tuple[int, ...]]:
    """List the grids of square images that have so many tokens, the one with the fewest frames first."""
    frames = [1] if axes == 2 else [t for t in range(1, count + 1) if count % t == 0]
    sides = [(t, math.isqrt(count // t)) for t in frames]
    found = [(t, side, side) for t, side in sides if t * side**2 == count]
    return [grid[-axes:] for grid in found]


def grid_of(table: Tensor, axes: int, like: Sequence[int]) -> tuple[int, ...] | None:
    """Find the grid of a table: one of which it is a published form, `like` where the sizes agree, or the only one."""
    possible = grids(len(table), axes)
    for grid in [tuple(like), *possible]:
        if recognise(table, grid):
            return grid
    if math.prod(like) == len(table):
        return tuple(like)
    return possible[0] if len(possible) == 1 else None


def resample(table: Tensor, old: Sequence[int], new: Sequence[int]) -> Tensor:
    """Stretch a table (N, D) from one grid to another, so that both cover the same image or clip.

    A published form is computed at the stretched coordinates, any other table is interpolated (bicubic for images,
    trilinear for clips), in both cases with the pixels' centres aligned.
    """
    if tuple(old) == tuple(new):
        return table
    form = recognise(table, old)
    if form is not None:
        stretched = [
            ((torch.arange(n, dtype=torch.float64) + 0.5) * (o / n) - 0.5).clamp(0, o - 1)
            for o, n in zip(old, new, strict=True)
        ]
        places = torch.meshgrid(*stretched, indexing="ij")
        return at_places([place.flatten() for place in places], table.shape[1], form).to(table.dtype)
    pixels = table.float().T.reshape(1, table.shape[1], *old)
    mode = {2: "bicubic", 3: "trilinear"}[len(old)]
    return F.interpolate(pixels, size=tuple(new), mode=mode, align_corners=False)[0].flatten(1).T.to(table.dtype)
