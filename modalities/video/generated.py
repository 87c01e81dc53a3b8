"""A data set of moving objects, labelled by their motion, so that everything runs with no data on disk."""

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
_CHUNK = 32  # clips drawn at a time. Another number draws other clips
_DIRECTIONS = 8  # classes of motion
_SPEED = 0.02, 0.06  # range, in shorter sides a frame
_OBJECTS = 3
_RADIUS = 0.15, 0.25  # range, in shorter sides
_SHADING = 0.12  # largest slow deviation of the ground from grey, of 1
_NOISE = 0.06  # of each pixel of each frame, of 1: the largest deviation

SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "disc": lambda u, v: np.hypot(u, v) - 0.9,
    "square": lambda u, v: np.maximum(np.abs(u), np.abs(v)) - 0.8,
    "diamond": lambda u, v: (np.abs(u) + np.abs(v) - 1.1) * np.float32(0.5**0.5),
    "ring": lambda u, v: np.abs(np.hypot(u, v) - 0.7) - 0.25,
}
"""The shapes: name to signed distance from the outline, for coordinates scaled to a radius of 1."""


class DrawnClips(Shown, Dataset[dict[str, Any]]):
    """Clips that are all drawn when the set is built: `videos` (N, T, H, W, C) uint8."""

    videos: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.videos)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(frames, height, width, channels)."""
        return self.videos.shape[1:]

    def take(self, indices: NDArray[np.int64]) -> dict[str, Any]:
        """Give clips (B, T, H, W, C) and labels of many samples."""
        return self[indices]


class GeneratedClips(DrawnClips):
    """Objects that drift over a still ground, all with one velocity; the class is the direction, in eighths of a turn.

    What leaves the frame on one side comes back on the other, and places are uniform, so a single frame says nothing of
    the direction, nor does any still picture; the order of the frames does. The exact direction (within its class),
    speed, shape, places, sizes, lightness, ground and pixel noise are random. All clips are drawn when the set is built
    and kept as uint8. Clip i depends on the seed, the split and i alone, and the classes are equally frequent.

    Args:
        samples: number of clips.
        frames: of a clip; at least 2.
        image_size: side, or (height, width), in pixels; at least 16.
        channels: number of channels; they differ by their ground and noise.
        seed: of the set.
        split: "train", "val" or "test"; the clips of different splits are drawn independently.

    A sample is `video` (T, H, W, C) uint8 and `labels`: `direction` (class), `shape` (class, seen in one frame),
    `velocity` (rows and columns a frame, as shares of the shorter side).

    Raises:
        DataError: an argument out of range.

    Examples:
        >>> from modalities.video import GeneratedClips
        >>> clips = GeneratedClips(16, frames=4, seed=1)
        >>> clips
        GeneratedClips(samples=16, frames=4, seed=1)
        >>> clips[0]["video"].shape, sorted(clips[0]["labels"])
        ((4, 32, 32, 3), ['direction', 'shape', 'velocity'])
    """

    def __init__(
        self,
        samples: int = 2000,
        *,
        frames: int = 16,
        image_size: int | tuple[int, int] = 32,
        channels: int = 3,
        seed: int = 0,
        split: str = "train",
    ) -> None:
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        if samples < 1 or channels < 1:
            raise DataError(f"expected at least 1 sample and 1 channel, got {samples} and {channels}")
        if frames < 2:
            raise DataError(f"expected at least 2 frames, without which nothing moves, got {frames}")
        if min(height, width) < 16:
            raise DataError(f"expected frames of at least 16 by 16 pixels, got {height} by {width}: shapes would blur")
        self.classes = [f"{360 * index / _DIRECTIONS:g} degrees" for index in range(_DIRECTIONS)]
        self.videos = np.empty((samples, frames, height, width, channels), dtype=np.uint8)
        self.targets = np.empty(samples, dtype=np.int64)
        self.shapes = np.empty(samples, dtype=np.int64)
        self.velocities = np.empty((samples, 2), dtype=np.float32)
        draw = partial(_draw, frames=frames, height=height, width=width, channels=channels)
        columns = (self.videos, self.targets, self.shapes, self.velocities)
        fill(columns, draw, size=_CHUNK, seed=seed, split=split)

    def __getitem__(self, index: int) -> dict[str, Any]:
        labels = {"direction": self.targets[index], "shape": self.shapes[index], "velocity": self.velocities[index]}
        return {"video": self.videos[index], "labels": labels}


def _draw(rng: np.random.Generator, frames: int, height: int, width: int, channels: int) -> tuple[Array, ...]:
    """Draw one chunk: clips (n, T, H, W, C) uint8, directions, shapes and velocities."""
    n, side = _CHUNK, min(height, width)
    directions = rng.permutation(np.arange(n) % _DIRECTIONS)
    shapes = rng.permutation(np.arange(n) % len(SHAPES))
    angle = 2 * np.pi / _DIRECTIONS * (directions + rng.uniform(-0.3, 0.3, n))
    velocity = rng.uniform(*_SPEED, n)[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    ground = 0.5 + smooth_fields(rng, n, channels=channels, size=(height, width), strength=_SHADING)  # (n, C, H, W)
    clips = np.repeat(ground[:, None], frames, axis=1)
    for _ in range(_OBJECTS):
        radius = (side * rng.uniform(*_RADIUS, n)).astype(np.float32)
        dark = rng.random(n) < 0.5
        lightness = np.where(dark, rng.uniform(0, 0.15, n), rng.uniform(0.85, 1, n)).astype(np.float32)
        start = rng.random((n, 2)) * [height, width]
        centre = start[:, None] + side * velocity[:, None] * np.arange(frames)[:, None]  # (n, T, 2)
        rows = _around(height, centre[..., 0])[..., :, None] / radius[:, None, None, None]  # (n, T, H, 1)
        columns = _around(width, centre[..., 1])[..., None, :] / radius[:, None, None, None]
        cover = np.empty((n, frames, height, width), dtype=np.float32)
        for index, distance in enumerate(SHAPES.values()):
            which = shapes == index
            # The distance to the outline, in pixels, gives an edge that is one pixel soft.
            outline = distance(rows[which], columns[which]) * radius[which, None, None, None]
            cover[which] = np.clip(0.5 - outline, 0, 1)
        clips += cover[:, :, None] * (lightness[:, None, None, None, None] - clips)
    clips *= 255
    # The difference of two random bytes: near enough to a normal, at a tenth of its price.
    for sign in (_NOISE, -_NOISE):
        clips += rng.integers(0, 256, clips.shape, dtype=np.uint8) * np.float32(sign)
    pixels = clips.clip(0, 255, out=clips).astype(np.uint8).transpose(0, 1, 3, 4, 2)
    return pixels, directions, shapes, velocity.astype(np.float32)


def _around(size: int, centre: Array) -> Array:
    """Measure the distance (..., size) of each pixel from `centre` (...), the short way round."""
    place = np.arange(size, dtype=np.float32) + 0.5
    return (place - centre[..., None].astype(np.float32) + size / 2) % size - np.float32(size / 2)
