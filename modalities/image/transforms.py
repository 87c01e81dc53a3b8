"""Crops and views of images, whose label maps follow, and normalisation of a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from jepa_lightning.data import DataError, Sample
from jepa_lightning.data.arrays import native
from jepa_lightning.data.batched import BatchTransform
from jepa_lightning.data.boxes import DRAWS, Box, central_box, random_box, random_boxes
from jepa_lightning.data.pixels import PixelViews
from jepa_lightning.data.resample import crop_and_resize
from jepa_lightning.modality import Batch
from jepa_lightning.randomness import uniforms
from modalities.image.reading import MODES, convert
from modalities.image.values import Values

_LARGEST = 1e18  # of a value; its square is still a float


_LARGE = 128 * 128
"""Pixels from which on torch resizes an image of 8 bits: in a third of Pillow's time, from a box of whole pixels."""


class _Crop:
    """Cuts a box out of `image` and resizes it, antialiased and bicubic."""

    def __init__(self, size: tuple[int, int], *, channels: int, values: Values | None = None) -> None:
        self.size = size
        self.channels = channels
        self.values = values

    def box(self, height: int, width: int) -> Box:
        return central_box(height, width, ratio=self.size[1] / self.size[0])

    def __call__(self, sample: Sample) -> Sample:
        large = _large(sample["image"], self.channels)
        image = standard(sample["image"], self.channels, self.values) if large is None else large
        height, width = self.size
        shape = tuple(image.shape[1:]) if isinstance(image, Tensor) else (image.height, image.width)
        box = self.box(*shape)
        if sample.get("labels"):
            sample["labels"] = {name: follow(label, shape, box, self.size) for name, label in sample["labels"].items()}
        if isinstance(image, Tensor):
            left, upper, right, lower = (round(edge) for edge in box)
            image = image[None, :, upper : max(lower, upper + 1), left : max(right, left + 1)]
            if image.dtype == torch.uint8:
                image = image.contiguous(memory_format=torch.channels_last)  # the quickest
            sample["image"] = F.interpolate(image, self.size, mode="bicubic", antialias=True)[0].contiguous()
            return sample
        # One call crops and resizes; the gap makes large reductions cheap and cannot be seen.
        resized = image.resize((width, height), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
        pixels = torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8)
        sample["image"] = pixels.view(height, width, self.channels).permute(2, 0, 1)
        return sample


def follow(label: Tensor, shape: tuple[int, ...], box: Box, size: tuple[int, int]) -> Tensor:
    """Crop a label that is a map of the image's pixels as the image is cropped; any other stays as it is.

    Each pixel of the result has the label of the nearest one of the image.

    Args:
        label: of any shape.
        shape: (H, W) of the image, which a map has, too.
        box: (left, upper, right, lower) of the crop.
        size: (height, width) of the result.
    """
    if label.shape != shape:
        return label
    places = []
    for begin, end, count, most in ((box[1], box[3], size[0], shape[0]), (box[0], box[2], size[1], shape[1])):
        middles = begin + (end - begin) * (torch.arange(count) + 0.5) / count
        places.append(middles.floor().long().clamp(0, most - 1))
    return label[places[0]][:, places[1]]


def _large(image: Any, channels: int) -> Tensor | None:
    """A large image of 8 bits as uint8 (C, H, W); None for any other."""
    if isinstance(image, Image.Image):
        if image.width * image.height <= _LARGE or channels not in MODES or image.mode != MODES[channels]:
            return None
        image = np.asarray(image).reshape(image.height, image.width, channels)
    elif not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape[2:] != (channels,):
        return None
    if math.prod(image.shape[:2]) <= _LARGE:
        return None
    return torch.from_numpy(image if image.flags.writeable else image.copy()).permute(2, 0, 1)


class CentreCrop(_Crop):
    """For evaluation: the largest central part of the wanted shape, resized. Square to square only resizes.

    Args:
        size: (height, width) of the result.
        channels: of the result.
        values: see `standard`.
    """


