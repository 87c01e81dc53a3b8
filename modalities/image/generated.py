"""A labelled data set of striped grounds and shapes, so that everything runs with no data on disk."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from jepa_lightning.data import DataError
from jepa_lightning.data.generation import fill, smooth_fields
from jepa_lightning.names.shown import Shown

Array = NDArray[Any]  # float32
_CHUNK = 50  # images drawn at a time: few enough for the processor's cache. Another number draws other images
_DIRECTIONS = 8  # classes of stripes, over half a turn
_STRIPES = 2.5, 6.0  # range of their number along the shorter side
_CONTRAST = 0.2  # of the stripes, either way from the ground's colour, of 1
_SIZE = 0.2, 0.35  # range of the shape's radius, as a share of the shorter side
_SHADING = 0.12  # largest slow deviation from a colour, of 1
_NOISE = 0.25  # of each pixel: the standard deviation is 104 times this, of 255


class GeneratedImages(Shown, Dataset[dict[str, Any]]):
    """A shape on a striped ground, under noise; the class is the direction of the stripes, in eighths of half a turn.

    The stripes' phase, number and exact direction (within its class), the shape, its position, size, rotation and
    lightness, slow shading and pixel noise are random. A single patch says little of the class under the noise; what
    patches have in common says it. All images are drawn when the set is built and kept as uint8. Image i depends on
    the seed, the split and i alone, and the classes are equally frequent.

    Args:
        samples: number of images.
        image_size: side, or (height, width), in pixels; at least 16.
        channels: number of channels; they differ by their shading and noise.
        seed: of the set.
        split: "train", "val" or "test"; the images of different splits are drawn independently.

    A sample is `image` (H, W, C) uint8 and `labels`: `stripes` (class), `shape` (class, the harder one), `position`
    (row and column of the shape's centre, 0 to 1) and `size` (its radius as a share of the shorter side).

    Raises:
        DataError: an argument out of range.

    Examples:
        >>> from modalities.image import GeneratedImages
        >>> images = GeneratedImages(16, image_size=32, seed=1)
        >>> images
        GeneratedImages(samples=16, image_size=32, seed=1)
        >>> images[0]["image"].shape, sorted(images[0]["labels"])
        ((32, 32, 3), ['position', 'shape', 'size', 'stripes'])
    """

    def __init__(
        self,
        samples: int = 8000,
        *,
        image_size: int | tuple[int, int] = 64,
        channels: int = 3,
        seed: int = 0,
        split: str = "train",
    ) -> None:
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        if samples < 1 or channels < 1:
            raise DataError(f"expected at least 1 sample and 1 channel, got {samples} and {channels}")
        if min(height, width) < 16:
            raise DataError(f"expected images of at least 16 by 16 pixels, got {height} by {width}: shapes would blur")
        self.classes = [f"{180 * index / _DIRECTIONS:g} degrees" for index in range(_DIRECTIONS)]
        self.images = np.empty((samples, height, width, channels), dtype=np.uint8)
        self.targets = np.empty(samples, dtype=np.int64)
        self.shapes = np.empty(samples, dtype=np.int64)
        self.positions = np.empty((samples, 2), dtype=np.float32)
        self.sizes = np.empty(samples, dtype=np.float32)
        draw = partial(_draw, height=height, width=width, channels=channels)
        columns = (self.images, self.targets, self.shapes, self.positions, self.sizes)
        fill(columns, draw, size=_CHUNK, seed=seed, split=split)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(height, width, channels)."""
        return self.images.shape[1:]

    def take(self, indices: NDArray[np.int64]) -> dict[str, Any]:
        """Images (B, H, W, C) and labels of many samples."""
        return self[indices]  # type: ignore[index]

    def __getitem__(self, index: int) -> dict[str, Any]:
        labels = {
            "stripes": self.targets[index],
            "shape": self.shapes[index],
            "position": self.positions[index],
            "size": self.sizes[index],
        }
        return {"image": self.images[index], "labels": labels}


def _draw(rng: np.random.Generator, height: int, width: int, channels: int) -> tuple[NDArray[Any], ...]:
    """Draw one chunk: images (n, H, W, C) uint8, directions, shapes, positions and sizes."""
    n, side = _CHUNK, min(height, width)
    targets = rng.permutation(np.arange(n) % _DIRECTIONS)
    shapes = rng.permutation(np.arange(n) % len(SHAPES))
    size = rng.uniform(*_SIZE, n).astype(np.float32)
    radius = size * side
    centre = radius[:, None] + rng.random((n, 2), dtype=np.float32) * (
        np.array([height, width], dtype=np.float32) - 2 * radius[:, None]
    )
    angle = rng.uniform(0, 2 * np.pi, n).astype(np.float32)
    # Coordinates in the shape's own frame, where its outer radius is 1.
    rows = (np.arange(height, dtype=np.float32) + 0.5 - centre[:, :1]) / radius[:, None]
    columns = (np.arange(width, dtype=np.float32) + 0.5 - centre[:, 1:]) / radius[:, None]
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    u = (cos * columns)[:, None, :] + (sin * rows)[:, :, None]
    v = (cos * rows)[:, :, None] - (sin * columns)[:, None, :]
    cover = np.empty((n, height, width), dtype=np.float32)
    for index, distance in enumerate(SHAPES.values()):
        which = shapes == index
        # The distance to the outline, in pixels, gives an edge that is one pixel soft.
        cover[which] = np.clip(0.5 - distance(u[which], v[which]) * radius[which, None, None], 0, 1)
    lightness = np.where(rng.random(n) < 0.5, rng.uniform(0.0, 0.15, n), rng.uniform(0.85, 1.0, n)).astype(np.float32)
    fields: dict[str, Any] = {"channels": channels, "size": (height, width), "strength": 255 * _SHADING}
    images = smooth_fields(rng, n, **fields)  # (n, C, H, W), numpy's faster order
    shape = smooth_fields(rng, n, **fields)
    images += 255 * (0.5 + _CONTRAST * _stripes(rng, targets, height, width)[:, None])
    shape += 255 * lightness[:, None, None, None]
    shape -= images
    shape *= cover[:, None]
    images += shape
    # The difference of two random bytes: near enough to a normal, at a tenth of its price.
    for sign in (_NOISE, -_NOISE):
        images += rng.integers(0, 256, images.shape, dtype=np.uint8) * np.float32(sign)
    pixels = images.clip(0, 255, out=images).astype(np.uint8).transpose(0, 2, 3, 1)
    return pixels, targets, shapes, centre / [height, width], size


def _stripes(rng: np.random.Generator, classes: NDArray[np.int64], height: int, width: int) -> Array:
    """Draw sine stripes (n, H, W) from -1 to 1 in the directions of the classes."""
    n, side = len(classes), min(height, width)
    angle = np.pi / _DIRECTIONS * (classes + rng.uniform(-0.3, 0.3, n))
    waves = 2 * np.pi / side * rng.uniform(*_STRIPES, n)
    phase = rng.uniform(0, 2 * np.pi, n)
    rows = (waves * np.sin(angle))[:, None] * np.arange(height) + phase[:, None]
    columns = (waves * np.cos(angle))[:, None] * np.arange(width)
    return np.sin(rows[:, :, None] + columns[:, None, :], dtype=np.float32)


# Signed distances to the outline (negative inside), about exact near it, for coordinates scaled to a radius of 1.


def _box(u: Array, v: Array, half_u: float, half_v: float) -> Array:
    return np.maximum(np.abs(u) - half_u, np.abs(v) - half_v)


def _disc(u: Array, v: Array) -> Array:
    return np.hypot(u, v) - 0.95


def _ring(u: Array, v: Array) -> Array:
    return np.abs(np.hypot(u, v) - 0.72) - 0.24


def _crescent(u: Array, v: Array) -> Array:
    return np.maximum(np.hypot(u, v) - 1, 0.8 - np.hypot(u - 0.5, v))


def _wedge(u: Array, v: Array) -> Array:
    return np.maximum(np.hypot(u, v) - 1, (u - np.abs(v)) * np.float32(0.5**0.5))


def _square(u: Array, v: Array) -> Array:
    return _box(u, v, 0.8, 0.8)


def _frame(u: Array, v: Array) -> Array:
    return np.abs(_box(u, v, 0.6, 0.6)) - 0.2


def _triangle(u: Array, v: Array) -> Array:
    return np.maximum(-u, 0.5 * u + np.float32(0.75**0.5) * np.abs(v)) - 0.55


def _cross(u: Array, v: Array) -> Array:
    return np.minimum(_box(u, v, 1.0, 0.28), _box(u, v, 0.28, 1.0))


def _star(u: Array, v: Array) -> Array:
    """Fold the plane onto half of one of five points: it is the side of one line, from the tip inwards."""
    step, inner = np.float32(np.pi / 5), 0.42
    angle = np.abs(np.mod(np.arctan2(v, u), 2 * step) - step)  # `step` at a tip, 0 between two
    r = np.hypot(u, v)
    x, y = r * np.cos(step - angle), r * np.sin(step - angle)  # the tip is now at (1, 0)
    along_x, along_y = inner * np.cos(step) - 1, inner * np.sin(step)
    return ((x - 1) * along_y - y * along_x) / np.hypot(along_x, along_y)


def _bars(u: Array, v: Array) -> Array:
    return _box(np.abs(u) - 0.55, v, 0.24, 0.9)


SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "disc": _disc,
    "ring": _ring,
    "crescent": _crescent,
    "wedge": _wedge,
    "square": _square,
    "frame": _frame,
    "triangle": _triangle,
    "cross": _cross,
    "star": _star,
    "bars": _bars,
}
"""The shapes: name to signed distance."""
