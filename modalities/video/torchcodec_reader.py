"""Video files by torchcodec, which needs FFmpeg's libraries on the system."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate
from torchcodec.decoders import VideoDecoder

from jepa_lightning.data import Encoded
from modalities.video.reader import ROUNDING, SLACK, VideoReader

_ERRORS = (RuntimeError, ValueError, IndexError, TypeError, AssertionError, MemoryError)
_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601's luma, as FFmpeg makes it


class TorchCodecReader(VideoReader):
    """A video file, read by torchcodec.

    The file's packets are read once at opening (torchcodec's exact mode), without decoding, so that frames are found
    by their true times where the frame rate varies.
    """

    def __init__(self, path: str | Encoded, *, channels: int = 3, smallest: int = 0, threads: int = 1) -> None:
        super().__init__(path, channels=channels, smallest=smallest, threads=threads)
        try:
            source = path.data if isinstance(path, Encoded) else path
            self._decoder: Any = VideoDecoder(source, dimension_order="NHWC", num_ffmpeg_threads=threads, device="cpu")
            facts = self._decoder.metadata
            self._begin, self._end = float(facts.begin_stream_seconds or 0), float(facts.end_stream_seconds or 0)
            self._count = int(facts.num_frames or 0)
            header = float(facts.duration_seconds_from_header or 0)
        except _ERRORS as error:
            raise OSError(_reason(error)) from error
        content = self._end - self._begin
        if not self._count or content <= 0:
            raise OSError("no frames")
        self.fps = self._count / content
        self.duration = header if header > content + SLACK else content
        self.frames = round(self.duration * self.fps)

    def count(self) -> int:
        """The exact number of frames."""
        return self._count

    def close(self) -> None:
        """Close the file."""
        self._decoder = None

    def read_at(self, times: Sequence[float]) -> NDArray[np.uint8]:
        """The frames on screen at ascending `times`."""
        content = self._end - self._begin
        if times[-1] > content + SLACK:
            raise self.ends_early(content)
        last = self._end - min(1e-6, content / 2)
        at = [min(max(self._begin, time + self._begin + ROUNDING), last) for time in times]
        try:
            return self._convert(self._decoder.get_frames_played_at(at).data)
        except _ERRORS as error:
            raise OSError(_reason(error)) from error

    def read_run(self, start: float, count: int, stride: int = 1) -> NDArray[np.uint8]:
        """`count` frames, every `stride`-th one, from the one on screen at `start`."""
        need = (count - 1) * stride + 1
        content = self._end - self._begin
        if self._count < need or start > content + SLACK:
            raise self.ends_early(content) if self.duration > content else self.too_short(self._count, need)
        final = self._count - need
        time = start + self._begin + ROUNDING
        index, low, high = min(int((start + ROUNDING) * self.fps), final), 0, final
        # The average rate finds the frame at once where the rate is constant, else after a few tries.
        while True:
            # A frame stands until the next one comes; the durations that files give are often wrong.
            wanted = list(range(index, index + need, stride))
            extra = index + 1 < self._count and index + 1 not in wanted[1:2]
            try:
                frames = self._decoder.get_frames_at([index, index + 1, *wanted[1:]] if extra else wanted)
            except _ERRORS as error:
                raise OSError(_reason(error)) from error
            shown = float(frames.pts_seconds[0])
            if time < shown:
                high = index - 1
            elif index + 1 < self._count and time >= float(frames.pts_seconds[1]):
                low = index + 1
            else:
                low = high = index
            if low >= high and (low == index or low > high):
                data = frames.data
                return self._convert(torch.cat([data[:1], data[2:]]) if extra else data)
            guess = index + int(np.floor((time - shown) * self.fps))
            index = min(max(guess, low), high) if guess != index else (low + high) // 2

    def _convert(self, frames: Any) -> NDArray[np.uint8]:
        height, width = self.reduced(*frames.shape[1:3])
        if (height, width) != tuple(frames.shape[1:3]):
            planes = frames.permute(0, 3, 1, 2)
            frames = interpolate(planes, (height, width), mode="bicubic", antialias=True).permute(0, 2, 3, 1)
        if self.channels == 1:
            grey = (frames.float() @ torch.tensor(_GREY)).round_()[..., None]
            frames = grey.to(torch.uint8)
        return frames.contiguous().numpy()


def _reason(error: BaseException) -> str:
    text = str(error)
    if "best video stream is unknown" in text:
        return "no video stream"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
