"""Video files by PyAV, which brings FFmpeg with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from jepa_lightning.data import Encoded
from modalities.video.reader import ROUNDING, SLACK, VideoReader

_FORMATS = {1: "gray", 3: "rgb24"}
_UNINDEXED = ("mpeg", "mpegts", "mpegvideo", "h264", "hevc", "m4v")  # formats whose header guesses the duration
_ERRORS = (av.FFmpegError, ValueError, EOFError, MemoryError)


class PyAVReader(VideoReader):
    """A video file, read by PyAV.

    Frames of AVI, MPEG and raw files, whose times are missing, those of decoding or guessed, are counted instead.
    """

    def __init__(self, path: str | Encoded, *, channels: int = 3, smallest: int = 0, threads: int = 1) -> None:
        super().__init__(path, channels=channels, smallest=smallest, threads=threads)
        self._container, self._stream = self._open()
        try:
            self._examine()
        except BaseException:
            self.close()
            raise

    def _open(self) -> tuple[Any, Any]:
        try:
            file = self.path.open() if isinstance(self.path, Encoded) else self.path
            container = av.open(file, metadata_errors="replace")
        except _ERRORS as error:
            raise OSError(_reason(error)) from error
        # The cover of a piece of music is a stream too.
        streams = [s for s in container.streams.video if not s.disposition & type(s.disposition).attached_pic]
        if not streams:
            container.close()
            raise OSError("no video stream")
        stream = streams[0]
        context = stream.codec_context
        if context is None:
            container.close()
            raise OSError("no decoder for the video stream")
        context.thread_count = self.threads
        context.thread_type = "AUTO" if self.threads > 1 else "SLICE"
        return container, stream

    def _examine(self) -> None:
        stream, container = self._stream, self._container
        self._times: NDArray[np.float64] | None = None
        self._used = False
        self._size: tuple[int, int] | None = None
        names = set(container.format.name.split(","))
        # A seek in a file without an index lands anywhere, and frames that refer to others come out damaged.
        self._seeks = not names & set(_UNINDEXED)
        self._counts = "avi" in names or not self._seeks
        self._unit = float(stream.time_base or 0) or 1e-6
        self._origin = 0.0 if self._counts else (stream.start_time or 0) * self._unit
        rate = float(stream.average_rate or 0)
        duration = 0.0
        if self._seeks:
            duration = float(stream.duration or 0) * self._unit or _tagged(stream.metadata.get("DURATION", ""))
            duration = duration or (container.duration or 0) / av.time_base
        if duration <= 0 or rate <= 0:
            # The rate of a stream without times is what its own headers say.
            self.fps = float(stream.guessed_rate or 0) or rate or 25.0
            times = self._scan()
            if not len(times):
                raise OSError("no frames")
            last = float(np.median(np.diff(times))) if len(times) > 1 else 1 / self.fps
            duration = float(times[-1]) + (last if last > 0 else 1 / self.fps)
            self.frames = len(times)
        else:
            self.frames = stream.frames or max(1, round(duration * rate))
        self.duration = duration
        self.fps = rate if rate and not stream.frames else self.frames / duration

    def count(self) -> int:
        """The exact number of frames."""
        if self._stream.frames and self._times is None:
            return int(self._stream.frames)
        return len(self._scan())

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def read_at(self, times: Sequence[float]) -> NDArray[np.uint8]:
        """The frames on screen at ascending `times`."""
        kept: list[NDArray[np.uint8]] = []
        shown: tuple[float, Any] | None = None
        for time, frame in self._from(times[0]):
            shown = shown or (time, frame)  # before the first frame, that one
            before = len(kept)
            while len(kept) < len(times) and times[len(kept)] + ROUNDING < time:
                kept.append(self._convert(shown[1]) if len(kept) == before else kept[-1])
            if len(kept) == len(times):
                return np.stack(kept)
            shown = time, frame
        end = self._end(shown)
        if shown is None or times[-1] > end + SLACK:
            raise self.ends_early(end)
        last = self._convert(shown[1])
        return np.stack(kept + [last] * (len(times) - len(kept)))

    def read_run(self, start: float, count: int, stride: int = 1) -> NDArray[np.uint8]:
        """`count` frames, every `stride`-th one, from the one on screen at `start`."""
        need = (count - 1) * stride + 1
        kept = self._run(start, count, stride)
        if len(kept) < count:
            times = self._scan()
            end = float(times[-1]) + 1 / self.fps if len(times) else 0.0
            if end + SLACK < self.duration:
                raise self.ends_early(end)
            if len(times) < need:
                raise self.too_short(len(times), need)
            kept = self._run(float(times[len(times) - need]), count, stride)
        if len(kept) < count:
            raise OSError(f"{len(self._scan())} frames in the file, but some cannot be decoded")
        return np.stack(kept)

    def _run(self, start: float, count: int, stride: int) -> list[NDArray[np.uint8]]:
        kept: list[NDArray[np.uint8]] = []
        previous: Any = None
        seen = 0  # frames of the run before `previous`
        for time, frame in self._from(start):
            if previous is not None and (seen or time > start + ROUNDING):
                if seen % stride == 0:
                    kept.append(self._convert(previous))
                    if len(kept) == count:
                        return kept
                seen += 1
            previous = frame
        if previous is not None and seen % stride == 0:
            kept.append(self._convert(previous))
        return kept

    def _from(self, start: float) -> Iterator[tuple[float, Any]]:
        """Time and frame, from a keyframe at or before `start` on; a seek that lands too late is tried further back."""
        back = 0.0
        while True:
            frames = self._decode(start - back)
            first = next(frames, None)
            if start - back <= 0 or (first is not None and first[0] <= start + ROUNDING):
                break
            back = max(1.0, 2 * back)
        if first is not None:
            yield first
            yield from frames

    def _decode(self, start: float) -> Iterator[tuple[float, Any]]:
        self._rewind(start)
        base, number, last, failed = 0.0, 0, -np.inf, None
        try:
            for packet in self._container.demux(self._stream):
                if number == 0 and self._seeks and packet.dts is not None and failed is None and last == -np.inf:
                    base, last = packet.dts * self._unit, -1e9
                try:
                    frames = packet.decode()
                except _ERRORS as error:
                    if number:
                        raise
                    failed = error  # a seek may land between keyframes
                    continue
                for frame in frames:
                    if self._counts or frame.pts is None:
                        time = base * self._counts + number / self.fps
                    else:
                        time = frame.pts * self._unit - self._origin
                    if time < last - ROUNDING:
                        raise OSError(f"frame times run backwards at {last:.1f} s")
                    number, last = number + 1, time
                    yield time, frame
        except _ERRORS as error:
            raise OSError(f"{_reason(error)} after {max(last, 0):.1f} s") from error
        if failed is not None and not number and start <= 0:
            raise OSError(_reason(failed)) from failed

    def _rewind(self, start: float) -> None:
        """Bring the file to a keyframe before `start`, or to its beginning."""
        used, self._used = self._used, True
        if start > 0 and self._seeks:
            try:
                self._container.seek(round((start + ROUNDING + self._origin) / self._unit), stream=self._stream)
                return
            except _ERRORS:
                used = True
        if used:
            self.close()
            self._container, self._stream = self._open()

    def _scan(self) -> NDArray[np.float64]:
        """Times of all frames, ascending, from the packets, without decoding."""
        if self._times is None:
            container, stream = self._open()
            stamps = []
            try:
                for packet in container.demux(stream):
                    if packet.size and not packet.is_discard:
                        stamps.append(packet.dts if packet.pts is None else packet.pts)
            except _ERRORS as error:
                raise OSError(_reason(error)) from error
            finally:
                container.close()
            if self._counts or any(stamp is None for stamp in stamps):
                # Without times, neither can be sought: frames are counted from the beginning.
                self._seeks = self._seeks and self._counts
                self._counts = True
                self._times = np.arange(len(stamps)) / self.fps
            else:
                self._times = np.sort(np.array(stamps, dtype=np.float64)) * self._unit - self._origin
        return self._times

    def _end(self, shown: tuple[float, Any] | None) -> float:
        if shown is None:
            return 0.0
        return shown[0] + max((getattr(shown[1], "duration", 0) or 0) * self._unit, 1 / self.fps)

    def _convert(self, frame: Any) -> NDArray[np.uint8]:
        if self._size is None:  # a later change of size in the file is undone
            self._size = self.reduced(frame.height, frame.width)
        height, width = self._size
        try:
            pixels = frame.to_ndarray(format=_FORMATS[self.channels], width=width, height=height, interpolation="AREA")
        except _ERRORS as error:
            raise OSError(_reason(error)) from error
        turned = np.rot90(pixels.reshape(height, width, self.channels), round(frame.rotation / 90) % 4)
        return np.ascontiguousarray(turned)


def _tagged(text: str) -> float:
    """Seconds in Matroska's tag "00:00:01.666000000"; 0 for any other text."""
    try:
        hours, minutes, seconds = map(float, text.split(":"))
    except ValueError:
        return 0.0
    return 3600 * hours + 60 * minutes + seconds


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
