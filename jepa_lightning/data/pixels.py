"""Views of what has pixels, images and clips: crops global and local, colours, blur. By torchvision.transforms.v2."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from jepa_lightning.data.errors import DataError
from jepa_lightning.data.views import ViewTransform

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def usual_statistics(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Give mean and std of each channel to normalise values from 0 to 1 by: ImageNet's of three, else 0.5 and 0.25.

    Examples:
        >>> from jepa_lightning.data.pixels import usual_statistics
        >>> usual_statistics(1)
        ((0.5,), (0.25,))
    """
    return _IMAGENET if channels == 3 else ((0.5,) * channels, (0.25,) * channels)


Probability = float | list[float]
"""One for all views, or one for each: the last one counts for all views after."""


class PixelViews(ViewTransform):
    """The settings of `ImageViews` and `VideoViews`, and what is done to pixels when they are cropped.

    In this order: colour jitter (brightness, contrast, saturation and hue, in random order), grey, blur, solarisation,
    each with its probability. The defaults are VICReg's (Bardes et al. 2022, arXiv:2105.04906, appendix C.1), in which
    BYOL's two kinds of views (Grill et al. 2020, appendix B) are made one; BYOL's own are `blur: [1.0, 0.1]` and
    `solarise: [0.0, 0.2]`. Local views are those of DINO (Caron et al. 2021) and LeJEPA (Balestriero & LeCun 2025).

    Deviation: the crop is that of `random_box` (edges at fractions of a pixel), bicubic.

    Args:
        scale: range of a global crop's share of the area.
        ratio: range of a crop's width / height.
        flip: mirror half of the views.
        jitter: probability of colour jitter.
        brightness: greatest relative change, either way, when jittered.
        contrast: likewise.
        saturation: likewise.
        hue: greatest turn of the hue, either way, as a share of the circle; at most 0.5.
        grey: probability that colours are taken out; the number of channels stays.
        blur: probability of a Gaussian blur, with a kernel of a tenth of the height (odd, at least 3 pixels).
        sigma: range of the blur's standard deviation, in pixels.
        solarise: probability that the brighter half of the values is inverted.
        global_size: side, or (height, width), of global views in pixels; None: that of the data's images. Smaller ones
            make a step cheaper, and random crops show things larger than whole images do, so that evaluating at a
            larger size is no loss (FixRes: Touvron et al. 2019, arXiv:1906.06423); the model must take both.
        local_views: how many of the views, the last ones, are local: smaller crops, perhaps of another size.
        local_size: side, or (height, width), of local views in pixels; None: that of the data's images. Each view is a
            batch of its own, so sizes may differ; the model must take both.
        local_scale: range of a local crop's share of the area.

    Raises:
        DataError: a setting is out of range; from `configure` and when called: it does not fit the data.
    """

    def __init__(
        self,
        *,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: bool = True,
        jitter: Probability = 0.8,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.2,
        hue: float = 0.1,
        grey: Probability = 0.2,
        blur: Probability = 0.5,
        sigma: tuple[float, float] = (0.1, 2.0),
        solarise: Probability = 0.1,
        global_size: int | tuple[int, int] | None = None,
        local_views: int = 0,
        local_size: int | tuple[int, int] | None = None,
        local_scale: tuple[float, float] = (0.05, 0.3),
    ) -> None:
        for name, share in (("scale", scale), ("local_scale", local_scale)):
            if len(share) != 2 or not 0 < share[0] <= share[1] <= 1:
                raise DataError(f"expected {name} as two rising shares from above 0 to 1, got {list(share)}")
        for name, pair in (("ratio", ratio), ("sigma", sigma)):
            if len(pair) != 2 or not 0 < pair[0] <= pair[1] < math.inf:
                raise DataError(f"expected {name} as two rising numbers above 0, got {list(pair)}")
        self.chances = {"jitter": jitter, "grey": grey, "blur": blur, "solarise": solarise}
        for name, chance in self.chances.items():
            listed = _listed(chance)
            if not listed or not all(0 <= value <= 1 for value in listed):
                raise DataError(f"expected {name} as a probability from 0 to 1, or a list of one a view, got {chance}")
        for name, value, most in (
            ("brightness", brightness, 1),
            ("contrast", contrast, 1),
            ("saturation", saturation, 1),
            ("hue", hue, 0.5),
        ):
            if not 0 <= value <= most:
                raise DataError(f"expected {name} from 0 to {most}, got {value:g}")
        if local_views < 0:
            raise DataError(f"expected local_views of at least 0, got {local_views}")
        for name, size in (("global_size", global_size), ("local_size", local_size)):
            if size is not None and min(_listed(size)) < 1:
                raise DataError(f"expected {name} of at least 1 pixel, got {size}")
        self.scale = scale
        self.ratio = ratio
        self.flip = flip
        self.sigma = sigma
        self.global_size = global_size
        self.local_views = local_views
        self.local_size = local_size
        self.local_scale = local_scale
        self.colours = v2.ColorJitter(brightness, contrast, saturation, hue)
        self.views, self.channels = 1, 3
        self.size = (0, 0)

    def configure(self, data: Any) -> None:
        """Take the size and the number of channels and views from the data module."""
        self.views = data.views
        self.size = data.size
        self.channels = int(data.or_model("channels", data.channels))
        if self.local_views >= self.views:
            raise DataError(
                f"expected more views than local_views, since the first view is never local, got views {self.views} "
                f"and local_views {self.local_views}: raise data.views"
            )
        coloured = [name for name in ("jitter", "grey") if self._ever(name)]
        if self.channels not in (1, 3) and coloured:
            raise DataError(
                f"expected 1 or 3 channels to change colours, got {self.channels}: set "
                + " and ".join(f"data.view_transform.{name} to 0" for name in coloured)
            )

    def smallest(self, size: tuple[int, int]) -> int:
        """Compute the short side, in pixels, to which a picture may be reduced before views of `size` are cropped."""
        crops = [(max(_sides(self.global_size, size)), self.scale[0])]
        if self.local_views:
            crops.append((max(_sides(self.local_size, size)), self.local_scale[0]))
        narrow = min(self.ratio[0], 1 / self.ratio[1], 1.0)
        return max(math.ceil(side / math.sqrt(share * narrow)) for side, share in crops)

    def crop(self, view: int) -> tuple[tuple[int, int], tuple[float, float]]:
        """Choose (height, width) of a view, and the range of its share of the area."""
        if view < self.views - self.local_views:
            return _sides(self.global_size, self.size), self.scale
        return _sides(self.local_size, self.size), self.local_scale

    def check(self, pixels: Tensor) -> None:
        """See that the values of pixels that are no bytes are such that colours can be changed."""
        if pixels.dtype == torch.uint8 or not (self._ever("jitter") or self._ever("solarise")):
            return
        low, high = float(pixels.min()), float(pixels.max())
        if low < 0 or high > 1:
            raise DataError(
                f"expected values of 8 bits or from 0 to 1 to change colours, got {low:.3g} to {high:.3g}: scale them, "
                "or set data.view_transform.jitter and data.view_transform.solarise to 0"
            )

    def change(self, pixels: Tensor, view: int) -> Tensor:
        """Change the colours of (..., C, H, W), uint8 or floats, and blur it: all in front alike."""
        if pixels.dtype != torch.uint8 and (self._ever("jitter") or self._ever("solarise")):
            pixels = pixels.clamp(0, 1)  # beyond which bicubic interpolation goes
        if self._happens("jitter", view):
            pixels = self.colours(pixels)
        if self._happens("grey", view) and self.channels == 3:
            pixels = v2.functional.rgb_to_grayscale(pixels, num_output_channels=3)
        if self._happens("blur", view):
            pixels = blurred(pixels, float(torch.empty(()).uniform_(*self.sigma)))
        if self._happens("solarise", view):
            pixels = v2.functional.solarize(pixels, 128 if pixels.dtype == torch.uint8 else 0.5)
        return pixels

    def chance(self, name: str, view: int) -> float:
        """The probability of jitter, grey, blur or solarise in a view."""
        chances = _listed(self.chances[name])
        return chances[min(view, len(chances) - 1)]

    def _ever(self, name: str) -> bool:
        return any(self.chance(name, view) > 0 for view in range(self.views))

    def _happens(self, name: str, view: int) -> bool:
        return bool(torch.rand(()) < self.chance(name, view))


def _sides(own: int | tuple[int, int] | None, size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a crop: its own, or that of the data's images."""
    own = size if own is None else own
    height, width = (own, own) if isinstance(own, int) else own
    return height, width


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def blurred(pixels: Tensor, sigma: float) -> Tensor:
    """Blur (..., C, H, W) by a Gaussian kernel of a tenth of the height (odd, at least 3), in its own type."""
    side = max(3, pixels.shape[-2] // 10 | 1)
    if side // 2 >= min(pixels.shape[-2:]):
        return pixels
    soft = pixels.float()
    for kernel in ([side, 1], [1, side]):  # one axis after the other is the same, and several times as fast
        soft = v2.functional.gaussian_blur(soft, kernel, [sigma, sigma])
    return soft.round().to(pixels.dtype) if pixels.dtype == torch.uint8 else soft
