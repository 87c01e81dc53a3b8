"""Cutting what lies on a regular grid (pixels, frames, time-frequency bins) into patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor


def patchify(values: Tensor, patch: Sequence[int]) -> Tensor:
    """Cut (B, C, *sizes) into (B, N, C, *patch) in raster order.

    Args:
        values: any number of axes after the channels: (row, column) of images, (frame, row, column) of clips.
        patch: size along each axis; must divide the values'.
    """
    axes = range(len(patch))
    whole = values.reshape(
        *values.shape[:2], *(n for size, p in zip(values.shape[2:], patch, strict=True) for n in (size // p, p))
    )
    grid, inner = [2 + 2 * axis for axis in axes], [3 + 2 * axis for axis in axes]
    return whole.permute(0, *grid, 1, *inner).flatten(1, len(patch))


def unpatchify(patches: Tensor, grid: Sequence[int]) -> Tensor:
    """Put patches (B, N, C, *patch) in raster order back together: (B, C, *sizes), as before `patchify`.

    Args:
        patches: as `patchify` returns them.
        grid: number of patches along each axis.
    """
    axes = len(grid)
    whole = patches.unflatten(1, tuple(grid))  # (B, *grid, C, *patch)
    order = [place for axis in range(axes) for place in (1 + axis, 2 + axes + axis)]
    sizes = (n * p for n, p in zip(grid, patches.shape[3:], strict=True))
    return whole.permute(0, 1 + axes, *order).reshape(len(patches), patches.shape[2], *sizes)


def patch_grid(sizes: Sequence[int], patch: Sequence[int], *, what: str, axes: Mapping[str, str]) -> tuple[int, ...]:
    """Number of patches along each axis.

    Args:
        sizes: of the whole along each axis.
        patch: of a patch.
        what: names the whole in an error, as in "an image".
        axes: name of each axis, and the setting that decides its size, as in {"height": "image_size", ...}.

    Raises:
        ValueError: the patches do not fill the whole.
    """
    for (axis, setting), size, p in zip(axes.items(), sizes, patch, strict=True):
        if p < 1 or size < p:
            raise ValueError(f"{what} of {axis} {size} is smaller than a patch of {p}: use smaller patches")
        if size % p:
            raise ValueError(
                f"{what} of {axis} {size} is not a whole number of patches of {p}: "
                f"use {setting} {size // p * p} or patches of another size"
            )
    return tuple(size // p for size, p in zip(sizes, patch, strict=True))
