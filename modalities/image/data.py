"""Images for training: class folders, a CSV file, any torchvision or torch dataset, or a generated set."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from jepa_lightning.data import DataError, Sample, Samples, cache_sets, find_archives
from jepa_lightning.data.batched import BatchTransform
from jepa_lightning.data.pixels import usual_statistics
from jepa_lightning.data.shared import FileSettings, Unpack
from jepa_lightning.data.sources.pictures import SMALL, PictureDataModule
from jepa_lightning.data.sources.records import Decode, Decoded
from jepa_lightning.modality import Batch
from modalities.image.batch_views import BatchViews
from modalities.image.captions import CaptionedImages
from modalities.image.files import ArrayImages, find_images
from modalities.image.generated import GeneratedImages
from modalities.image.looked_at import arrays, pictures
from modalities.image.reading import MAX_PIXELS, read_image
from modalities.image.transforms import BatchCrops, CentreCrop, ImageViews, Normalise, RandomCrop
from modalities.image.values import EIGHT, UNIT, Values, say, values_of

_STATISTICS = 1000  # images that "auto" looks at
_log = logging.getLogger(__name__)


class ImageData(PictureDataModule):
    """Batches of images: `image` (B, C, H, W) float32, normalised; `labels`; `id`.

    Training images get a random resized crop, as in I-JEPA (Assran et al. 2023, arXiv:2301.08243: area 0.3 to 1, no
    flip or colour change); all others the largest central crop. Resizing is bicubic and antialiased.
    With `views`, training images get `ImageViews`.

    `root` is a folder of images or .npy arrays, with or without class folders, or a CSV file (`FileDataModule`); or a
    .npz file, or a folder with train.npz (and val.npz, test.npz), see `ArrayImages`. A `dataset` gives Pillow images or
    tensors (C, H, W); a transform of its own is applied first.

    Args:
        image_size: side, or (height, width), in pixels. None: the model's.
        channels: 1 (grey), 3 (RGB), 4 (RGBA); any number for tensors and .npy files. None: the model's.
        mean: mean of each channel, for values from 0 to 1 (8- and 16-bit images) or the tensor's own. None: ImageNet's
            for 3 channels, 0.5 for other numbers. "auto": mean and std of up to 1000 training images, evenly spaced.
        std: standard deviation, likewise; None: ImageNet's, or 0.25.
        crop_scale: range of the training crop's share of the image's area.
        value_range: the values that become 0 and 1, of images with other than 8 bits. None: by up to 64 training images
            (`modalities.image.values`); but arrays of floats stay as they are where they are not of 0 to 255 or where
            mean is given, and any arrays where mean is given and above 1. Of streams, arrays stay as they are.
        flip: mirror half of the training images. With views, `ImageViews` takes the place of both.
        cache: keep decoded images of files in memory, so that each file is decoded once, at the start (test images
            are not kept). None: when they take less than 1 GiB.
        cache_folder: keep them in files in this folder instead, which later runs find: each file is decoded once, for
            all runs, and the set may be larger than memory. What is no longer asked for is not removed.
        max_pixels: largest number of pixels of a decoded image file; larger ones are unreadable samples. A small file
            may hold a very large image.
        samples: number of generated training images, at most 64 pixels wide (an eighth as many for validation).
        **shared: root, csv, labels, dataset, val_dataset and test_dataset (`FileDataModule`); batch_size, num_workers,
            seed and so on (`JEPADataModule`).

    Raises:
        DataError: arguments that do not fit each other or the data.

    Example:
        >>> from modalities.image import ImageData
        >>> data = ImageData(image_size=32, channels=3, samples=64, batch_size=16, num_workers=0)
        >>> batch = next(iter(data.train_dataloader()))
        >>> batch["image"].shape, sorted(batch["labels"])
        (torch.Size([16, 3, 32, 32]), ['position', 'shape', 'size', 'stripes'])
    """

    name = "image"
    ratio = 3 / 4, 4 / 3  # as in the I-JEPA paper

    def __init__(
        self,
        *,
        image_size: int | tuple[int, int] | None = None,
        channels: int | None = None,
        mean: list[float] | Literal["auto"] | None = None,
        std: list[float] | Literal["auto"] | None = None,
        crop_scale: tuple[float, float] = (0.3, 1.0),
        value_range: tuple[float, float] | None = None,
        flip: bool = False,
        cache: bool | None = None,
        cache_folder: str | None = None,
        max_pixels: int = MAX_PIXELS,
        samples: int = 8000,
        **shared: Unpack[FileSettings],
    ) -> None:
        super().__init__(samples=samples, **shared)
        self.image_size = image_size
        self.channels = channels
        self.mean = mean
        self.std = std
        self.crop_scale = crop_scale
        self.check_crop_scale()
        if value_range is not None and not -math.inf < value_range[0] < value_range[1] < math.inf:
            raise DataError(f"expected value_range as two rising numbers, got {tuple(value_range)}")
        self.value_range = value_range
        self.flip = flip
        self._chosen = None if value_range is None else Values(*value_range)
        self.values = self._chosen
        self.cache = cache
        self.cache_folder = cache_folder
        self.only_for_files(cache_folder=cache_folder)
        self.max_pixels = max_pixels
        if max_pixels < 1:
            raise DataError(f"expected max_pixels of at least 1, got {max_pixels}")

    @property
    def channel_count(self) -> int:
        """Channels of the images in a batch."""
        channels = int(self.or_model("channels", self.channels))
        if channels < 1:
            raise DataError(f"expected at least 1 channel, got {channels}")
        return channels

    def decoding(self) -> Decode:
        """Decode images by Pillow, arrays by NumPy."""
        return partial(read_image, channels=self.channel_count, smallest=self.smallest, max_pixels=self.max_pixels)

    def as_item(self, value: Any) -> Any:
        """As the base class; of floats, those from 0 to 1 are images where the data did not say otherwise.

        Raises:
            DataError: floats of another range.
        """
        item = super().as_item(value)
        image = item.get("image")
        floats = getattr(image, "is_floating_point", lambda: np.asarray(image).dtype.kind == "f")
        if self.values is None and self.mean is None and isinstance(image, torch.Tensor | np.ndarray) and floats():
            low, high = float(image.min()), float(image.max())
            if not -0.01 <= low <= high <= 1.01:
                raise DataError(
                    f"expected an image of 8 bits, or of fractions from 0 to 1, got numbers from {low:.3g} to "
                    f"{high:.3g}: scale them, or, if it is normalised already, give a batch: {{'image': images}}"
                )
        return item

    def estimated(self) -> dict[str, Any]:
        """Return mean and std where they were estimated, and the range of values of images with other than 8 bits."""
        if self._parts is None:
            return {}
        found: dict[str, Any] = {}
        if "auto" in (self.mean, self.std):
            batch_transform = self._batch_transform
            if isinstance(batch_transform, Normalise):
                found = {name: getattr(batch_transform, name).flatten().tolist() for name in ("mean", "std")}
        if self._chosen is None and self.values is not None:
            found["value_range"] = [self.values.low, self.values.high]
        return found

    def load(self) -> dict[str, Dataset[Any]]:
        """Load the data sets by split; looks at the values of some training images."""
        sets = super().load()
        stored = [dataset for dataset in sets.values() if isinstance(dataset, Decoded)]
        if self.values is None:
            self.values = values_of(pictures(sets["train"])) or self._array_values(sets["train"])
            say(self.values)
        for dataset in stored:
            dataset.decode = partial(dataset.decode, values=self.values)  # type: ignore[call-arg]
        return sets

    def _array_values(self, dataset: Dataset[Any]) -> Values | None:
        """Find the range of images that are arrays or tensors; None where they stay as they are."""
        found = values_of(arrays(dataset))
        if found is None or found == UNIT:
            return found
        if isinstance(self.mean, list) and (found.of_floats or max(map(abs, self.mean)) > 1):
            return None  # the mean is that of the values as they are
        return None if found.of_floats and (found.low, found.high) != (EIGHT.low, EIGHT.high) else found

    def load_files(self) -> dict[str, Dataset[Any]]:
        """Load the images in arrays, folders or a CSV file, by split."""
        archives = {} if self.csv else find_archives(self.root, ArrayImages, labels=self.labels)
        if archives:
            self.in_memory = True
            return dict(archives)
        sets = find_images(self.root, csv=self.csv, labels=self.labels)
        if sets["train"].targets is not None and "val" in sets and sets["val"].targets is None:
            _log.warning("the validation images have no class folders: what needs their labels is left out")
        self.values = self._chosen or sets["train"].look()
        say(self.values)
        for images in sets.values():
            images.configure(
                channels=self.channel_count, smallest=self.smallest, max_pixels=self.max_pixels, values=self.values
            )
        kept = [images for split, images in sets.items() if split != "test"]
        if (self.cache or self.cache_folder) and any(images.arrays for images in kept):
            raise DataError(
                "expected cache: false (or null) and no cache_folder for .npy files, got one of them: they are read as "
                "they are"
            )
        self.in_memory = cache_sets(kept, self.cache, self.cache_folder) or self.in_memory
        return dict(sets)

    def generate(self) -> dict[str, Dataset[Any]]:
        """Draw images; see `GeneratedImages`."""
        return self._drawn(GeneratedImages)

    def generate_pairs(self) -> dict[str, Dataset[Any]]:
        """Draw images with captions, under `text`; see `CaptionedImages`."""
        return self._drawn(CaptionedImages)

    def _drawn(self, kind: type[GeneratedImages]) -> dict[str, Dataset[Any]]:
        return {
            split: kind(count, image_size=self.drawn_size, channels=self.channel_count, seed=self.seed, split=split)
            for split, count in {"train": self.samples, "val": self.samples // 8}.items()
        }

    def transforms(self) -> tuple[Callable[[Sample], Sample], Callable[[Sample], Sample]]:
        """Crop to a random size and place for training, centrally for evaluation."""
        settings: dict[str, Any] = {"channels": self.channel_count, "values": self.values}
        random = RandomCrop(self.size, scale=self.crop_scale, ratio=self.ratio, flip=self.flip, **settings)
        return random, CentreCrop(self.size, **settings)

    def default_views(self) -> ImageViews:
        """Augment as VICReg; images that are not grey or in colour, without what knows colours."""
        return ImageViews() if self.channel_count in (1, 3) else ImageViews(jitter=0, grey=0)

    def batch_transform(self) -> Callable[[Batch], Batch]:
        """Normalise the images."""
        return Normalise(*self.statistics())

    def batch_augmentation(
        self, shape: tuple[int, ...], *, one: Callable[[Sample], Sample] | None, batch: Callable[[Batch], Batch] | None
    ) -> BatchTransform | None:
        """`BatchCrops` for crops, `BatchViews` for views: of small images anywhere, of larger ones on a GPU."""
        quick = torch.cuda.is_available() or math.prod(shape[:2]) <= SMALL
        if type(batch) is not Normalise or shape[2:] != (self.channel_count,) or not (self.batched or quick):
            return None
        if type(one) is RandomCrop:
            return BatchCrops(one, batch, (shape[0], shape[1]))
        return BatchViews(one, batch, (shape[0], shape[1])) if type(one) is ImageViews else None

    def statistics(self) -> tuple[list[float], list[float]]:
        """Choose the mean and std of each channel that images are normalised with."""
        count = self.channel_count
        default = usual_statistics(count)
        found = self._estimate() if "auto" in (self.mean, self.std) else default
        mean = found[0] if self.mean is None or self.mean == "auto" else self.mean
        std = found[1] if self.std is None or self.std == "auto" else self.std
        for name, values in (("mean", mean), ("std", std)):
            if len(values) != count:
                raise DataError(f"expected {name} with one value for each of {count} channels, got {len(values)}")
        if not all(0 < value < math.inf for value in std) or not all(map(math.isfinite, mean)):
            raise DataError(
                f"expected std above 0 and finite means for each channel, got std {list(std)} and mean {list(mean)}"
            )
        if self._parts is not None:
            self._check_range(mean, std)
        return list(map(float, mean)), list(map(float, std))

    def _estimate(self) -> tuple[list[float], list[float]]:
        """Estimate mean and std of each channel over up to 1000 readable training images, evenly spaced."""
        train = self.part("train")
        spaced = train.indices[np.linspace(0, len(train) - 1, min(_STATISTICS, len(train))).astype(int)]
        crop = CentreCrop(self.size, channels=self.channel_count, values=self.values)
        part = Samples(train.dataset, name=self.name, split="train", indices=spaced, transform=crop)
        sums = torch.zeros(2, self.channel_count, dtype=torch.float64)
        pixels = 0
        for position in range(len(part)):
            image = self.parts.records["train"].take(part[position])["image"]
            values = image.double().flatten(1) / (255 if image.dtype == torch.uint8 else 1)
            sums += torch.stack([values.sum(1), values.square().sum(1)])
            pixels += values.shape[1]
        mean = sums[0] / pixels
        std = (sums[1] / pixels - mean.square()).clamp_min(0).sqrt()
        _log.info("normalising with mean %s and std %s", mean.tolist(), std.tolist())
        return mean.tolist(), std.clamp_min(1e-6).tolist()

    def _check_range(self, mean: Sequence[float], std: Sequence[float]) -> None:
        largest = Normalise(mean, std)({"image": self.parts.example["image"]})["image"].abs().max()
        if largest > 30:
            _log.warning(
                "the first image's values reach %.3g after normalisation (mean %s, std %s): set data.mean to auto, or "
                "data.mean and data.std to the data's own",
                float(largest), list(mean), list(std),
            )  # fmt: skip