class RandomCrop(_Crop):
    """For training: a random resized crop, and perhaps a flip.

    Args:
        size: (height, width) of the result.
        channels: of the result.
        scale: range of the crop's share of the image's area.
        ratio: range of the crop's width / height.
        flip: mirror half of the images.
        values: see `standard`.
    """

    def __init__(
        self,
        size: tuple[int, int],
        *,
        channels: int,
        scale: tuple[float, float] = (0.3, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: bool = False,
        values: Values | None = None,
    ) -> None:
        super().__init__(size, channels=channels, values=values)
        self.scale = scale
        self.ratio = ratio
        self.flip = flip

    def box(self, height: int, width: int) -> Box:
        """Draw a random box."""
        return random_box(height, width, scale=self.scale, ratio=self.ratio)

    def __call__(self, sample: Sample) -> Sample:
        """Crop the sample's `image`: a tensor (C, H, W), uint8 or float32."""
        sample = super().__call__(sample)
        if self.flip and torch.rand(()) < 0.5:
            sample["image"] = sample["image"].flip(-1)
            maps = {name: label for name, label in sample.get("labels", {}).items() if label.shape == self.size}
            sample["labels"] = {**sample.get("labels", {}), **{name: label.flip(-1) for name, label in maps.items()}}
        return sample


def standard(image: Any, channels: int, values: Values | None = None) -> Image.Image | Tensor:
    """Convert to a Pillow image where Pillow can hold it (8 bits, 1, 3 or 4 channels), else a float32 tensor (C, H, W).

    Args:
        image: a Pillow image, a tensor (C, H, W) or (H, W), or an array (H, W, C) or (H, W).
        channels: how many are wanted. Pillow images are converted; tensors and arrays must have them.
        values: which of an array's become 0 and 1, if it is not of 8 bits; None: they stay as they are.

    Raises:
        DataError: not an image, or a tensor with another number of channels.
        OSError: as `usable`.
    """
    if isinstance(image, Image.Image):
        if channels not in MODES:
            raise DataError(f"expected {channels} channels, got a Pillow image ({image.mode}): give tensors instead")
        return convert(image, MODES[channels], values)
    if isinstance(image, np.ndarray):
        if image.dtype == np.uint8 and image.shape[2:] == (channels,) and channels in MODES:
            return Image.fromarray(image[:, :, 0] if channels == 1 else image)
        image = torch.from_numpy(np.array(native(image)))
        image = image.permute(2, 0, 1) if image.ndim == 3 else image
    if not isinstance(image, Tensor) or image.ndim not in (2, 3):
        what = f"shape {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
        raise DataError(f"expected an image as Pillow image, tensor (C, H, W) or array (H, W, C), got {what}")
    image = image[None] if image.ndim == 2 else image
    if image.shape[0] != channels:
        raise DataError(
            f"expected images with {channels} channels, got {image.shape[0]} (shape {tuple(image.shape)}): "
            f"set the model's and the data's channels to {image.shape[0]}, or convert the images"
        )
    if image.is_complex():
        raise DataError(f"expected images of real numbers, got {image.dtype}: give the magnitude, or two channels")
    if image.dtype == torch.bool:
        return image.float()
    if image.dtype != torch.uint8 and values is None:
        return usable(image.float())
    if image.dtype != torch.uint8 and values is not None:
        unit = usable((image.double() - values.low).div_(values.high - values.low).float())
        if values.high != 255 or values.low or not torch.equal(image, image.round()):
            return unit
        image = (unit * 255).round().clamp(0, 255).byte()
    if channels not in MODES:
        return image.float() / 255
    pixels = image.permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if channels == 1 else pixels))


def usable(image: Tensor) -> Tensor:
    """Check that a float image can be trained on, and return it.

    Raises:
        OSError: it holds no pixel, or values that are NaN, infinite or beyond 1e18.
    """
    if not image.numel():
        raise OSError(f"there are no pixels in it, its shape is {tuple(image.shape)}")
    if not image.abs().amax() < _LARGEST:  # NaN is not less
        raise OSError(f"there are values in it that are NaN, infinite or beyond {_LARGEST:g}")
    return image


