"""Views of whole batches of images, on the device that trains."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jepa_lightning.data import colours
from jepa_lightning.data.batched import BatchTransform
from jepa_lightning.data.boxes import DRAWS, random_boxes
from jepa_lightning.data.resample import crop_and_resize
from jepa_lightning.data.views import view_seeds
from jepa_lightning.modality import Batch
from jepa_lightning.randomness import uniforms
from modalities.image.transforms import ImageViews, Normalise

_CHANCES = "flip", "jitter", "grey", "blur", "solarise"
_TOGETHER = 2**23  # numbers in the images of several views that are made in one go: 32 MiB


class BatchViews(BatchTransform):
    """`ImageViews` and `Normalise` for whole batches of uint8 images of one size, on any device.

    What is drawn has the distribution of `ImageViews`; the pixels are those before anything rounds them.

    Args:
        views: the views' settings, configured.
        normalise: of the result.
        shape: (height, width) of the images.
    """

    def __init__(self, views: ImageViews, normalise: Normalise, shape: tuple[int, int]) -> None:
        self.views = views
        self.normalise = normalise
        self.shape = shape

    def draw(self, seeds: NDArray[np.int64]) -> dict[str, Tensor]:
        """Draw for each sample and view: `boxes` (B, V, 4), what happens (B, V), `factors` and `order` (B, V, 4)."""
        own = view_seeds(seeds, self.views.views)
        drawn = [self._draw(own[:, view], view) for view in range(self.views.views)]
        return {name: torch.from_numpy(np.stack([one[name] for one in drawn], axis=1)) for name in drawn[0]}

    def _draw(self, seeds: NDArray[np.int64], view: int) -> dict[str, NDArray]:
        settings = self.views
        box, chances, factors, order, sigma = np.split(
            uniforms(seeds, DRAWS + len(_CHANCES) + 2 * colours.CHANGES + 1),
            np.cumsum([DRAWS, len(_CHANCES), colours.CHANGES, colours.CHANGES]),
            axis=1,
        )
        _, scale = settings.crop(view)
        boxes = random_boxes(box, *self.shape, scale=scale, ratio=settings.ratio)
        happens = {name: chances[:, n] < self._chance(name, view) for n, name in enumerate(_CHANCES)}
        jitter = settings.colours
        ranges = [jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue]
        low, high = np.array([pair or (none, none) for pair, none in zip(ranges, (1, 1, 1, 0), strict=True)]).T
        low_sigma, high_sigma = settings.sigma
        return {
            **happens,
            "boxes": boxes.astype(np.float32),
            "factors": (low + (high - low) * factors).astype(np.float32),
            "order": order.argsort(1),
            "sigma": (low_sigma + (high_sigma - low_sigma) * sigma[:, 0]).astype(np.float32),
        }

    def _chance(self, name: str, view: int) -> float:
        return 0.5 * self.views.flip if name == "flip" else self.views.chance(name, view)

    def __call__(self, batch: Batch, draws: dict[str, Tensor]) -> Batch:
        """Turn a batch with `image` (B, H, W, C) into its first view, with all of them at `views` if there are more."""
        images = batch["image"].permute(0, 3, 1, 2)
        views: list[Tensor] = [images] * self.views.views
        for together in self._together(images):
            drawn = {name: value[:, together].transpose(0, 1).flatten(0, 1) for name, value in draws.items()}
            made = self._make(images.repeat(len(together), 1, 1, 1), drawn, together)
            for view, found in zip(together, made.chunk(len(together)), strict=True):
                views[view] = found
        batch["image"] = views[0]
        if len(views) > 1:
            batch["views"] = [{"image": view} for view in views]
        return batch

    def _together(self, images: Tensor) -> list[list[int]]:
        """Views of one size, made in one go while they are small: a GPU has little to do then for each launch."""
        groups: dict[tuple[int, int], list[int]] = {}
        for view in range(self.views.views):
            groups.setdefault(self.views.crop(view)[0], []).append(view)
        found = []
        for size, members in groups.items():
            most = max(1, _TOGETHER // (len(images) * images.shape[1] * size[0] * size[1]))
            found += [members[first : first + most] for first in range(0, len(members), most)]
        return found

    def _make(self, images: Tensor, drawn: dict[str, Tensor], views: list[int]) -> Tensor:
        size, _ = self.views.crop(views[0])
        pixels = crop_and_resize(images, drawn["boxes"], size, flip=drawn["flip"])
        happens = [name for name in _CHANCES if any(self._chance(name, view) > 0 for view in views)]
        if "jitter" in happens:
            pixels = colours.jitter(pixels, drawn["factors"], drawn["order"], drawn["jitter"])
        if "grey" in happens and pixels.shape[1] == 3:
            pixels = colours.where(drawn["grey"], lambda x: colours.to_grey(x).expand_as(x), pixels)
        if "blur" in happens:
            side = max(3, size[0] // 10 | 1)
            pixels = colours.where(
                drawn["blur"], lambda x, sigma: colours.blur(x, sigma, side=side), pixels, drawn["sigma"]
            )
        if "solarise" in happens:
            pixels = colours.where(drawn["solarise"], colours.solarise, pixels)
        return self.normalise({"image": pixels}, of=255.0)["image"]
