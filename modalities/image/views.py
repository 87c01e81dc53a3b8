"""Views of images."""

from __future__ import annotations

from torch import Tensor

from jepa_lightning.data import Sample
from jepa_lightning.data.pixels import PixelViews
from modalities.image.transforms import RandomCrop, standard


class ImageViews(PixelViews):
    """Views of images: a random resized crop, a flip, colour jitter, grey, blur and solarisation.

    Example:
        ```yaml
        data:
          class_path: ImageData
          init_args:
            views: 8
            view_transform: {class_path: ImageViews, init_args: {local_views: 6, local_size: 48, scale: [0.3, 1.0]}}
        ```
    """

    name = "image"

    def __call__(self, sample: Sample, view: int = 0) -> Sample:
        """The sample with its `image` as one view: a tensor (C, H, W), uint8 or float32."""
        image = standard(sample["image"], self.channels)
        if isinstance(image, Tensor):
            self.check(image)
        size, scale = self.crop(view)
        crop = RandomCrop(size, channels=self.channels, scale=scale, ratio=self.ratio, flip=self.flip)
        sample = crop({**sample, "image": image})
        return {**sample, "image": self.change(sample["image"], view)}
