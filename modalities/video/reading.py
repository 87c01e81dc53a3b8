"""Opening video files: which decoder reads them."""

from __future__ import annotations

import functools
import importlib
from typing import Literal

from jepa_lightning.data import Encoded
from modalities.video.reader import VideoReader

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
    """The class that `open_video` uses for `decoder`; found out once a process.

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
