"""Where a crop is taken: random and central boxes of an image or a clip."""

from __future__ import annotations

import math

import torch

Box = tuple[float, float, float, float]
"""Left, upper, right, lower edge, in pixels; fractions of a pixel are fine."""


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
    draws = torch.rand(22).tolist()
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for i in range(10):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * draws[2 * i])
        shape = math.exp(low + (high - low) * draws[2 * i + 1])
        box_width, box_height = math.sqrt(area * shape), math.sqrt(area / shape)
        if box_width <= width and box_height <= height:
            left, upper = draws[20] * (width - box_width), draws[21] * (height - box_height)
            return left, upper, left + box_width, upper + box_height
    return central_box(height, width, ratio=min(max(width / height, ratio[0]), ratio[1]))


def central_box(height: int, width: int, *, ratio: float) -> Box:
    """Choose the largest central box with that width / height."""
    box_width, box_height = min(width, height * ratio), min(height, width / ratio)
    left, upper = (width - box_width) / 2, (height - box_height) / 2
    return left, upper, left + box_width, upper + box_height
