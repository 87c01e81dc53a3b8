"""Writing in pictures: one font, the width of a text in it, lines."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFont
from torch import Tensor

LETTERS = 14  # size of the letters, in pixels
LINE = 20  # pixels from line to line
INK = (20, 20, 20)
PAPER = (255, 255, 255)


@lru_cache(maxsize=1)
def font() -> Any:
    """The font of all pictures, which comes with Pillow."""
    return ImageFont.load_default(LETTERS)


def clean(text: str) -> str:
    """`text` with spaces for letters that cannot be printed."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def length(text: str) -> int:
    """Width of a text in pixels."""
    return int(np.ceil(font().getlength(text)))


def cut(text: str, width: int) -> str:
    """`text`, its end replaced by … if it is wider than `width` pixels."""
    if length(text) <= width:
        return text
    while text and length(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…" if text else ""


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` pixels, where words allow it."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and length(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def to_tensor(image: Image.Image) -> Tensor:
    """An image as uint8 (3, H, W)."""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).contiguous()
