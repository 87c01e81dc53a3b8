"""Clips for training: video files, arrays of clips, any torch dataset, or a generated set."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch.utils.data import Dataset

from jepa_lightning.data import DataError, Sample, find_archives
from jepa_lightning.data.batched import BatchTransform
from jepa_lightning.data.shared import OtherFileSettings, Unpack
from jepa_lightning.data.sources.pictures import PictureDataModule
from jepa_lightning.data.sources.records import Decode
from jepa_lightning.modality import Batch
from modalities.video.files import ArrayClips, VideoFile, VideoFiles, check_reading, find_videos
from modalities.video.generated import GeneratedClips
from modalities.video.reading import ClipSampler
from modalities.video.transforms import BatchClips, CentreCrop, RandomCrop, TakeClips, VideoViews, separate_clips


class VideoData(PictureDataModule):
    """Batches of clips: `video` (B, C, T, H, W), uint8 (normalised by the model) or float32; `labels`; `id`.

    Training clips begin at random times and get one random resized crop and flip for all their frames (V-JEPA: Bardes
    et al. 2024, arXiv:2404.08471: area 0.3 to 1); all others are taken from the middle of the video with the largest
    central crop. Resizing is bicubic and antialiased.

    `root` is a folder of video files, with or without class folders, or a CSV file (`FileDataModule`); or a folder with
    `train.npz` (perhaps `val.npz`, `test.npz`), or an .npz file: `labels` then names its label arrays. A `dataset`
    gives arrays (T, H, W, C) or tensors (C, T, H, W).

    Args:
        frames: frames of a clip. None: the model's.
        stride: take every `stride`-th frame; 1 if `fps` is not given either.
        fps: take this many frames per second instead, for files of any frame rate.
        short: what to do with a video shorter than a clip: "loop" it, or "refuse" it as unreadable.
        eval_clips: clips of each video in evaluation, evenly spaced over its length; their features are averaged.
        decoder: "pyav", "torchcodec", or "auto": torchcodec where it can be imported, else PyAV.
        image_size: side, or (height, width), in pixels. None: the model's.
        channels: 1 (grey) or 3 (RGB); any number for arrays and tensors. None: the model's.
        crop_scale: range of the training crop's share of the frame's area; (1, 1) takes the central crop.
        flip: mirror half of the training clips. Do not use it if left and right matter.
        samples: number of generated training clips, at most 64 pixels wide (a quarter as many for validation).
        batch_size: samples per batch and process.
        **shared: root, csv, labels, dataset, val_dataset and test_dataset (`FileDataModule`); num_workers,
            seed and so on (`JEPADataModule`).

    Raises:
        DataError: arguments that do not fit each other or the data.

    Examples:
        >>> from modalities.video import VideoData
        >>> data = VideoData(frames=4, image_size=32, channels=3, samples=64, batch_size=16, num_workers=0)
        >>> batch = next(iter(data.train_dataloader()))
        >>> batch["video"].shape, sorted(batch["labels"])
        (torch.Size([16, 3, 4, 32, 32]), ['direction', 'shape', 'velocity'])
    """

    name = "video"
    ratio = 3 / 4, 1.35  # as in V-JEPA

    def __init__(
        self,
        *,
        frames: int | None = None,
        stride: int | None = None,
        fps: float | None = None,
        short: Literal["loop", "refuse"] = "loop",
        eval_clips: int = 1,
        decoder: Literal["auto", "pyav", "torchcodec"] = "auto",
        image_size: int | tuple[int, int] | None = None,
        channels: int | None = None,
        crop_scale: tuple[float, float] = (0.3, 1.0),
        flip: bool = False,
        samples: int = 4000,
        batch_size: int = 32,
        **shared: Unpack[OtherFileSettings],
    ) -> None:
        super().__init__(samples=samples, batch_size=batch_size, **shared)
        if eval_clips < 1:
            raise DataError(f"expected at least 1 clip of each video in evaluation, got {eval_clips}")
        self.frames = frames
        self.stride = stride
        self.fps = fps
        self.short = short
        self.eval_clips = eval_clips
        self.decoder = decoder
        self.image_size = image_size
        self.channels = channels
        self.crop_scale = crop_scale
        self.check_crop_scale()
        self.flip = flip
        self.sampler()  # a mistake in stride, fps or short shows at once

    def sampler(self, frames: int = 1) -> ClipSampler:
        """Make what takes clips of `frames` frames."""
        try:
            return ClipSampler(frames=frames, stride=self.stride, fps=self.fps, short=self.short)
        except ValueError as error:
            raise DataError(str(error)) from None

    def decoding(self) -> Decode:
        """Open video files, of which only the clip is decoded."""
        channels = self.or_model("channels", self.channels)
        check_reading(self.decoder, channels=channels)
        return partial(VideoFile, decoder=self.decoder, channels=channels, smallest=self.smallest)

    def load_files(self) -> dict[str, Dataset[Any]]:
        """Load the videos in arrays, folders or a CSV file, by split."""
        archives = {} if self.csv else find_archives(self.root, ArrayClips, labels=self.labels)
        if archives:
            self.in_memory = True
            return dict(archives)
        found = find_videos(self.root, csv=self.csv, labels=self.labels)
        channels = self.or_model("channels", self.channels)
        return {
            split: VideoFiles(files, decoder=self.decoder, channels=channels, smallest=self.smallest)
            for split, files in found.items()
        }

    def generate(self) -> dict[str, Dataset[Any]]:
        """Draw clips; see `GeneratedClips`."""
        settings: dict[str, Any] = {
            "frames": self.or_model("frames", self.frames) * (self.stride or 1),
            "image_size": self.drawn_size,
            "channels": self.or_model("channels", self.channels),
            "seed": self.seed,
        }
        counts = {"train": self.samples, "val": self.samples // 4}
        return {split: GeneratedClips(count, split=split, **settings) for split, count in counts.items()}

    def transforms(self) -> tuple[Callable[[Sample], Sample], Callable[[Sample], Sample]]:
        """Take clips at random times, randomly cropped, for training; centred ones for evaluation."""
        sampler = self.sampler(self.or_model("frames", self.frames))
        channels = self.or_model("channels", self.channels)
        random = RandomCrop(self.size, channels=channels, scale=self.crop_scale, ratio=self.ratio, flip=self.flip)
        centre = CentreCrop(self.size, channels=channels)
        return TakeClips(sampler, random, clips=None), TakeClips(sampler, centre, clips=self.eval_clips)

    def batch_augmentation(
        self, shape: tuple[int, ...], *, one: Callable[[Sample], Sample] | None, batch: Callable[[Batch], Batch] | None
    ) -> BatchTransform | None:
        """Take random clips by `BatchClips`, on a GPU: a CPU is quicker one by one."""
        channels = (*shape, 1)[3]
        ours = type(one) is TakeClips and type(one.crop) is RandomCrop and batch is separate_clips
        if not ours or len(shape) not in (3, 4) or channels != self.or_model("channels", self.channels):
            return None
        sampler = one.sampler  # type: ignore[union-attr]
        long_enough = sampler.fps is None and shape[0] > (sampler.frames - 1) * sampler.stride
        quick = torch.cuda.is_available()
        return BatchClips(one, shape[:3]) if long_enough and (self.batched or quick) else None  # type: ignore[arg-type]

    def default_views(self) -> VideoViews:
        """Augment clips at random times as images; without what knows colours, where there are none."""
        grey_or_colour = self.or_model("channels", self.channels) in (1, 3)
        return VideoViews() if grey_or_colour else VideoViews(jitter=0, grey=0)

    def batch_transform(self) -> Callable[[Batch], Batch]:
        """Separate several clips of a video into several samples."""
        return separate_clips
