"""Video files, and clips that lie in a NumPy archive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jepa_lightning.data import ArchiveSamples, DataError, Encoded, FileList, FileSet, find_files
from modalities.video.reader import VideoReader
from modalities.video.reading import Decoder, open_video, reader_class

EXTENSIONS = (
    *(".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv"),
    *(".gif", ".h264", ".ts", ".mts", ".m2ts", ".vob", ".asf", ".qt", ".3g2", ".f4v", ".divx", ".mpe", ".m2v", ".mpv"),
    *(".mjpeg", ".mjpg", ".h265", ".hevc", ".y4m", ".mxf"),
)
"""File name endings of videos in folders, in any case."""


def find_videos(root: str | None, *, csv: str | None = None, labels: list[str] | None = None) -> dict[str, FileList]:
    """Find the video files under a folder, or in a CSV file, by split; see `jepa_lightning.data.find_files`."""
    return find_files(root, kind="video", extensions=EXTENSIONS, csv=csv, labels=labels)


@dataclass(frozen=True)
class VideoFile:
    """A video file, on disk or in memory, that is yet to be read, and how; see `open_video`."""

    path: str | Encoded
    decoder: Decoder = "auto"
    channels: int = 3
    smallest: int = 0
    threads: int = 1

    def open(self) -> VideoReader:
        """Open a reader of the file, to be used in a `with` statement.

        Raises:
            OSError: the file cannot be read.
        """
        return open_video(
            self.path,
            decoder=self.decoder,
            channels=self.channels,
            smallest=self.smallest,
            threads=self.threads,
        )


def check_reading(decoder: Decoder, *, channels: int) -> None:
    """Check that video files can be read at all.

    Raises:
        DataError: another number of channels than 1 or 3, or no decoder is installed.
    """
    if channels not in (1, 3):
        raise DataError(f"expected 1 (grey) or 3 (RGB) channels for video files, got {channels}")
    try:
        reader_class(decoder)
    except (ImportError, ValueError) as error:
        raise DataError(str(error)) from error


class VideoFiles(FileSet):
    """The video files of one split, as dicts: `video` (a `VideoFile`, not opened), and `labels`.

    Which frames are read is the transform's business: it differs between training and evaluation.

    Args:
        files: where they lie, and their labels.
        decoder: see `open_video`.
        channels: 3 (RGB) or 1 (grey).
        smallest: see `VideoReader`; 0 leaves frames in their size.
        threads: decoding threads of each worker.

    Raises:
        DataError: values out of range, or no decoder is installed.
    """

    key = "video"

    def __init__(
        self,
        files: FileList,
        *,
        decoder: Decoder = "auto",
        channels: int = 3,
        smallest: int = 0,
        threads: int = 1,
    ) -> None:
        super().__init__(files)
        check_reading(decoder, channels=channels)
        self.settings: dict[str, Any] = {
            "decoder": decoder,
            "channels": channels,
            "smallest": smallest,
            "threads": threads,
        }

    def value(self, index: int) -> VideoFile:
        """Give video `index`, not opened yet."""
        return VideoFile(self.files.regular(index), **self.settings)


class ArrayClips(ArchiveSamples):
    """Clips and labels from a .npz file (`ArchiveSamples`), uint8 or float.

    Examples:
        >>> import numpy as np
        >>> from modalities.video import ArrayClips
        >>> np.savez("clips.npz", clips=np.zeros((8, 4, 16, 16, 3), np.uint8), label=np.arange(8) % 2)
        >>> clips = ArrayClips("clips.npz")
        >>> len(clips), int(clips[1]["labels"]["label"])
        (8, 1)
    """

    key = "video"
    names = ("video", "videos", "frames", "clips")
    shapes = {4: "(N, T, H, W)", 5: "(N, T, H, W, C)"}  # noqa: RUF012
