"""Crops of a whole batch of images, resized in one operation on the device that they are on."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_A = -0.5  # of the cubic filter, as in Pillow


def crop_and_resize(images: Tensor, boxes: Tensor, size: tuple[int, int], *, flip: Tensor | None = None) -> Tensor:
    """Cut one box out of each image and resize it, bicubic and antialiased: two batched matrix products.

    The same filter as Pillow's `resize(size, BICUBIC, box=box)`, whose uint8 results differ by the rounding after
    each of its two passes; pixels beside the box have their part in its edges. Costs B C H w (W + h)
    multiplications: little on a GPU, or for small images.

    Args:
        images: (B, C, H, W) uint8 or float.
        boxes: (B, 4) left, upper, right and lower edge in pixels, within the image; fractions are fine.
        size: (h, w) of the results.
        flip: (B,) bool, which results to mirror; None: none.

    Returns:
        (B, C, h, w) float32 in the images' own range; of uint8 images, from 0 to 255.

    Examples:
        >>> import torch
        >>> from jepa_lightning.data.resample import crop_and_resize
        >>> images = torch.arange(4.0).view(1, 1, 1, 4).expand(1, 1, 4, 4)
        >>> crop_and_resize(images, torch.tensor([[0.0, 0.0, 4.0, 4.0]]), (4, 4))[0, 0, 0]
        tensor([0., 1., 2., 3.])
    """
    height, width = images.shape[2:]
    boxes = boxes.to(images.device, torch.float32)
    down = _weights(boxes[:, 1], boxes[:, 3], height, size[0])
    across = _weights(boxes[:, 0], boxes[:, 2], width, size[1])
    if flip is not None:
        across = torch.where(flip.to(images.device)[:, None, None], across.flip(1), across)
    channels = images.shape[1]
    lines = images.permute(0, 2, 1, 3).to(torch.float32, memory_format=torch.contiguous_format)  # (B, H, C, W)
    narrow = torch.bmm(lines.flatten(1, 2), across.transpose(1, 2))  # (B, H C, w)
    if images.dtype == torch.uint8:
        narrow.clamp_(0, 255)
    resized = torch.bmm(down, narrow.unflatten(1, (height, channels)).flatten(2))  # (B, h, C w)
    if images.dtype == torch.uint8:
        resized.clamp_(0, 255)
    return resized.unflatten(2, (channels, size[1])).transpose(1, 2)


def _weights(low: Tensor, high: Tensor, pixels: int, size: int) -> Tensor:
    """Shares of an axis's pixels in `size` resized ones, for boxes from `low` to `high` (B,): (B, size, pixels)."""
    scale = ((high - low) / size)[:, None]
    wide = scale.clamp(min=1.0)  # of the filter, to two of these on either side
    centres = low[:, None] + (torch.arange(size, device=low.device) + 0.5) * scale  # (B, size)
    first = (centres - 2 * wide - 0.5).ceil().long()
    taps = first[..., None] + torch.arange(math.ceil(4 * max(1.0, pixels / size)) + 1, device=low.device)
    found = _cubic((taps + 0.5 - centres[..., None]) / wide[..., None])
    found = found.masked_fill_((taps < 0) | (taps >= pixels), 0.0)
    found /= found.sum(-1, keepdim=True)
    dense = found.new_zeros(len(low), size, pixels)
    return dense.scatter_add_(2, taps.clamp_(0, pixels - 1), found)


def _cubic(x: Tensor) -> Tensor:
    """The cubic convolution filter (Keys 1981)."""
    x = x.abs()
    near = ((_A + 2) * x - (_A + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * _A
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
