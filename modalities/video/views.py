"""Views of videos."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from jepa_lightning.data import Sample
from jepa_lightning.data.pixels import PixelViews
from modalities.video.clips import ClipSampler
from modalities.video.transforms import RandomCrop, TakeClips


class VideoViews(PixelViews):
    """Views of videos: a clip at a random time, augmented as `ImageViews` does, alike in all of its frames.

    Each view has a clip of its own. Of a video file, each view decodes its clip and no more.

    Example:
        ```yaml
        data:
          class_path: VideoData
          init_args: {views: 2, view_transform: {class_path: VideoViews, init_args: {scale: [0.3, 1.0], solarise: 0.0}}}
        ```
    """

    name = "video"
    sampler: ClipSampler

    def configure(self, data: Any) -> None:
        """Take the clips' length and size from the data module."""
        super().configure(data)
        self.sampler = data.sampler(data.or_model("frames", data.frames))

    def __call__(self, sample: Sample, view: int = 0) -> Sample:
        """The sample with its `video` as one clip (C, T, H, W), uint8 or float32."""
        return TakeClips(self.sampler, _Augment(self, view), clips=None)(dict(sample))


class _Augment(RandomCrop):
    """Crops the frames of a clip and changes their colours."""

    def __init__(self, settings: VideoViews, view: int) -> None:
        size, scale = settings.crop(view)
        super().__init__(size, channels=settings.channels, scale=scale, ratio=settings.ratio, flip=settings.flip)
        self.settings = settings
        self.view = view

    def __call__(self, clip: Tensor) -> Tensor:
        """(T, C, H, W) to (T, C, *size)."""
        self.settings.check(clip)
        return self.settings.change(super().__call__(clip), self.view)
