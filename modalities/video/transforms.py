"""From a video to a clip in a batch: which frames, one crop and one flip for all of them, and views."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from jepa_lightning.data import DataError, Sample
from jepa_lightning.data.batched import BatchTransform
from jepa_lightning.data.boxes import DRAWS, Box, central_box, random_box, random_boxes
from jepa_lightning.data.pixels import PixelViews
from jepa_lightning.data.resample import crop_and_resize
from jepa_lightning.modality import Batch
from jepa_lightning.randomness import uniforms
from modalities.video.files import VideoFile
from modalities.video.reading import ClipSampler

_LARGEST = 1e18  # of a value; its square is still a float


class CentreCrop:
    """For evaluation: the largest central part of the wanted shape, resized (bicubic, antialiased).

    Args:
        size: (height, width) of the result.
        channels: of the result.
    """

    def __init__(self, size: tuple[int, int], *, channels: int) -> None:
        self.size = size
        self.channels = channels

    def box(self, height: int, width: int) -> Box:
        """Choose where to cut."""
        return central_box(height, width, ratio=self.size[1] / self.size[0])

    def __call__(self, clip: Tensor) -> Tensor:
        """Cut (T, C, H, W) to (T, C, *size)."""
        left, upper, right, lower = (round(edge) for edge in self.box(*clip.shape[2:]))
        clip = clip[:, :, upper : max(lower, upper + 1), left : max(right, left + 1)]
        if clip.shape[2:] != self.size:
            clip = F.interpolate(clip, self.size, mode="bicubic", antialias=True)
        return clip


class RandomCrop(CentreCrop):
    """For training: a random resized crop and perhaps a flip, the same for all frames of the clip.

    Args:
        size: (height, width) of the result.
        channels: of the result.
        scale: range of the crop's share of the frame's area; (1, 1) is the central crop.
        ratio: range of the crop's width / height.
        flip: mirror half of the clips.
    """

    def __init__(
        self,
        size: tuple[int, int],
        *,
        channels: int,
        scale: tuple[float, float] = (0.3, 1.0),
        ratio: tuple[float, float] = (3 / 4, 1.35),
        flip: bool = False,
    ) -> None:
        super().__init__(size, channels=channels)
        self.scale = tuple(scale)
        self.ratio = ratio
        self.flip = flip

    def box(self, height: int, width: int) -> Box:
        """Draw a random box."""
        if self.scale == (1.0, 1.0):
            return super().box(height, width)
        return random_box(height, width, scale=(self.scale[0], self.scale[1]), ratio=self.ratio)

    def __call__(self, clip: Tensor) -> Tensor:
        """Cut (T, C, H, W) to (T, C, *size)."""
        clip = super().__call__(clip)
        return clip.flip(-1) if self.flip and torch.rand(()) < 0.5 else clip


class TakeClips:
    """A sample's video to one clip (C, T, H, W), or several of them (n, C, T, H, W); uint8 or float32.

    Args:
        sampler: which frames make a clip.
        crop: what is done to its frames.
        clips: how many, evenly spaced over the video's length (one: in its middle). None: one at a random time.
    """

    def __init__(self, sampler: ClipSampler, crop: CentreCrop, *, clips: int | None) -> None:
        self.sampler = sampler
        self.crop = crop
        self.clips = clips

    def __call__(self, sample: Sample) -> Sample:
        """Put clips in the sample as its `video`."""
        if self.clips is None:
            starts = [float(torch.rand(()))]
        else:
            starts = [0.5] if self.clips == 1 else [i / (self.clips - 1) for i in range(self.clips)]
        video = sample["video"]
        if isinstance(video, VideoFile):
            with video.open() as reader:
                taken = [self.sampler.read(reader, start=start) for start in starts]
            clips = [standard(clip, self.crop.channels) for clip in taken]
        else:
            whole = standard(video, self.crop.channels)
            clips = [whole[self.sampler.frames_of(len(whole), start=start)] for start in starts]
        cut = [self.crop(clip).transpose(0, 1).contiguous() for clip in clips]
        sample["video"] = cut[0] if len(cut) == 1 else torch.stack(cut)
        return sample


class BatchClips(BatchTransform):
    """`TakeClips` at random times with a `RandomCrop`, for whole batches of clips of one size in memory, on any device.

    Args:
        one: whose sampler and crop are taken.
        shape: (frames, height, width) of the clips.

    Raises:
        DataError, OSError: the sampler takes no clips of so many frames.
    """

    def __init__(self, one: TakeClips, shape: tuple[int, int, int]) -> None:
        self.sampler = one.sampler
        self.crop = cast(RandomCrop, one.crop)
        self.shape = shape
        self.last = int(one.sampler.frames_of(shape[0], start=1.0)[0])  # the last frame that a clip may begin with

    def draw(self, seeds: NDArray[np.int64]) -> dict[str, Tensor]:
        """Draw `frames` (B, T), `boxes` (B, 4), and `flip` (B,) where half of the clips are mirrored."""
        frames, height, width = self.shape
        drawn = uniforms(seeds, DRAWS + 2)
        first = np.round(drawn[:, 1] * self.last).astype(np.int64)
        found = {"frames": torch.from_numpy(first[:, None] + self.sampler.frames_of(frames, start=0.0))}
        low, high = self.crop.scale
        boxes = random_boxes(drawn[:, 2:], height, width, scale=(low, high), ratio=self.crop.ratio)
        if low == high == 1.0:
            boxes[:] = self.crop.box(height, width)
        found["boxes"] = torch.from_numpy(boxes.astype(np.float32))
        return {**found, "flip": torch.from_numpy(drawn[:, 0] < 0.5)} if self.crop.flip else found

    def __call__(self, batch: Batch, draws: dict[str, Tensor]) -> Batch:
        """Cut and resize the batch's `video` (B, frames, H, W, C) or (B, frames, H, W): (B, C, T, h, w), uint8."""
        video = batch["video"]
        video = video.unsqueeze(-1) if video.ndim == 4 else video
        taken = video[torch.arange(len(video), device=video.device)[:, None], draws["frames"]]  # (B, T, H, W, C)
        images = taken.permute(0, 1, 4, 2, 3).flatten(1, 2)
        cut = crop_and_resize(images, draws["boxes"], self.crop.size, flip=draws.get("flip")).round().byte()
        batch["video"] = cut.unflatten(1, (taken.shape[1], -1)).transpose(1, 2).contiguous()
        return batch


