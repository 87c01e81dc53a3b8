"""A data set of long clips: fast objects before a ground that changes slowly, labelled by the slow change."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_lightning.data import DataError
from jepa_lightning.data.generation import fill
from modalities.video.generated import DrawnClips

Array = NDArray[Any]  # float32
_CHUNK = 32  # clips drawn at a time. Another number draws other clips
_HOLD = 4  # frames of a segment: how long the light stands still, and an object stays
_DRIFT = 0.6  # way of the light over the whole clip, in sides
_LIGHT = 0.35  # radius of the light, in shorter sides
_STRENGTH = 0.6  # of the light, of 1
_OBJECTS = 1
_SPEED = 0.06, 0.12  # range of the objects' speed, in shorter sides a frame
_RADIUS = 0.08, 0.14  # range, in shorter sides
_NOISE = 0.06  # of each pixel of each frame, of 1: the largest deviation


class SlowClips(DrawnClips):
    """A dim light goes slowly from left to right or from right to left while small bright objects dart about before it.

    The class is which way. The light stands still for a segment of four frames and is a step further in the next; its
    row, and the column that it passes half way through, are random. The objects of each segment are new. So the
    segments of a clip, taken without their order, are distributed the same for both classes: no mean over segments, of
    whatever features, tells them apart, and neither does any single segment. What does is where the light is at which
    time.

    All clips are drawn when the set is built and kept as uint8. Clip i depends on the seed, the split and i alone, and
    the classes are equally frequent.

    Args:
        samples: number of clips.
        frames: of a clip; a multiple of four, at least 8.
        image_size: side in pixels; at least 16.
        seed: of the set.
        split: "train", "val" or "test"; the clips of different splits are drawn independently.

    A sample is `video` (T, H, W, 1) uint8 and `labels`: `way` (class), `light` (row and column of the light half way
    through, as shares of the side).

    Raises:
        DataError: an argument out of range.

    Examples:
        >>> from modalities.video import SlowClips
        >>> clips = SlowClips(8, frames=16)
        >>> clips[0]["video"].shape, sorted(clips[0]["labels"])
        ((16, 32, 32, 1), ['light', 'way'])
    """

    def __init__(
        self, samples: int = 2000, *, frames: int = 32, image_size: int = 32, seed: int = 0, split: str = "train"
    ) -> None:
        if samples < 1 or frames < 2 * _HOLD or frames % _HOLD or image_size < 16:
            raise DataError(
                f"expected at least 1 sample, at least {2 * _HOLD} frames, a multiple of {_HOLD}, and at least 16 "
                f"pixels, got {samples}, {frames} and {image_size}"
            )
        self.classes = ["to the right", "to the left"]
        self.videos = np.empty((samples, frames, image_size, image_size, 1), dtype=np.uint8)
        self.targets = np.empty(samples, dtype=np.int64)
        self.lights = np.empty((samples, 2), dtype=np.float32)
        draw = partial(_draw, frames=frames, side=image_size)
        fill((self.videos, self.targets, self.lights), draw, size=_CHUNK, seed=seed, split=split)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"video": self.videos[index], "labels": {"way": self.targets[index], "light": self.lights[index]}}


def _draw(rng: np.random.Generator, frames: int, side: int) -> tuple[Array, ...]:
    """Draw one chunk: clips (n, T, H, W, 1) uint8, ways, and places of the light half way."""
    n, segments = _CHUNK, frames // _HOLD
    way = rng.permutation(np.arange(n) % 2)
    middle = rng.uniform(0.3, 0.7, (n, 2))
    place = np.repeat(middle[:, None], segments, axis=1)  # (n, S, 2)
    place[..., 1] += np.where(way == 0, 1, -1)[:, None] * _DRIFT * np.linspace(-0.5, 0.5, segments)
    pixel = ((np.arange(side) + 0.5) / side).astype(np.float32)
    rows, columns = (np.square(pixel - place[..., axis, None].astype(np.float32)) for axis in (0, 1))  # (n, S, side)
    light = np.exp(-(rows[..., :, None] + columns[..., None, :]) / (2 * (_LIGHT / 2) ** 2))
    clips = np.repeat((0.2 + _STRENGTH * light).astype(np.float32)[:, :, None], _HOLD, axis=2)  # (n, S, T, H, W)
    time = np.arange(_HOLD)[:, None]
    for _ in range(_OBJECTS):
        radius = rng.uniform(*_RADIUS, (n, segments)).astype(np.float32)
        heading = rng.uniform(0, 2 * np.pi, (n, segments, 1, 1))
        moved = rng.uniform(*_SPEED, heading.shape) * time * np.concatenate([np.sin(heading), np.cos(heading)], axis=3)
        centre = ((rng.random((n, segments, 1, 2)) + moved) % 1).astype(np.float32)
        apart = [(pixel - centre[..., axis, None] + 0.5) % 1 - 0.5 for axis in (0, 1)]  # the short way round
        distance = np.sqrt(np.square(apart[0])[..., :, None] + np.square(apart[1])[..., None, :])
        cover = np.clip(0.5 - (distance - radius[..., None, None, None]) * side, 0, 1)  # an edge one pixel soft
        clips += cover * (0.95 - clips)
    clips += _NOISE * (rng.random(clips.shape, dtype=np.float32) - rng.random(clips.shape, dtype=np.float32))
    pixels = (clips.clip(0, 1) * 255).astype(np.uint8).reshape(n, frames, side, side, 1)
    return pixels, way, middle.astype(np.float32)
