"""What every reader of video files is: it seeks to the keyframe before a clip, decodes to its end, and no further."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_lightning.data import Encoded

ROUNDING = 6e-4
"""Seconds by which a frame's time may be off: Matroska stores whole milliseconds."""

SLACK = 0.5
"""Seconds by which frames may end before the header says: sound is often a little longer than the picture."""


_WORTHWHILE = 1.5


class VideoReader(ABC):
    """One open video file. Times are in seconds from the first frame; whatever is wrong with a file is an OSError.

    Args:
        path: the file, or one that is in memory.
        channels: 3 (RGB) or 1 (grey).
        smallest: frames of more than 1.5 times this on their short side are reduced to it as they are converted, with
            their aspect kept (a smaller reduction costs more than larger frames do afterwards); 0 leaves them.
        threads: decoding threads; loader workers are parallel already.

    Attributes:
        fps: frames a second, on average.
        duration: seconds, as the header says.
        frames: number of frames, perhaps an estimate (see `count`).
    """

    fps: float
    duration: float
    frames: int

    def __init__(self, path: str | Encoded, *, channels: int = 3, smallest: int = 0, threads: int = 1) -> None:
        if channels not in (1, 3):
            raise ValueError(f"expected 1 (grey) or 3 (RGB) channels, got {channels}")
        self.path = path
        self.channels = channels
        self.smallest = smallest
        self.threads = threads

    @abstractmethod
    def read_at(self, times: Sequence[float]) -> NDArray[np.uint8]:
        """The frames on screen at ascending `times`: (T, H, W, C), upright.

        Raises:
            OSError: the file is damaged, or its frames end before the last time.
        """

    @abstractmethod
    def read_run(self, start: float, count: int, stride: int = 1) -> NDArray[np.uint8]:
        """`count` frames, every `stride`-th one, from the one on screen at `start`: (T, H, W, C), upright.

        Where too few frames follow (which an estimate cannot tell), the run ends with the file's last frame.

        Raises:
            OSError: the file is damaged, or has fewer than (count - 1) * stride + 1 frames.
        """

    @abstractmethod
    def count(self) -> int:
        """The exact number of frames; reads, but does not decode, files whose header does not have it."""

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    @functools.cached_property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frames that are read: upright, reduced to `smallest`. Decodes the first frame."""
        height, width = self.read_at([0.0]).shape[1:3]
        return height, width

    @property
    def height(self) -> int:
        """Height of the frames that are read."""
        return self.size[0]

    @property
    def width(self) -> int:
        """Width of the frames that are read."""
        return self.size[1]

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def reduced(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after the reduction to `smallest`."""
        short = min(height, width)
        if not self.smallest or short <= _WORTHWHILE * self.smallest:
            return height, width
        return round(height * self.smallest / short), round(width * self.smallest / short)

    def ends_early(self, end: float) -> OSError:
        """The error for a file whose frames end at `end`, before its header says."""
        return OSError(f"frames end at {end:.1f} s, the header says {self.duration:.1f} s")

    def too_short(self, have: int, need: int) -> OSError:
        """The error for a file that has fewer frames than a clip needs."""
        return OSError(f"{have} frames, the clip needs {need}")
