"""Cutting grids into patches, against plain loops."""

import math
from itertools import product

import pytest
import torch

from jepa_lightning.patches import patch_grid, patchify, unpatchify


@pytest.mark.parametrize(
    ("sizes", "patch"), [((12,), (3,)), ((8, 6), (4, 3)), ((4, 6, 10), (2, 3, 5)), ((3, 4), (1, 1))]
)
def test_patches_lie_in_raster_order(sizes, patch):
    values = torch.randn(2, 3, *sizes, generator=torch.Generator().manual_seed(0))
    found = patchify(values, patch)
    grid = [size // p for size, p in zip(sizes, patch, strict=True)]
    assert found.shape == (2, math.prod(grid), 3, *patch)
    for n, place in enumerate(product(*map(range, grid))):
        box = [slice(i * p, (i + 1) * p) for i, p in zip(place, patch, strict=True)]
        assert torch.equal(found[:, n], values[(slice(None), slice(None), *box)])
    assert torch.equal(unpatchify(found, grid), values)


def test_any_memory_layout():
    values = torch.randn(2, 4, 6, 3, generator=torch.Generator().manual_seed(0)).permute(0, 3, 1, 2)
    assert torch.equal(patchify(values, (2, 3)), patchify(values.contiguous(), (2, 3)))


def test_the_grid():
    axes = {"frames": "frames", "height": "image_size"}
    assert patch_grid((16, 12), (2, 4), what="a clip", axes=axes) == (8, 3)
    with pytest.raises(ValueError, match="a clip of frames 15 is not a whole number of patches of 2: use frames 14 or"):
        patch_grid((15, 12), (2, 4), what="a clip", axes=axes)
    with pytest.raises(ValueError, match="a clip of height 3 is smaller than a patch of 4"):
        patch_grid((16, 3), (2, 4), what="a clip", axes=axes)
