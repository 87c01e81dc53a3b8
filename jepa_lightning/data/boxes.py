"""Where a crop is taken: random and central boxes of an image or a clip."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
"""Left, upper, right, lower edge, in pixels; fractions of a pixel are fine."""


DRAWS = 22
"""Uniform numbers that a random box is made from."""

_TRIES = 10


def random_box(height: int, width: int, *, scale: tuple[float, float], ratio: tuple[float, float]) -> Box:
    """Draw a box of random area and shape at a random place, as in Inception's and I-JEPA's random resized crop.

    Args:
        height: of the image.
        width: of the image.
        scale: range of the box's share of the image's area, drawn uniformly.
        ratio: range of width / height, its logarithm drawn uniformly.

    Where ten draws do not fit into the image (a very long one), it is the largest central box of an allowed shape.
    Edges are not rounded to whole pixels. Draws from torch's global generator, which is seeded for each training
    sample.
    """
    draws = torch.rand(DRAWS).tolist()
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for i in range(_TRIES):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * draws[2 * i])
        shape = math.exp(low + (high - low) * draws[2 * i + 1])
        box_width, box_height = math.sqrt(area * shape), math.sqrt(area / shape)
        if box_width <= width and box_height <= height:
            left, upper = draws[20] * (width - box_width), draws[21] * (height - box_height)
            return left, upper, left + box_width, upper + box_height
    return central_box(height, width, ratio=min(max(width / height, ratio[0]), ratio[1]))


def random_boxes(
    draws: NDArray[np.float64], height: int, width: int, *, scale: tuple[float, float], ratio: tuple[float, float]
) -> NDArray[np.float64]:
    """Make one box a row of `draws` (B, 22), uniform numbers from 0 to 1, in images of one size: (B, 4) as `Box`.

    See `random_box`.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    areas = height * width * (scale[0] + (scale[1] - scale[0]) * draws[:, 0 : 2 * _TRIES : 2])
    shapes = np.exp(low + (high - low) * draws[:, 1 : 2 * _TRIES : 2])
    widths, heights = np.sqrt(areas * shapes), np.sqrt(areas / shapes)
    fits = (widths <= width) & (heights <= height)  # (B, 10)
    first = fits.argmax(1)[:, None]
    widths, heights = np.take_along_axis(widths, first, 1)[:, 0], np.take_along_axis(heights, first, 1)[:, 0]
    left, upper = draws[:, 2 * _TRIES] * (width - widths), draws[:, 2 * _TRIES + 1] * (height - heights)
    boxes = np.stack([left, upper, left + widths, upper + heights], axis=1)
    boxes[~fits.any(1)] = central_box(height, width, ratio=min(max(width / height, ratio[0]), ratio[1]))
    return boxes


def central_box(height: int, width: int, *, ratio: float) -> Box:
    """Choose the largest central box with that width / height."""
    box_width, box_height = min(width, height * ratio), min(height, width / ratio)
    left, upper = (width - box_width) / 2, (height - box_height) / 2
    return left, upper, left + box_width, upper + box_height
