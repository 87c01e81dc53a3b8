"""Data modules of images and clips: the size of their crops, and how small their files may be decoded."""

from __future__ import annotations

import math
from typing import ClassVar

from jepa_lightning.data.errors import DataError
from jepa_lightning.data.pixels import PixelViews
from jepa_lightning.data.sources.base import FileDataModule

DRAWN = 64  # longest side of generated images and clips, in pixels


class PictureDataModule(FileDataModule):
    """A data module of images or clips, of which training sees random crops.

    Attributes:
        ratio: range of the random crop's width over height.
        image_size: side, or (height, width), in pixels; None: the model's. A subclass's constructor takes it.
        crop_scale: range of the random crop's share of the area; likewise.
    """

    ratio: ClassVar[tuple[float, float]]
    image_size: int | tuple[int, int] | None
    crop_scale: tuple[float, float]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images in a batch."""
        size = self.or_model("image_size", self.image_size)
        height, width = (size, size) if isinstance(size, int) else size
        if min(height, width) < 1:
            raise DataError(f"expected image_size of at least 1 pixel, got {size}")
        return height, width

    @property
    def drawn_size(self) -> tuple[int, int]:
        """(height, width) of generated images: at most 64 pixels wide, which the crop enlarges, and at least 16."""
        height, width = self.size
        shrink = min(1.0, DRAWN / max(height, width))
        return max(16, round(height * shrink)), max(16, round(width * shrink))

    @property
    def smallest(self) -> int:
        """Short side, in pixels, to which larger images may be reduced as they are read: enough for any crop."""
        if isinstance(self.viewing, PixelViews):
            return self.viewing.smallest(self.size)
        return math.ceil(max(self.size) / math.sqrt(self.crop_scale[0] * self.ratio[0]))

    def check_crop_scale(self) -> None:
        """Check that `crop_scale` are two rising shares.

        Raises:
            DataError: they are not.
        """
        scale = self.crop_scale
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
            raise DataError(f"expected crop_scale as two rising shares from above 0 to 1, got {tuple(scale)}")
