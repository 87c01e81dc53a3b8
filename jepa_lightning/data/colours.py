"""Changes of colour and blur of a whole batch of images, with other numbers for each: as torchvision's of one image."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

CHANGES = 4
"""Kinds of colour jitter: brightness, contrast, saturation, hue."""

_GREY = 0.2989, 0.587, 0.114


def jitter(pixels: Tensor, factors: Tensor, order: Tensor, chosen: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue of each image, in its own order (torchvision's `ColorJitter`).

    Args:
        pixels: (B, 1 or 3, H, W) float, from 0 to 255.
        factors: (B, 4) of brightness, contrast and saturation, 1 for no change, and the turn of the hue, 0 for none.
        order: (B, 4) int64: which of the four comes first, second, ...
        chosen: (B,) bool, which images are changed at all.

    Examples:
        >>> import torch
        >>> from jepa_lightning.data.colours import jitter
        >>> grey = torch.full((1, 1, 1, 2), 100.0)
        >>> factors, order = torch.tensor([[1.5, 1.0, 1.0, 0.0]]), torch.arange(4).view(1, 4)
        >>> jitter(grey, factors, order, torch.tensor([True]))
        tensor([[[[150., 150.]]]])
    """
    if pixels.device.type != "cpu":
        return jitter_all(pixels, factors, order, chosen)
    kinds = (brighten, contrast, saturate, turn_hue)[: 4 if pixels.shape[1] == 3 else 2]
    for place in range(CHANGES):
        for number, kind in enumerate(kinds):
            pixels = where(chosen & (order[:, place] == number), kind, pixels, factors[:, number])
    return pixels


def jitter_all(pixels: Tensor, factors: Tensor, order: Tensor, chosen: Tensor) -> Tensor:
    """The same without picking images, which a GPU would be waited for, and with fewer operations to launch.

    Brightness, contrast and saturation move a pixel away from black, from the image's mean of grey, or from its own
    grey: one operation with another aim for each image.
    """
    for place in range(CHANGES):
        kind = order[:, place].view(-1, 1, 1, 1)
        factor = factors.gather(1, order[:, place : place + 1]).view(-1, 1, 1, 1)
        grey = to_grey(pixels) if pixels.shape[1] == 3 else pixels
        aim = torch.where(kind == 1, grey.mean((1, 2, 3), keepdim=True), 0.0)
        moves = kind < 2
        if pixels.shape[1] == 3:
            aim, moves = torch.where(kind == 2, grey, aim), kind < 3
        changed = _blend(pixels, aim, torch.where(moves, factor, 1.0))
        if pixels.shape[1] == 3:
            changed = torch.where(kind == 3, turn_hue(pixels, factors[:, 3]), changed)
        pixels = torch.where(chosen.view(-1, 1, 1, 1), changed, pixels)
    return pixels


def where(chosen: Tensor, change: Callable[..., Tensor], pixels: Tensor, *values: Tensor) -> Tensor:
    """Change the chosen images (B,): on a CPU only these are computed; elsewhere all, which needs no synchronisation.

    Args:
        chosen: (B,) bool.
        change: takes images and as many values as there are.
        pixels: (B, C, H, W).
        values: (B,) each.
    """
    if pixels.device.type != "cpu":
        return torch.where(chosen[:, None, None, None], change(pixels, *values), pixels)
    rows = chosen.nonzero()[:, 0]
    if not len(rows):
        return pixels
    return pixels.index_copy(0, rows, change(pixels[rows], *(value[rows] for value in values)))


def brighten(pixels: Tensor, factor: Tensor) -> Tensor:
    """Multiply the values."""
    return (pixels * factor.view(-1, 1, 1, 1)).clamp(0, 255)


def contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    """Move the values away from the image's mean of grey, or towards it."""
    grey = to_grey(pixels) if pixels.shape[1] == 3 else pixels
    return _blend(pixels, grey.mean((1, 2, 3), keepdim=True), factor)


def saturate(pixels: Tensor, factor: Tensor) -> Tensor:
    """Move the values away from their grey, or towards it."""
    return _blend(pixels, to_grey(pixels), factor)


def turn_hue(pixels: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue by a share of the circle, in HSV."""
    red, green, blue = pixels.unbind(1)
    value, low = pixels.amax(1), pixels.amin(1)
    chroma = value - low
    divisor = torch.where(chroma > 0, chroma, 1.0)
    hue = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    hue = hue + 6 * turn.view(-1, 1, 1)
    # A channel's value, from how far the hue is from where it is darkest (Smith 1978).
    apart = [(hue + start).remainder(6) for start in (5, 3, 1)]
    return torch.stack([value - chroma * torch.minimum(k, 4 - k).clamp(0, 1) for k in apart], dim=1)


def to_grey(pixels: Tensor) -> Tensor:
    """Luminance: (B, 3, H, W) to (B, 1, H, W)."""
    return sum(share * pixels[:, c : c + 1] for c, share in enumerate(_GREY))  # type: ignore[return-value]


def blur(pixels: Tensor, sigma: Tensor, *, side: int) -> Tensor:
    """Blur by a Gaussian kernel of `side` pixels and a standard deviation for each image (B,)."""
    half = side // 2
    if half >= min(pixels.shape[-2:]):
        return pixels
    steps = torch.arange(-half, half + 1, device=pixels.device)
    bell = torch.exp(-0.5 * (steps / sigma[:, None]).square())
    shares = (bell / bell.sum(1, keepdim=True))[:, :, None, None, None].unbind(1)
    height, width = pixels.shape[-2:]
    wide = F.pad(pixels, (half, half, half, half), mode="reflect")
    down: Tensor = sum(share * wide[:, :, k : k + height] for k, share in enumerate(shares))  # type: ignore[assignment]
    return sum(share * down[..., k : k + width] for k, share in enumerate(shares))  # type: ignore[return-value]


def solarise(pixels: Tensor) -> Tensor:
    """Invert the brighter half of the values."""
    return torch.where(pixels >= 128, 255 - pixels, pixels)


def _blend(pixels: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    factor = factor.view(-1, 1, 1, 1)
    return (factor * pixels + (1 - factor) * other).clamp(0, 255)
