"""A data set of long clips: fast objects before a ground that changes slowly, labelled by the slow change."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_lightning.data import DataError
from jepa_lightning.data.generation import chunks
from modalities.video.generated import DrawnClips

Array = NDArray[Any]  # float32
_CHUNK = 32  # clips drawn at a time. Another number draws other clips
_DIRECTIONS = 4  # classes of the slow drift
_DRIFT = 0.55  # way of the light over the whole clip, in shorter sides
_LIGHT = 0.35  # radius of the light, in shorter sides
_STRENGTH = 0.45  # of the light, of 1
_OBJECTS = 2
_SPEED = 0.06, 0.12  # range of the objects' speed, in shorter sides a frame
_RADIUS = 0.08, 0.14  # range, in shorter sides
_TURN = 4  # frames after which an object takes another direction
_NOISE = 0.06  # of each pixel of each frame, of 1: the largest deviation


class SlowClips(DrawnClips):
    """A dim light drifts slowly over the ground while small bright objects dart about before it.

    The class is the direction of the drift, in quarters of a turn: about a fifteenth of the side in four frames of 32.
    The light passes a random place about the middle of the frame half way through. Objects take a new direction every
    four frames, and leave the frame on one side to come back on the other. All clips are drawn when the set is built
    and kept as uint8. Clip i depends on the seed, the split and i alone, and the classes are equally frequent.

    Args:
        samples: number of clips.
        frames: of a clip; at least 8.
        image_size: side in pixels; at least 16.
        seed: of the set.
        split: "train", "val" or "test"; the clips of different splits are drawn independently.

    A sample is `video` (T, H, W, 1) uint8 and `labels`: `drift` (class), `light` (rows and columns of the light in the
    middle of the clip, as shares of the side).

    Raises:
        DataError: an argument out of range.

    Example:
        >>> from modalities.video import SlowClips
        >>> clips = SlowClips(8, frames=16)
        >>> clips[0]["video"].shape, sorted(clips[0]["labels"])
        ((16, 32, 32, 1), ['drift', 'light'])
    """

    def __init__(
        self, samples: int = 2000, *, frames: int = 32, image_size: int = 32, seed: int = 0, split: str = "train"
    ) -> None:
        if samples < 1 or frames < 8 or image_size < 16:
            raise DataError(
                f"expected at least 1 sample, 8 frames and 16 pixels, got {samples}, {frames} and {image_size}"
            )
        self.classes = [f"{360 * index / _DIRECTIONS:g} degrees" for index in range(_DIRECTIONS)]
        self.videos = np.empty((samples, frames, image_size, image_size, 1), dtype=np.uint8)
        self.targets = np.empty(samples, dtype=np.int64)
        self.lights = np.empty((samples, 2), dtype=np.float32)
        for part, rng in chunks(samples, size=_CHUNK, seed=seed, split=split):
            drawn = [values[: part.stop - part.start] for values in _draw(rng, frames, image_size)]
            self.videos[part], self.targets[part], self.lights[part] = drawn

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"video": self.videos[index], "labels": {"drift": self.targets[index], "light": self.lights[index]}}


def _draw(rng: np.random.Generator, frames: int, side: int) -> tuple[Array, ...]:
    """Draw one chunk: clips (n, T, H, W, 1) uint8, classes of drift, and places of the light."""
    n = _CHUNK
    drift = rng.permutation(np.arange(n) % _DIRECTIONS)
    angle = 2 * np.pi / _DIRECTIONS * drift
    heading = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    middle = rng.uniform(0.3, 0.7, (n, 2))
    time = np.linspace(-0.5, 0.5, frames)
    place = middle[:, None] + _DRIFT * time[:, None] * heading[:, None]  # (n, T, 2)
    pixel = ((np.arange(side) + 0.5) / side).astype(np.float32)
    rows, columns = (np.square(pixel - place[..., axis, None].astype(np.float32)) for axis in (0, 1))  # (n, T, side)
    light = np.exp(-(rows[..., :, None] + columns[..., None, :]) / (2 * (_LIGHT / 2) ** 2))
    clips = (0.2 + _STRENGTH * light).astype(np.float32)
    turns = -(-frames // _TURN)
    for _ in range(_OBJECTS):
        radius = rng.uniform(*_RADIUS, n).astype(np.float32)
        turn = rng.uniform(0, 2 * np.pi, (n, turns))
        step = rng.uniform(*_SPEED, n)[:, None, None] * np.stack([np.sin(turn), np.cos(turn)], axis=2)
        way = np.cumsum(np.repeat(step, _TURN, axis=1)[:, :frames], axis=1)
        centre = ((rng.random((n, 1, 2)) + way) % 1).astype(np.float32)
        apart = [(pixel - centre[..., axis, None] + 0.5) % 1 - 0.5 for axis in (0, 1)]  # the short way round
        distance = np.sqrt(np.square(apart[0])[..., :, None] + np.square(apart[1])[..., None, :])
        cover = np.clip(0.5 - (distance - radius[:, None, None, None]) * side, 0, 1)  # an edge one pixel soft
        clips += cover * (0.95 - clips)
    clips += _NOISE * (rng.random(clips.shape, dtype=np.float32) - rng.random(clips.shape, dtype=np.float32))
    return (clips.clip(0, 1) * 255).astype(np.uint8)[..., None], drift, middle.astype(np.float32)
