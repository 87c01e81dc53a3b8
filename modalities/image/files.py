"""Image files and images in NumPy archives; small sets are kept in memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from jepa_lightning.data import ArchiveSamples, DataError, FileList, MemoryCache, find_files
from modalities.image.reading import EXTENSIONS, MAX_PIXELS, MODES, read_image
from modalities.image.values import Values, values_of

_log = logging.getLogger(__name__)


class FolderImages(Dataset[Any]):
    """The images of one split.

    Args:
        files: where they lie, and their labels.

    Raises:
        DataError: .npy files among image files.
    """

    def __init__(self, files: FileList) -> None:
        _check_kinds(files)
        self.files = files
        self.targets = files.targets
        self.classes = files.classes
        self.channels = 3
        self.smallest = 0
        self.max_pixels = MAX_PIXELS
        self.values: Values | None = None
        self.unreadable: dict[int, str] = {}
        self._cache: MemoryCache | None = None

    def __len__(self) -> int:
        return len(self.files)

    def path(self, index: int) -> str:
        """Full path of file `index`."""
        return self.files.path(index)

    def sample_id(self, index: int) -> str:
        """Path of file `index`, from the folder that holds `root` on, or as the CSV file has it."""
        return self.files.sample_id(index)

    def look(self) -> Values | None:
        """The range of values of up to 64 of the images; None where all are of 8 bits, or are .npy files."""
        return None if self.arrays else values_of(self._deep())

    def _deep(self) -> Iterator[NDArray[Any]]:
        colours = 0
        for index in np.linspace(0, len(self) - 1, min(64, len(self))).astype(int):
            try:
                with Image.open(self.path(index)) as image:
                    colours += ";16" in str(image.tile) and image.mode not in ("I;16", "I;16B", "I;16L", "I")
                    if image.mode.startswith("I") or image.mode == "F":
                        yield np.asarray(image)
            except Exception:  # a damaged file: met again, and reported, when it is read
                continue
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
        return self.path(0).lower().endswith(".npy")

    def read(self, index: int) -> NDArray[np.uint8] | Tensor:
        """Image `index` from its file."""
        return read_image(
            self.files.regular(index),
            channels=self.channels,
            smallest=self.smallest,
            max_pixels=self.max_pixels,
            values=self.values,
        )

    def __getitem__(self, index: int) -> Any:
        image = self.read(index) if self._cache is None else self._cache[index]
        labels = self.files.labels_of(index)
        return {"image": image, "labels": labels} if labels else image

    def decoded_bytes(self) -> float:
        """Estimate of the whole set's size in memory, from the headers of 64 files; infinite for .npy."""
        if self.arrays:
            return float("inf")  # reading these costs little, and their type may be any
        sizes = []
        for index in np.linspace(0, len(self) - 1, min(64, len(self))).astype(int):
            try:
                with Image.open(self.files.regular(index)) as image:
                    if self.smallest:
                        image.draft(None, (self.smallest, self.smallest))
                    sizes.append(image.width * image.height * self.channels)
            except Exception:  # a damaged header: met again, and reported, when the file is read
                continue
        return float(np.mean(sizes)) * len(self) if sizes else 0.0

    def cache(self) -> None:
        """Decode every image into memory; those that cannot be read are listed in `unreadable`."""
        self._cache = MemoryCache(len(self), lambda index: np.asarray(self.read(index)))
        self.unreadable = self._cache.unreadable


def find_images(
    root: str | None, *, csv: str | None = None, labels: list[str] | None = None
) -> dict[str, FolderImages]:
    """The image sets under a folder, or in a CSV file, by split; see `jepa_lightning.data.find_files`.

    Raises:
        DataError: as `find_files`; or .npy files among image files.
    """
    found = find_files(root, kind="image", extensions=EXTENSIONS, csv=csv, labels=labels)
    return {split: FolderImages(files) for split, files in found.items()}


def _check_kinds(files: FileList) -> None:
    arrays = sum(files.path(index).lower().endswith(".npy") for index in range(len(files)))
    if 0 < arrays < len(files):
        raise DataError(
            f"expected either image files or .npy files in {files.root}, got {len(files) - arrays} and {arrays}: "
            "their values have different ranges, so keep one kind"
        )


class ArrayImages(ArchiveSamples):
    """Images and labels from a .npz file (`ArchiveSamples`): uint8, or float as it is.

    Example:
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
