"""Images to patches."""

from __future__ import annotations

from torch import Tensor

from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.modality import Batch, Tokenizer
from jepa_lightning.tokens import Tokens


def patchify(image: Tensor, patch: tuple[int, int]) -> Tensor:
    """Cut (B, C, H, W) into (B, N, C, h, w) patches in raster order; H and W must be multiples of h and w."""
    batch, channels, height, width = image.shape
    rows, columns = height // patch[0], width // patch[1]
    cut = image.view(batch, channels, rows, patch[0], columns, patch[1])
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, channels, *patch)


class PatchTokenizer(Tokenizer):
    """Cuts images of one size into a grid of patches; positions are (row, column) counted in patches.

    Args:
        image_size: (height, width) in pixels.
        patch_size: (height, width) in pixels; must divide the image's.
        channels: number of channels.
    """

    def __init__(self, *, image_size: tuple[int, int], patch_size: tuple[int, int], channels: int) -> None:
        super().__init__()
        for axis, size, patch in zip(("height", "width"), image_size, patch_size, strict=True):
            if patch < 1 or size < patch:
                raise ValueError(f"an image of {axis} {size} is smaller than a patch of {patch}: lower patch_size")
            if size % patch:
                raise ValueError(
                    f"an image of {axis} {size} is not a whole number of patches of {patch}: "
                    f"use image_size {size // patch * patch} or another patch_size"
                )
        self.shape = (channels, *image_size)
        self.patch_size = patch_size
        self.grid = (image_size[0] // patch_size[0], image_size[1] // patch_size[1])

    def forward(self, batch: Batch) -> Tokens:
        """Tokens with values (B, N, C, h, w) from `batch["image"]` (B, C, H, W)."""
        image = batch.get("image")
        if image is None:
            raise ValueError(f"an image batch needs the key 'image', this one has {sorted(batch)}: check the data")
        if tuple(image.shape[1:]) != self.shape:
            raise ValueError(
                f"expected images of (channels, height, width) {self.shape}, got {tuple(image.shape[1:])}: "
                "make the modality's image_size and channels those of the data"
            )
        positions = grid_positions(self.grid, image.device)
        return Tokens(values=patchify(image, self.patch_size), positions=positions, grid=self.grid)
