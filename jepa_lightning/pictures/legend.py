"""What is written below a picture: what it shows, what its colours stand for, and names under its parts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from jepa_lightning.pictures.drawing import HOT, colour_map
from jepa_lightning.pictures.letters import INK, LINE, PAPER, clean, cut, font, length, to_tensor, wrapped

WIDTH = 600  # pixels of a picture with a legend, at least
FEATURES_LEGEND = "The first three principal components of token features as colours: tokens of one colour are alike."
_MARGIN = 6
_BAR = (160, 12)  # size of a colour bar


@dataclass(frozen=True)
class Legend:
    """What a picture shows.

    Attributes:
        text: a sentence.
        ends: what the darkest and the brightest colour of `heat` stand for; a colour bar is then drawn.
    """

    text: str
    ends: tuple[str, str] | None = None


def with_legend(picture: Tensor, legend: Legend) -> Tensor:
    """Put a legend below a picture, uint8 (3, H, W) or (F, 3, H, W).

    A picture narrower than `WIDTH` is enlarged by a whole factor first, unless it moves, and padded with white to that
    width.
    """
    factor = max(1, WIDTH // picture.shape[-1]) if picture.ndim == 3 else 1
    picture = picture.repeat_interleave(factor, -2).repeat_interleave(factor, -1)
    picture = F.pad(picture, (0, max(0, WIDTH - picture.shape[-1])), value=255)
    return _under(picture, _drawn(legend, picture.shape[-1]))


def with_name(picture: Tensor, name: str) -> Tensor:
    """Put a name, cut to the picture's width, below a picture, uint8 (3, H, W) or (F, 3, H, W)."""
    image = Image.new("RGB", (picture.shape[-1], LINE), PAPER)
    ImageDraw.Draw(image).text((0, 1), cut(clean(name), image.width), font=font(), fill=INK)
    return _under(picture, to_tensor(image))


def _under(picture: Tensor, below: Tensor) -> Tensor:
    return torch.cat([picture, below.expand(*picture.shape[:-3], -1, -1, -1)], dim=-2)


def _drawn(legend: Legend, width: int) -> Tensor:
    """Draw a legend as uint8 (3, H, width)."""
    lines = wrapped(clean(legend.text), width - 2 * _MARGIN)
    rows = len(lines) + (legend.ends is not None)
    image = Image.new("RGB", (width, 2 * _MARGIN + LINE * rows), PAPER)
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text((_MARGIN, _MARGIN + number * LINE), line, font=font(), fill=INK)
    if legend.ends is not None:
        low, high = legend.ends
        left, top = _MARGIN + length(low) + 6, _MARGIN + len(lines) * LINE
        bar = (colour_map(torch.linspace(0, 1, _BAR[0]), HOT) * 255).round().to(torch.uint8)
        image.paste(Image.fromarray(bar.expand(_BAR[1], -1, -1).numpy()), (left, top + 4))
        draw.text((_MARGIN, top), low, font=font(), fill=INK)
        draw.text((left + _BAR[0] + 6, top), high, font=font(), fill=INK)
    return to_tensor(image)
