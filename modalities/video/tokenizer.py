"""Clips to tubelets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.modality import Batch, Tokenizer
from jepa_lightning.patches import patch_grid, patchify
from jepa_lightning.tokens import Tokens


class TubeletTokenizer(Tokenizer):
    """Cuts clips of one size into a grid of tubelets; positions are (time, row, column) counted in tubelets.

    Clips of whole numbers (uint8) are scaled to 0-1 and normalised here, on the training device: as bytes they travel
    from the loader at a quarter of the size. Clips of floats are taken as they are.

    Args:
        frames: frames of a clip; 1 for still images.
        image_size: (height, width) in pixels.
        tubelet: frames of a tubelet; must divide `frames`.
        patch_size: (height, width) of a tubelet in pixels; must divide the image's.
        channels: number of channels.
        mean: of each channel, for values from 0 to 1.
        std: likewise.
    """

    def __init__(
        self,
        *,
        frames: int,
        image_size: tuple[int, int],
        tubelet: int,
        patch_size: tuple[int, int],
        channels: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be at least 1, got {channels}")
        for name, values in (("mean", mean), ("std", std)):
            if len(values) != channels:
                raise ValueError(f"expected {name} with one value for each of {channels} channels, got {list(values)}")
        if not all(0 < value < math.inf for value in std) or not all(map(math.isfinite, mean)):
            raise ValueError(
                f"expected std above 0 and finite means for each channel, got std {list(std)} and mean {list(mean)}"
            )
        self.shape = (channels, frames, *image_size)
        self.tubelet = (tubelet, *patch_size)
        axes = {"frames": "frames", "height": "image_size", "width": "image_size"}
        self.grid = patch_grid((frames, *image_size), self.tubelet, what="a clip", axes=axes)
        scale = [1 / (255 * s) for s in std]
        self.register_buffer("scale", torch.tensor(scale).view(-1, 1, 1, 1), persistent=False)
        shift = [-m / s for m, s in zip(mean, std, strict=True)]
        self.register_buffer("shift", torch.tensor(shift).view(-1, 1, 1, 1), persistent=False)

    def forward(self, batch: Batch) -> Tokens:
        """Tokens with values (B, N, C, t, h, w) from `batch["video"]` (B, C, T, H, W)."""
        video = batch.get("video")
        if video is None:
            raise ValueError(f"a video batch needs the key 'video', this one has {sorted(batch)}: check the data")
        if tuple(video.shape[1:]) != self.shape:
            raise ValueError(
                f"expected clips of (channels, frames, height, width) {self.shape}, got {tuple(video.shape[1:])}: "
                "make the modality's frames, image_size and channels those of the data"
            )
        if not video.is_floating_point():
            video = video * self.scale + self.shift
        positions = grid_positions(self.grid, video.device)
        return Tokens(values=patchify(video, self.tubelet), positions=positions, grid=self.grid)
