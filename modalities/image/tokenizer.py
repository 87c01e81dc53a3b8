"""Images to patches."""

from __future__ import annotations

from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.modality import Batch, Tokenizer
from jepa_lightning.patches import patch_grid, patchify
from jepa_lightning.tokens import Tokens


class PatchTokenizer(Tokenizer):
    """Cuts images of one size into a grid of patches; positions are (row, column) counted in patches.

    Args:
        image_size: (height, width) in pixels.
        patch_size: (height, width) in pixels; must divide the image's.
        channels: number of channels.
        any_size: also take images of any other size that the patch divides (local views).
    """

    def __init__(
        self, *, image_size: tuple[int, int], patch_size: tuple[int, int], channels: int, any_size: bool = False
    ) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be at least 1, got {channels}")
        self.shape = (channels, *image_size)
        self.patch_size = patch_size
        self.any_size = any_size
        axes = {"height": "image_size", "width": "image_size"}
        self.grid = patch_grid(image_size, patch_size, what="an image", axes=axes)

    def forward(self, batch: Batch) -> Tokens:
        """Tokens with values (B, N, C, h, w) from `batch["image"]` (B, C, H, W)."""
        image = batch.get("image")
        if image is None:
            raise ValueError(f"an image batch needs the key 'image', this one has {sorted(batch)}: check the data")
        grid = self.grid
        if tuple(image.shape[1:]) != self.shape:
            if not self.any_size or image.shape[1] != self.shape[0]:
                raise ValueError(
                    f"expected images of (channels, height, width) {self.shape}, got {tuple(image.shape[1:])}: make "
                    "the modality's image_size and channels those of the data, or set its any_size for local views"
                )
            axes = {"height": "local_size", "width": "local_size"}
            grid = patch_grid((image.shape[2], image.shape[3]), self.patch_size, what="an image", axes=axes)
        if not image.is_floating_point():
            raise ValueError(
                f"expected images as normalised floats, got {image.dtype}: use ImageData, or normalise them yourself"
            )
        positions = grid_positions(grid, image.device)
        return Tokens(values=patchify(image, self.patch_size), positions=positions, grid=grid)