class Normalise:
    """A batch's `image` to float32, each channel less its mean and divided by its std; uint8 counts as 0 to 1.

    Args:
        mean: one a channel.
        std: one a channel.
    """

    anywhere = True  # computes on the device of the batch; see `jepa_lightning.data.batch.AfterTransfer`

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean = torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1)
        self.std = torch.tensor(std, dtype=torch.float32).view(-1, 1, 1)
        self._there = self.mean, self.std  # where the last batch was: to copy them at each step is to wait at each step

    def __getstate__(self) -> dict[str, Any]:
        """Leave what lies on a device to the process that uses it."""
        return dict(self.__dict__, _there=(self.mean, self.std))

    def __call__(self, batch: Batch, *, of: float | None = None) -> Batch:
        """Normalise the batch's `image`, whose values count as those `of` a range that begins with 0."""
        image = batch["image"]
        of = of or (255.0 if image.dtype == torch.uint8 else 1.0)
        if self._there[0].device != image.device:
            self._there = self.mean.to(image.device), self.std.to(image.device)
        mean, std = self._there
        batch["image"] = image.float().sub_(of * mean).div_(of * std).contiguous()
        return batch


class BatchCrops(BatchTransform):
    """`RandomCrop` and `Normalise` for whole batches of uint8 images of one size, on any device.

    The boxes and flips have the distribution of `RandomCrop`; the pixels are those before Pillow rounds them.

    Args:
        crop: whose size, scale, ratio and flips are taken.
        normalise: of the result.
        shape: (height, width) of the images.
    """

    def __init__(self, crop: RandomCrop, normalise: Normalise, shape: tuple[int, int]) -> None:
        self.crop = crop
        self.normalise = normalise
        self.shape = shape

    def draw(self, seeds: NDArray[np.int64]) -> dict[str, Tensor]:
        """Draw `boxes` (B, 4), and `flip` (B,) where half of the images are mirrored."""
        drawn = uniforms(seeds, DRAWS + 1)
        boxes = random_boxes(drawn[:, 1:], *self.shape, scale=self.crop.scale, ratio=self.crop.ratio)
        found = {"boxes": torch.from_numpy(boxes.astype(np.float32))}
        return {**found, "flip": torch.from_numpy(drawn[:, 0] < 0.5)} if self.crop.flip else found

    def __call__(self, batch: Batch, draws: dict[str, Tensor]) -> Batch:
        """The batch with its `image` (B, H, W, C) cropped: (B, C, h, w) float32, normalised."""
        images = batch["image"].permute(0, 3, 1, 2)
        batch["image"] = crop_and_resize(images, draws["boxes"], self.crop.size, flip=draws.get("flip"))
        return self.normalise(batch, of=255.0)


class ImageViews(PixelViews):
    """Views of images: a random resized crop, a flip, colour jitter, grey, blur and solarisation.

    Examples:
        ```yaml
        data:
          class_path: ImageData
          init_args:
            views: 8
            view_transform: {class_path: ImageViews, init_args: {local_views: 6, local_size: 48, scale: [0.3, 1.0]}}
        ```
    """

    name = "image"
    values: Values | None = None

    def configure(self, data: Any) -> None:
        """Take the size, the number of channels and views, and the range of values from the data module."""
        super().configure(data)
        self.values = getattr(data, "values", None)

    def __call__(self, sample: Sample, view: int = 0) -> Sample:
        """Make one view of the sample's `image`: a tensor (C, H, W), uint8 or float32."""
        image = standard(sample["image"], self.channels, self.values)
        if isinstance(image, Tensor):
            self.check(image)
        size, scale = self.crop(view)
        crop = RandomCrop(size, channels=self.channels, scale=scale, ratio=self.ratio, flip=self.flip)
        sample = crop({**sample, "image": image})
        return {**sample, "image": self.change(sample["image"], view)}
