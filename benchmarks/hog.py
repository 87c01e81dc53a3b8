"""Histograms of oriented gradients: features of images without learning (Dalal and Triggs 2005)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def hog_features(images: Tensor, *, cell: int) -> Tensor:
    """Describe images by histograms of the directions of their gradients (Dalal and Triggs 2005, sections 6.1 to 6.4).

    scikit-image's `hog`: of each pixel the channel with the largest gradient, 9 directions without sign, blocks of 2 by
    2 cells normalised by L2-Hys, all blocks side by side.

    Args:
        images: (B, C, H, W), values of any one scale.
        cell: side of a cell in pixels.

    Returns:
        (B, D) float32; of 32 by 32 pixels D is 324 with cells of 8 pixels, and 1,764 with cells of 4.

    Raises:
        ImportError: scikit-image is not installed.

    Examples:
        >>> import torch
        >>> from benchmarks.hog import hog_features
        >>> hog_features(torch.rand(2, 3, 32, 32), cell=8).shape
        torch.Size([2, 324])
    """
    try:
        from skimage.feature import hog
    except ImportError as error:
        raise ImportError(
            "the row hog needs scikit-image, which is not installed: pip install scikit-image, or choose other rows "
            "by --methods"
        ) from error
    settings = {"orientations": 9, "pixels_per_cell": (cell, cell), "cells_per_block": (2, 2), "channel_axis": 0}
    found = [hog(image, block_norm="L2-Hys", **settings) for image in images.cpu().numpy()]
    return torch.from_numpy(np.stack(found).astype(np.float32))
