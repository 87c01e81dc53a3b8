"""Image files and images in NumPy archives; small sets are kept in memory."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from jepa_lightning.data import ArchiveSamples, CachedFileSet, DataError, FileList, find_files
from jepa_lightning.names.printable import printable
from modalities.image.reading import EXTENSIONS, MAX_PIXELS, MODES, as_stored, is_wide, loses_bits, read_image
from modalities.image.values import Values, values_of

_log = logging.getLogger(__name__)


class ImageFiles(CachedFileSet):
    """The image files of one split, as dicts: `image` and `labels`.

    Args:
        files: where they lie, and their labels.

    Raises:
        DataError: .npy files among image files.
    """

    key = "image"

    def __init__(self, files: FileList) -> None:
        super().__init__(files)
        _check_kinds(files)
        self.channels = 3
        self.smallest = 0
        self.max_pixels = MAX_PIXELS
        self.values: Values | None = None

    def look(self) -> Values | None:
        """Look at the range of values of up to 64 of the images; None where all are of 8 bits, or are .npy files."""
        return None if self.arrays else values_of(self._deep())

    def _deep(self) -> Iterator[NDArray[Any]]:
        colours, several = 0, ""
        for index in self.spaced(self.examined):
            try:
                with Image.open(self.files.regular(index)) as image:
                    colours += loses_bits(image)
                    if getattr(image, "is_animated", False) and image.format != "MPO":  # a camera's, with previews
                        several = several or self.files.path(index)
                    if is_wide(image):
                        yield np.asarray(as_stored(image))
            except Exception:  # a damaged file: met again, and reported, when it is read
                continue
        if several:
            _log.warning(
                "of files that hold several images, such as %s, the first is read: store each image by itself",
                printable(several),
            )
        if colours:
            _log.warning("%s: of 16-bit colour images 8 bits are read; store them as .npy to keep all", self.files.root)

    def configure(
        self, *, channels: int, smallest: int, max_pixels: int = MAX_PIXELS, values: Values | None = None
    ) -> None:
        """Set how files are read (see `read_image`).

        Raises:
            DataError: image files cannot give that number of channels.
        """
        if channels not in MODES and not self.arrays:
            raise DataError(
                f"expected 1 (grey), 3 (RGB) or 4 (RGBA) channels for image files, got {channels}: "
                "set channels to one of these, or store the images as .npy arrays"
            )
        self.channels, self.smallest, self.max_pixels = channels, smallest, max_pixels
        self.values = values

    @property
    def arrays(self) -> bool:
        """Whether the files are .npy."""
        return self.files.path(0).lower().endswith(".npy")

    def read(self, index: int) -> NDArray[np.uint8] | Tensor:
        """Read image `index` from its file; errors as `read_image`."""
        return read_image(
            self.files.regular(index),
            channels=self.channels,
            smallest=self.smallest,
            max_pixels=self.max_pixels,
            values=self.values,
        )

    def bytes_of(self, index: int) -> float:
        """Estimate the size of image `index` in memory, from its header."""
        with Image.open(self.files.regular(index)) as image:
            if self.smallest:
                image.draft(None, (self.smallest, self.smallest))
            return float(image.width * image.height * self.channels)

    def bytes_in_memory(self) -> float:
        """Estimate the size of the whole set in memory; infinite for .npy files."""
        return math.inf if self.arrays else super().bytes_in_memory()  # reading these costs little, of any type


def find_images(root: str | None, *, csv: str | None = None, labels: list[str] | None = None) -> dict[str, ImageFiles]:
    """Find the image sets under a folder, or in a CSV file, by split; see `jepa_lightning.data.find_files`.

    Raises:
        DataError: as `find_files`; or .npy files among image files.
    """
    found = find_files(root, kind="image", extensions=EXTENSIONS, csv=csv, labels=labels)
    return {split: ImageFiles(files) for split, files in found.items()}


def _check_kinds(files: FileList) -> None:
    arrays = sum(files.path(index).lower().endswith(".npy") for index in range(len(files)))
    if 0 < arrays < len(files):
        raise DataError(
            f"expected either image files or .npy files in {files.root}, got {len(files) - arrays} and {arrays}: "
            "their values have different ranges, so keep one kind"
        )


class ArrayImages(ArchiveSamples):
    """Images and labels from a .npz file (`ArchiveSamples`): uint8, or float as it is.

    Examples:
        >>> import numpy as np
        >>> from modalities.image import ArrayImages
        >>> np.savez("images.npz", images=np.zeros((8, 28, 28), np.uint8), label=np.arange(8) % 2)
        >>> images = ArrayImages("images.npz")
        >>> len(images), int(images[1]["labels"]["label"])
        (8, 1)
    """

    key = "image"
    names = ("image", "imgs", "images")
    shapes = {3: "(N, H, W)", 4: "(N, H, W, C)"}  # noqa: RUF012
