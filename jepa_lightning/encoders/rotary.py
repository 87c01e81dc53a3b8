"""Rotary position embedding of coordinates with any number of axes (Su et al. 2021; 3-D in V-JEPA 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

RotaryForm = Literal["interleaved", "released"]
"""How angles are assigned to channels; see `rotary`."""


def rotary(
    positions: Tensor, head_dim: int, *, form: RotaryForm = "interleaved", max_period: float = 10_000.0
) -> Tensor:
    """Compute sines and cosines that rotate the channels of queries and keys by their positions.

    The channels of a head are cut into P equal segments of an even width s, one per axis in turn (V-JEPA 2: Assran
    et al. 2025, arXiv:2506.09985, section 2.1); remaining channels are not rotated. Within a segment the
    channels (2 i, 2 i + 1) are a pair, which turns by the angle x * max_period^(-2 i / s) at the coordinate x
    (RoFormer: Su et al. 2021, section 3.2), so attention depends on differences of coordinates only. Coordinates need
    not be whole numbers.

    `released` is the form that V-JEPA 2's published weights were trained with: the same pairs, but the list of s / 2
    frequencies is laid over the s channels twice in a row, in place of each frequency over both channels of its pair.
    The two channels of a pair are then multiplied by sines and cosines of different angles, which is no rotation, and
    attention depends on absolute positions too. Use it with those weights only.

    Args:
        positions: (B or 1, N, P) coordinates in tokens; any P.
        head_dim: channels of a head, at least 2 P.
        form: `interleaved` (correct), or `released`.
        max_period: the slowest channel pair's period over the fastest's, for s going to infinity.

    Returns:
        (B or 1, 1, N, 2 head_dim): sines, then cosines, as timm's `apply_rot_embed_cat` takes them. In float64 for
        float64 coordinates, else in float32, also in mixed precision: timm casts the rotated queries and keys.

    Raises:
        ValueError: `head_dim` is too small for P axes, or `form` is unknown.
    """
    if form not in ("interleaved", "released"):
        raise ValueError(f"rotary must be interleaved or released, got {form!r}")
    axes = positions.shape[-1]
    half = head_dim // axes // 2
    if half < 1:
        raise ValueError(
            f"heads of {head_dim} channels are too narrow for rotary positions of {axes} axes: "
            f"give at least {2 * axes} (fewer heads or a larger width)"
        )
    positions = positions.double() if positions.dtype == torch.float64 else positions.float()
    exponent = torch.arange(half, device=positions.device, dtype=positions.dtype) / half
    angles = positions.unsqueeze(-1) * max_period**-exponent  # (B, N, P, half)
    angles = angles.repeat_interleave(2, dim=-1) if form == "interleaved" else angles.repeat(1, 1, 1, 2)
    angles = angles.flatten(-2)  # (B, N, P s)
    angles = torch.nn.functional.pad(angles, (0, head_dim - angles.shape[-1]))  # an angle of zero turns nothing
    return torch.cat([angles.sin(), angles.cos()], dim=-1).unsqueeze(1)


def grid_scale(grid: Sequence[int] | None, like: Sequence[int] | None, *, rotary: object) -> tuple[float, ...] | None:
    """Compute the factor of each axis that stretches the coordinates of a grid over another one's.

    V-JEPA 2.1 turns tokens by their places in the grid of its first training, 16 x 16 tokens of 256 px, at all sizes
    of the image: the first stays at 0, the last gets 15.

    Args:
        grid: of the tokens.
        like: the other, of the last axes: (rows, columns); None: coordinates stay as they are.
        rotary: the form of rotary attention, or None.

    Raises:
        ValueError: there is no rotary attention, or no such grid.
    """
    if like is None:
        return None
    if not rotary:
        raise ValueError("rotary_grid scales rotary coordinates: set rotary, too, or leave it out")
    if grid is None or not 1 <= len(like) <= len(grid) or min(like) < 1:
        raise ValueError(f"rotary_grid must name the tokens of the grid's last axes, got {tuple(like)} for {grid}")
    kept = len(grid) - len(like)
    return (1.0,) * kept + tuple((a - 1) / (n - 1) if n > 1 else 1.0 for a, n in zip(like, grid[kept:], strict=True))


def scaled(positions: Tensor, scale: Sequence[float]) -> Tensor:
    """Multiply coordinates (..., P) by a factor an axis, in their own precision (factors are no tensor to be cast)."""
    axes = positions.unbind(-1)
    return torch.stack([axis * factor for axis, factor in zip(axes, scale, strict=True)], dim=-1)
