"""Pictures of texts: tokens one behind the other in lines, on the colour of what a mask or a feature makes of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from jepa_lightning.pictures.drawing import GAP, role_colours, roles
from jepa_lightning.pictures.letters import INK, LINE, PAPER, clean, font, length, to_tensor
from jepa_lightning.tokens import Masks

WIDTH = 448  # pixels of a picture
MOST = 160  # tokens that are drawn of a text
_LEAST = 4  # lines of a picture without masks, so that those of short texts are alike
_WHITE = (1.0, 1.0, 1.0)

Colour = Sequence[float]


def masks(texts: Sequence[Sequence[str]], draws: Sequence[Masks], count: int) -> list[Tensor]:
    """Draw what the context of each draw shows, hidden tokens as boxes, and below it all: one uint8 (3, H, W) a sample.

    Context tokens are on light blue, targets on the warm colours of their blocks, others on grey.

    Args:
        texts: of the tokens of each sample.
        draws: the masks.
        count: N.
    """
    parts: list[list[Tensor]] = [[] for _ in texts]
    for mask in draws:
        found = roles(mask, count).cpu()
        colours = role_colours(mask.targets.shape[1])
        colours[-1] = 0.25 * colours[-1] + 0.75  # lighter, so that the words on it can be read
        colours[1:-1] = 0.6 * colours[1:-1] + 0.4
        context = mask.targets.shape[1] + 1
        for written, of_token, done in zip(texts, found, parts, strict=True):
            boxes = colours[of_token].tolist()
            shown = [role == context for role in of_token.tolist()]
            done += [_drawn(written, boxes, shown), _drawn(written, boxes)]
    return [_column(done) for done in parts]


def features(texts: Sequence[Sequence[str]], colours: Tensor) -> list[Tensor]:
    """Draw each text, its tokens on `colours` (B, N, 3) in 0-1, made lighter: one uint8 (3, H, W) a sample."""
    light = 0.5 * colours.detach().float().cpu() + 0.5  # so that words on dark colours can be read
    return [_drawn(written, of_text.tolist(), lines=_LEAST) for written, of_text in zip(texts, light, strict=True)]


def samples(texts: Sequence[Sequence[str]]) -> list[Tensor]:
    """Draw each text: one uint8 (3, H, W) a sample."""
    return [_drawn(written, [_WHITE] * len(written), lines=_LEAST) for written in texts]


def _drawn(
    written: Sequence[str], boxes: Sequence[Colour], shown: Sequence[bool] | None = None, *, lines: int = 1
) -> Tensor:
    """Draw tokens in lines, those that are not `shown` as empty boxes of their size; at least so many `lines`."""
    places, x, line = [], 0, 0
    for piece in written[:MOST]:
        size = min(max(length(clean(piece)), 3), WIDTH)
        if x + size > WIDTH:
            x, line = 0, line + 1
        places.append((x, line, size))
        x += size
        if "\n" in piece:
            x, line = 0, line + 1
    lines = max((places[-1][1] if places else 0) + 1, lines)
    image = Image.new("RGB", (WIDTH, lines * LINE), PAPER)
    draw = ImageDraw.Draw(image)
    for number, ((left, row, size), colour) in enumerate(zip(places, boxes, strict=False)):
        top = row * LINE
        fill = tuple(round(255 * value) for value in colour)
        draw.rectangle((left, top + 1, left + size - 1, top + LINE - 2), fill=fill)
        if shown is None or shown[number]:
            draw.text((left, top + 1), clean(written[number]), font=font(), fill=INK)
    return to_tensor(image)


def _column(parts: Sequence[Tensor]) -> Tensor:
    """Put pictures of one width under each other, white between them."""
    gap = torch.full((3, GAP, WIDTH), 255, dtype=torch.uint8)
    return torch.cat([piece for part in parts for piece in (gap, part)][1:], dim=1)