def separate_clips(batch: Batch) -> Batch:
    """Turn a batch whose `video` is (B, n, C, T, H, W) into B n samples, each with its video's id as its `source`."""
    video = batch["video"]
    if isinstance(video, Tensor) and video.ndim == 6:
        clips = video.shape[1]

        def repeat(values: Any) -> Any:
            if isinstance(values, Tensor):
                return values.repeat_interleave(clips, dim=0)
            return [value for value in values for _ in range(clips)]

        labels = {name: repeat(values) for name, values in batch["labels"].items()}
        batch = {key: repeat(values) for key, values in batch.items() if key not in ("video", "labels")}
        batch |= {"video": video.flatten(0, 1), "labels": labels, "source": batch["id"]}
    return batch


def standard(clip: Any, channels: int) -> Tensor:
    """Convert a clip to a tensor (T, C, H, W), uint8 or float32.

    Args:
        clip: an array (T, H, W, C) or (T, H, W), as decoders give it; or a tensor (C, T, H, W) or (T, H, W).
        channels: how many are wanted; one is repeated to three.

    Raises:
        DataError: not a clip, or one with another number of channels.
        OSError: it has no pixel, or values that are NaN, infinite or beyond 1e18.
    """
    if isinstance(clip, np.ndarray) and clip.ndim in (3, 4):
        tensor = torch.from_numpy(np.ascontiguousarray(clip))
        tensor = tensor.unsqueeze(1) if tensor.ndim == 3 else tensor.permute(0, 3, 1, 2)
    elif isinstance(clip, Tensor) and clip.ndim in (3, 4):
        tensor = clip.unsqueeze(1) if clip.ndim == 3 else clip.transpose(0, 1)
    else:
        what = f"shape {tuple(clip.shape)}" if hasattr(clip, "shape") else type(clip).__name__
        raise DataError(f"expected a clip as an array (T, H, W, C) or a tensor (C, T, H, W), got {what}")
    if tensor.shape[1] == 1 and channels == 3:
        tensor = tensor.expand(-1, 3, -1, -1)
    if tensor.shape[1] != channels:
        raise DataError(
            f"expected clips with {channels} channels, got {tensor.shape[1]} (shape {tuple(clip.shape)}): "
            f"set the model's channels to {tensor.shape[1]}, or convert the clips"
        )
    if not tensor.numel():
        raise OSError(f"there are no pixels in it, its shape is {tuple(clip.shape)}")
    if tensor.dtype == torch.uint8:
        return tensor
    tensor = tensor.float()
    if not tensor.abs().amax() < _LARGEST:  # NaN is not less
        raise OSError(f"there are values in it that are NaN, infinite or beyond {_LARGEST:g}")
    return tensor


class VideoViews(PixelViews):
    """Views of videos: a clip at a random time, augmented as `ImageViews` does, alike in all of its frames.

    Each view has a clip of its own. Of a video file, each view decodes its clip and no more.

    Examples:
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
        """Make one view of the sample's `video`: a clip (C, T, H, W), uint8 or float32."""
        return TakeClips(self.sampler, _Augment(self, view), clips=None)(dict(sample))


class _Augment(RandomCrop):
    """Crops the frames of a clip and changes their colours."""

    def __init__(self, settings: VideoViews, view: int) -> None:
        size, scale = settings.crop(view)
        super().__init__(size, channels=settings.channels, scale=scale, ratio=settings.ratio, flip=settings.flip)
        self.settings = settings
        self.view = view

    def __call__(self, clip: Tensor) -> Tensor:
        """Crop (T, C, H, W) to (T, C, *size)."""
        self.settings.check(clip)
        return self.settings.change(super().__call__(clip), self.view)
