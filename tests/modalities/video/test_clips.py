"""Which frames a clip has, on readers that only count."""

import numpy as np
import pytest

from modalities.video.reader import VideoReader
from modalities.video.reading import ClipSampler


class Counter(VideoReader):
    """A video whose frame k has the value k."""

    def __init__(self, frames, fps=10.0):
        super().__init__("x")
        self.frames, self.fps, self.duration = frames, fps, frames / fps

    def show(self, indices):
        return np.array(indices, dtype=np.uint8).reshape(-1, 1, 1, 1)

    def read_at(self, times):
        assert list(times) == sorted(times)
        return self.show([min(int(time * self.fps + 1e-6), self.frames - 1) for time in times])

    def read_run(self, start, count, stride=1):
        first = round(start * self.fps)
        assert first + (count - 1) * stride < self.frames
        return self.show(range(first, first + count * stride, stride))

    def count(self):
        return self.frames

    def close(self):
        pass


def clip(length, start=0.5, /, **options):
    return ClipSampler(**options).read(Counter(length), start=start).ravel().tolist()


@pytest.mark.parametrize(
    ("start", "stride", "expected"),
    [(0, 1, [0, 1, 2]), (1, 1, [18, 19, 20]), (0.5, 1, [9, 10, 11]), (0, 4, [0, 4, 8]), (1, 4, [12, 16, 20])],
)
def test_strides(start, stride, expected):
    assert clip(21, start, frames=3, stride=stride) == expected


@pytest.mark.parametrize(
    ("start", "fps", "expected"), [(0, 5, [0, 2, 4]), (1, 5, [16, 18, 20]), (0.5, 5, [8, 10, 12]), (0, 20, [0, 0, 1])]
)
def test_rates(start, fps, expected):
    assert clip(21, start, frames=3, fps=fps) == expected


def test_one_frame():
    assert [clip(21, start, frames=1) for start in (0, 0.5, 1)] == [[0], [10], [20]]
    assert clip(21, 1, frames=1, fps=3) == [20]
    assert clip(1, frames=1) == [0]


def test_short_videos_are_looped():
    assert clip(3, frames=8) == [0, 1, 2, 0, 1, 2, 0, 1]
    assert clip(3, frames=4, stride=2) == [0, 2, 1, 0]
    assert clip(3, frames=5, fps=5) == [0, 2, 1, 0, 2]
    assert clip(8, frames=8) == clip(8, frames=8, fps=10) == list(range(8))


def test_short_videos_are_refused():
    with pytest.raises(OSError, match="3 frames, the clip needs 8"):
        clip(3, frames=8, short="refuse")
    with pytest.raises(OSError, match=r"0.30 s \(3 frames\), the clip needs 8 frames at 5 a second"):
        clip(3, frames=8, fps=5, short="refuse")


@pytest.mark.parametrize(
    "options",
    [{"frames": 0}, {"frames": 1, "stride": 0}, {"frames": 1, "fps": 0}, {"frames": 2, "stride": 1, "fps": 2}],
)
def test_arguments_out_of_range(options):
    with pytest.raises(ValueError, match="expected"):
        ClipSampler(**options)
