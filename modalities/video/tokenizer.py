"""Clips to tubelets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.modality import Batch, Tokenizer
from jepa_lightning.patches import patch_grid, patchify
from jepa_lightning.tokens import Tokens


class TubeletTokenizer(Tokenizer):
    """Cuts clips of one size into a grid of tubelets; positions are (time, row, column) counted in tubelets.

    Clips of whole numbers (uint8) are scaled to 0-1 and normalised here, on the training device: as bytes they travel
    from the loader at a quarter of the size. Clips of floats are taken as they are.

    A single frame `video` (B, C, H, W) is a clip that stands still: it is repeated `frames` times. With `frames` and
    `tubelet` 2, V-JEPA 2's encoder so takes frames one by one, as V-JEPA 2-AC does (Assran et al. 2025,
    arXiv:2506.09985, section 3.1, which does not say how a frame fills a tubelet of two).

    With `images`, a batch may hold `image` (B, C, H, W) in place of `video`: clips of one frame, cut into patches of
    one frame, at the time 0 (V-JEPA 2.1, Mur-Labadia et al. 2026, arXiv:2603.14482).

    Args:
        frames: frames of a clip; 1 for still images.
        image_size: (height, width) in pixels.
        tubelet: frames of a tubelet; must divide `frames`.
        patch_size: (height, width) of a tubelet in pixels; must divide the image's.
        channels: number of channels.
        mean: of each channel, for values from 0 to 1.
        std: likewise.
        images: also take batches of images, of the same height, width and channels.

    Examples:
        >>> import torch
        >>> from modalities.video import TubeletTokenizer
        >>> settings = {"frames": 4, "image_size": (32, 32), "tubelet": 2, "patch_size": (8, 8), "channels": 1}
        >>> tokenizer = TubeletTokenizer(**settings, mean=[0.5], std=[0.25], images=True)
        >>> tokenizer({"video": torch.zeros(2, 1, 4, 32, 32)}).values.shape
        torch.Size([2, 32, 1, 2, 8, 8])
        >>> tokenizer({"image": torch.zeros(2, 1, 32, 32)}).values.shape
        torch.Size([2, 16, 1, 1, 8, 8])
    """

    scale: Tensor
    shift: Tensor

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
        images: bool = False,
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
        self.images = images
        self.tubelet = (tubelet, *patch_size)
        axes = {"frames": "frames", "height": "image_size", "width": "image_size"}
        self.grid = patch_grid((frames, *image_size), self.tubelet, what="a clip", axes=axes)
        scale = [1 / (255 * s) for s in std]
        self.register_buffer("scale", torch.tensor(scale).view(-1, 1, 1, 1), persistent=False)
        shift = [-m / s for m, s in zip(mean, std, strict=True)]
        self.register_buffer("shift", torch.tensor(shift).view(-1, 1, 1, 1), persistent=False)

    def forward(self, batch: Batch) -> Tokens:
        """Tokens with values (B, N, C, t, h, w) from `batch["video"]`, clips (B, C, T, H, W) or frames (B, C, H, W).

        Or with values (B, N, C, 1, h, w) from `batch["image"]` (B, C, H, W), where `images` is set.
        """
        video = batch.get("video")
        if video is None and self.images and "image" in batch:
            return self._of_images(batch["image"])
        if video is None:
            keys = "the key 'video', or 'image'" if self.images else "the key 'video'"
            raise ValueError(f"a video batch needs {keys}, this one has {sorted(batch)}: check the data")
        if tuple(video.shape[1:]) == (self.shape[0], *self.shape[2:]):
            video = video.unsqueeze(2).expand(-1, -1, self.shape[1], -1, -1)
        if tuple(video.shape[1:]) != self.shape:
            raise ValueError(
                f"expected clips of (channels, frames, height, width) {self.shape}, got {tuple(video.shape[1:])}: "
                "make the modality's frames, image_size and channels those of the data"
            )
        return self._cut(video, self.tubelet, self.grid)

    def _of_images(self, images: Tensor) -> Tokens:
        expected = (self.shape[0], *self.shape[2:])
        if tuple(images.shape[1:]) != expected:
            raise ValueError(
                f"expected images of (channels, height, width) {expected}, those of a frame, got "
                f"{tuple(images.shape[1:])}: make the image data's image_size and channels those of the modality"
            )
        return self._cut(images.unsqueeze(2), (1, *self.tubelet[1:]), (1, *self.grid[1:]))

    def _cut(self, clips: Tensor, patch: tuple[int, ...], grid: tuple[int, ...]) -> Tokens:
        if not clips.is_floating_point():
            clips = clips * self.scale + self.shift
        return Tokens(values=patchify(clips, patch), positions=grid_positions(grid, clips.device), grid=grid)
