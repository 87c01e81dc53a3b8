"""A data set of clips with two equally likely futures for one past."""

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
_ROWS = 0.4, 0.6  # range of the row that the disc comes in, in sides
_RADIUS = 0.1, 0.16  # range, in sides
_SPEED = 0.5  # way of the disc in half a clip, in sides
_NOISE = 0.04  # of each pixel of each frame, of 1: the largest deviation


class ForkedClips(DrawnClips):
    """A disc comes in from the left, and half way through the clip turns up or down; the class is which.

    Both are equally likely whatever was seen before: the first half of a clip says all of its second but one bit. A
    single prediction of the second half cannot be right, and the best one is the mean of both. The row, the radius and
    the lightness of the disc, and the pixel noise, are random. All clips are drawn when the set is built and kept as
    uint8. Clip i depends on the seed, the split and i alone, and the classes are equally frequent.

    Args:
        samples: number of clips.
        frames: of a clip; even, at least 4.
        image_size: side in pixels; at least 16.
        seed: of the set.
        split: "train", "val" or "test"; the clips of different splits are drawn independently.

    A sample is `video` (T, H, W, 1) uint8 and `labels`: `turn` (class), `row` (of the disc at the start, as a share of
    the side).

    Raises:
        DataError: an argument out of range.

    Examples:
        >>> from modalities.video import ForkedClips
        >>> clips = ForkedClips(8, frames=8)
        >>> clips[0]["video"].shape, sorted(clips[0]["labels"])
        ((8, 32, 32, 1), ['row', 'turn'])
    """

    def __init__(
        self, samples: int = 2000, *, frames: int = 8, image_size: int = 32, seed: int = 0, split: str = "train"
    ) -> None:
        if samples < 1 or frames < 4 or frames % 2 or image_size < 16:
            raise DataError(
                "expected at least 1 sample, an even number of frames of at least 4, and at least 16 pixels, got "
                f"{samples}, {frames} and {image_size}"
            )
        self.classes = ["up", "down"]
        self.videos = np.empty((samples, frames, image_size, image_size, 1), dtype=np.uint8)
        self.targets = np.empty(samples, dtype=np.int64)
        self.rows = np.empty((samples, 1), dtype=np.float32)
        draw = partial(_draw, frames=frames, side=image_size)
        fill((self.videos, self.targets, self.rows), draw, size=_CHUNK, seed=seed, split=split)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"video": self.videos[index], "labels": {"turn": self.targets[index], "row": self.rows[index]}}


def _draw(rng: np.random.Generator, frames: int, side: int) -> tuple[Array, ...]:
    """Draw one chunk: clips (n, T, H, W, 1) uint8, turns, and rows at the start."""
    n, half = _CHUNK, frames // 2
    turn = rng.permutation(np.arange(n) % 2)
    row = rng.uniform(*_ROWS, (n, 1))
    step = _SPEED / half * np.arange(1, half + 1)
    across = np.concatenate([step, np.full(half, _SPEED)])  # the column stays where it turned
    along = np.concatenate([np.zeros(half), step * 0.7])
    centre = np.stack([row + np.where(turn == 0, -1, 1)[:, None] * along, np.broadcast_to(across, (n, frames))], axis=2)
    pixel = ((np.arange(side) + 0.5) / side).astype(np.float32)
    apart = [np.square(pixel - centre[..., axis, None].astype(np.float32)) for axis in (0, 1)]  # (n, T, side)
    distance = np.sqrt(apart[0][..., :, None] + apart[1][..., None, :])
    radius = rng.uniform(*_RADIUS, (n, 1, 1, 1)).astype(np.float32)
    lightness = rng.uniform(0.7, 1, (n, 1, 1, 1)).astype(np.float32)
    clips = 0.2 + np.clip(0.5 - (distance - radius) * side, 0, 1) * (lightness - 0.2)  # an edge one pixel soft
    clips += _NOISE * (rng.random(clips.shape, dtype=np.float32) - rng.random(clips.shape, dtype=np.float32))
    return (clips.clip(0, 1) * 255).astype(np.uint8)[..., None], turn, row.astype(np.float32)
