"""Reading videos: which decoder opens a file, and which of its frames make a clip."""

from __future__ import annotations

import functools
import importlib
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from jepa_lightning.data import DataError, Encoded
from modalities.video.reader import ROUNDING, VideoReader

Decoder = Literal["auto", "pyav", "torchcodec"]

_PYAV_ONLY = (".avi", ".mpg", ".mpeg", ".h264")  # torchcodec misplaces frames without times, or fails


def open_video(
    path: str | Encoded, *, decoder: Decoder = "auto", channels: int = 3, smallest: int = 0, threads: int = 1
) -> VideoReader:
    """Open a video file.

    Args:
        path: the file, or one that is in memory.
        decoder: "pyav", "torchcodec", or "auto": torchcodec where it can be imported (it needs FFmpeg's libraries on
            the system), else PyAV. For AVI, MPEG and raw streams "auto" prefers PyAV, which places their frames right.
        channels: 3 (RGB) or 1 (grey).
        smallest: see `VideoReader`.
        threads: decoding threads.

    Raises:
        OSError: the file cannot be read; the message is a short reason.
        ImportError: the decoder is not installed.
    """
    name = path.name if isinstance(path, Encoded) else path
    if decoder == "auto" and name.lower().endswith(_PYAV_ONLY) and _imports("av"):
        decoder = "pyav"
    reader = reader_class(decoder)
    return reader(path, channels=channels, smallest=smallest, threads=threads)


@functools.cache
def _imports(package: str) -> bool:
    try:
        importlib.import_module(package)
    except Exception:
        return False
    return True


@functools.cache
def reader_class(decoder: Decoder) -> type[VideoReader]:
    """Find the class that `open_video` uses for `decoder`; found out once a process.

    Raises:
        ImportError: the decoder, or with "auto" every decoder, cannot be imported.
        ValueError: no such decoder.
    """
    if decoder not in ("auto", "pyav", "torchcodec"):
        raise ValueError(f"expected decoder to be auto, pyav or torchcodec, got {decoder!r}")
    reasons = []
    for name, package in (("torchcodec", "torchcodec.decoders"), ("pyav", "av")):
        if decoder not in ("auto", name):
            continue
        try:
            importlib.import_module(package)
        except Exception as error:  # torchcodec raises RuntimeError, OSError or others where FFmpeg does not fit
            reasons.append(f"{name}: {(str(error).strip() or type(error).__name__).splitlines()[0]}")
            continue
        if name == "torchcodec":
            from modalities.video.torchcodec_reader import TorchCodecReader

            return TorchCodecReader
        from modalities.video.pyav_reader import PyAVReader

        return PyAVReader
    raise ImportError(f'reading videos needs: pip install "jepa-lightning[video]" ({"; ".join(reasons)})')


class ClipSampler:
    """Take clips of a fixed number of frames from videos of any length.

    Args:
        frames: frames a clip.
        stride: every `stride`-th frame of the file; 1 where neither this nor `fps` is given.
        fps: frames a second of the clip instead, whatever the file's own rate: those on screen at start + i / fps.
        short: what to do with a video shorter than the clip: "loop" plays it again from its first frame as often as is
            needed, "refuse" makes it an unreadable one.

    Raises:
        ValueError: values out of range, or both `stride` and `fps`.
    """

    def __init__(
        self,
        *,
        frames: int,
        stride: int | None = None,
        fps: float | None = None,
        short: Literal["loop", "refuse"] = "loop",
    ) -> None:
        if frames < 1:
            raise ValueError(f"expected clips of at least 1 frame, got {frames}")
        if stride is not None and fps is not None:
            raise ValueError(f"expected stride or fps, got both ({stride} and {fps:g}): leave one out")
        if stride is not None and stride < 1:
            raise ValueError(f"expected a stride of at least 1 frame, got {stride}")
        if fps is not None and not 0 < fps < float("inf"):
            raise ValueError(f"expected fps above 0, got {fps:g}")
        if short not in ("loop", "refuse"):
            raise ValueError(f"expected short to be loop or refuse, got {short!r}")
        self.frames = frames
        self.stride = stride or 1
        self.fps = fps
        self.short = short

    def read(self, reader: VideoReader, *, start: float) -> NDArray[np.uint8]:
        """Read a clip (T, H, W, C).

        Args:
            reader: the open video.
            start: where it begins, as a share (0 to 1) of the starts that leave room for it; 0.5 is the middle.

        Raises:
            OSError: the video cannot be read, or is too short and to be refused.
        """
        return self._by_rate(reader, start) if self.fps is not None else self._by_stride(reader, start)

    def frames_of(self, have: int, *, start: float) -> NDArray[np.int64]:
        """Choose which of `have` frames make a clip, for clips that lie in memory; see `read`.

        Raises:
            OSError: there are too few, and they are to be refused.
            DataError: the clip is asked for by rate, which is not known here.
        """
        if self.fps is not None:
            raise DataError(
                "expected stride in place of fps for clips without a frame rate (arrays, tensors): set stride"
            )
        need = (self.frames - 1) * self.stride + 1
        steps = np.arange(self.frames) * self.stride
        if have >= need:
            return round(start * (have - need)) + steps
        if self.short == "refuse" or not have:
            raise OSError(f"{have} frames, the clip needs {need}")
        return steps % have

    def _by_stride(self, reader: VideoReader, start: float) -> NDArray[np.uint8]:
        need = (self.frames - 1) * self.stride + 1
        # Headers may be wrong about the number by a little, so that near the limit it is counted.
        have = reader.frames if reader.frames > 2 * need else reader.count()
        wanted = self.frames_of(have, start=start)
        if have >= need:
            return reader.read_run(int(wanted[0]) / reader.fps, self.frames, self.stride)
        return reader.read_run(0.0, have, 1)[wanted]

    def _by_rate(self, reader: VideoReader, start: float) -> NDArray[np.uint8]:
        assert self.fps is not None  # for the type checker
        offsets = np.arange(self.frames) / self.fps
        room = reader.duration - 1 / reader.fps - offsets[-1]  # the last time is that of the last frame, or before
        if room >= -ROUNDING:
            return reader.read_at((max(room, 0.0) * start + offsets).tolist())
        if self.short == "refuse":
            raise OSError(
                f"{reader.duration:.2f} s ({reader.frames} frames), the clip needs {self.frames} frames at "
                f"{self.fps:g} a second"
            )
        times = offsets % reader.duration
        order = np.argsort(times, kind="stable")
        clip = reader.read_at(times[order].tolist())
        return clip[np.argsort(order, kind="stable")]
