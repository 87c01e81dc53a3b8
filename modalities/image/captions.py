"""Generated images with captions that say what is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_lightning.data.generation import sample_rng
from modalities.image.generated import SHAPES, GeneratedImages

_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
_LARGE = 0.275  # radius from which on a shape is large
_SAID = 0.8  # share of captions that say the size, and of those that say the place


class CaptionedImages(GeneratedImages):
    """`GeneratedImages` with a caption of each: what shape, how large and where, on stripes of which direction.

    The shape and the stripes are always named, size and place in four of five captions each, in one of two orders.
    Caption i depends on the seed, the split and i alone. Several images may have the same caption.

    Args:
        samples: number of images.
        image_size: see `GeneratedImages`.
        channels: likewise.
        seed: of the set.
        split: "train", "val" or "test".

    A sample is that of `GeneratedImages` with `text`.

    Examples:
        >>> from modalities.image import CaptionedImages
        >>> CaptionedImages(16, image_size=32, seed=1)[0]["text"]
        'a small frame on stripes at 157.5 degrees'
    """

    def __init__(
        self,
        samples: int = 8000,
        *,
        image_size: int | tuple[int, int] = 64,
        channels: int = 3,
        seed: int = 0,
        split: str = "train",
    ) -> None:
        super().__init__(samples, image_size=image_size, channels=channels, seed=seed, split=split)
        self.draws = np.stack([sample_rng(seed, split, index).random(3) for index in range(samples)])

    @property
    def input_shape(self) -> None:  # type: ignore[override]
        """None: samples are not taken many at once."""
        return None

    def take(self, indices: NDArray[np.int64]) -> dict[str, Any]:
        """Images (B, H, W, C), labels and a list of captions of many samples."""
        return {**super().__getitem__(indices), "text": [self.caption(int(i)) for i in indices]}  # type: ignore[index]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**super().__getitem__(index), "text": self.caption(index)}

    def caption(self, index: int) -> str:
        """Say what is drawn in image `index`."""
        size, place, order = self.draws[index]
        shape = list(SHAPES)[self.shapes[index]]
        if shape == "bars":
            what = "two bars"
        else:
            what = f"{'large' if self.sizes[index] >= _LARGE else 'small'} {shape}" if size < _SAID else shape
            what = f"a {what}"
        if place < _SAID:
            row, column = np.minimum((self.positions[index] * 3).astype(int), 2)
            what += f" in the {_ROWS[row]} {_COLUMNS[column]}"
        stripes = f"stripes at {self.classes[self.targets[index]]}"
        return f"{what} on {stripes}" if order < 0.5 else f"{stripes} behind {what}"
