"""Pictures of point clouds from two sides, for masks and features: discs in the order of their depth, on white."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jepa_lightning.pictures.drawing import PANEL, panels

VIEWS = ((0.0, 0.0), (40.0, 25.0))
"""Degrees by which each view is turned about the vertical axis (y), then tilted down: the front, and from aside."""

_MARGIN = 4
_MANY = 600  # points; of more the discs are smaller
_FADE = 0.5  # how much the farthest points fade to white


def clouds(points: Tensor, colours: Sequence[Tensor]) -> list[Tensor]:
    """Draw each cloud in each colouring, from the front and from aside, in a row: one uint8 (3, H, W) a sample.

    The front shows x to the right and y upwards, and looks along -z. Every cloud fills its view, whatever its size.

    Args:
        points: (B, N, 3 or more), x, y and z first; repeated points are no harm.
        colours: panels, (B, N, 3) in 0-1 each: the colours of the points.
    """
    xyz = points.detach().float().cpu()[..., :3]
    drawn = [_view(xyz, turn=turn, tilt=tilt) for turn, tilt in VIEWS]
    parts = [_paint(colour.detach().float().cpu(), *view) for colour in colours for view in drawn]
    return panels(parts)


def _view(xyz: Tensor, *, turn: float, tilt: float) -> tuple[NDArray[np.int64], Tensor]:
    """Find which point each pixel (B, H, W) shows, -1 for none; and nearness (B, N) of the points, 0 to 1."""
    centred = xyz - (xyz.amax(1, keepdim=True) + xyz.amin(1, keepdim=True)) / 2
    centred = centred / centred.norm(dim=2).amax(1).clamp(min=1e-12)[:, None, None]
    x, y, z = (centred @ _camera(turn, tilt).T).unbind(2)
    room = PANEL / 2 - _MARGIN
    column = (PANEL / 2 + room * x).long()
    row = (PANEL / 2 - room * y).long()
    radius = 1 if xyz.shape[1] > _MANY else 2
    offset = torch.arange(-radius, radius + 1)
    down, right = (grid.flatten() for grid in torch.meshgrid(offset, offset, indexing="ij"))
    disc = down**2 + right**2 <= radius**2 + 1
    order = z.argsort(dim=1)  # the nearest last: of several values for a pixel, the last one stays
    rows = row.gather(1, order)[..., None] + down[disc]
    columns = column.gather(1, order)[..., None] + right[disc]
    shown = np.full((len(xyz), PANEL, PANEL), -1, dtype=np.int64)
    sample = np.arange(len(xyz))[:, None, None]
    shown[sample, rows.numpy(), columns.numpy()] = order.numpy()[..., None]
    return shown, (z + 1) / 2


def _camera(turn: float, tilt: float) -> Tensor:
    """Make the rotation (3, 3) from the cloud's axes to right, up and towards the viewer."""
    a, b = math.radians(turn), math.radians(tilt)
    about_y = torch.tensor([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    about_x = torch.tensor([[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]])
    return about_x @ about_y


def _paint(colours: Tensor, shown: NDArray[np.int64], near: Tensor) -> Tensor:
    """Paint the pixels of a view, (B, 3, H, W) in 0-1."""
    faded = 1 - (1 - colours.clamp(0, 1)) * (1 - _FADE + _FADE * near[..., None])
    with_white = torch.cat([faded, torch.ones(len(colours), 1, 3)], dim=1)  # the last one, -1, for no point
    index = torch.from_numpy(shown).flatten(1) % with_white.shape[1]
    flat = with_white.gather(1, index[..., None].expand(-1, -1, 3))
    return flat.unflatten(1, shown.shape[1:]).movedim(-1, 1)
