"""Pictures of segments side by side: what masks show and hide, and what features look like."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jepa_lightning.pictures.drawing import HIDDEN, shown
from jepa_lightning.pictures.files import beside, stack
from jepa_lightning.tokens import Masks

BAR = 4  # a segment's colour is this part of its height


def masks(drawn: Sequence[Sequence[Tensor]], draws: Sequence[Masks]) -> list[Tensor]:
    """Draw the segments of each sample, then context and targets of each draw: uint8 (3, H, W) a sample.

    Args:
        drawn: pictures of the segments of each sample; of moving ones the middle frame is taken.
        draws: of masks.
    """
    found = []
    for row, segments in enumerate(drawn):
        stills = [_still(segment) for segment in segments]
        rows = [beside(stills)]
        for mask in draws:
            targets, valid = mask.targets.flatten(1), mask.targets_valid
            for index, real in (
                (mask.context, mask.context_valid),
                (targets, None if valid is None else valid.flatten(1)),
            ):
                seen = shown(index, real, (len(stills),))[row, 0]
                rows.append(beside([s if on else _hidden(s) for s, on in zip(stills, seen.tolist(), strict=True)]))
        found.append(stack(rows))
    return found


def features(drawn: Sequence[Sequence[Tensor]], colours: Tensor) -> list[Tensor]:
    """Draw the segments of each sample, and a bar of its colour, of `colours` (B, S, 3) in 0-1, below each."""
    found = []
    for segments, own in zip(drawn, (colours.detach().float().cpu() * 255).round().to(torch.uint8), strict=True):
        stills = [_still(segment) for segment in segments]
        bars = [
            colour.view(3, 1, 1).expand(3, max(still.shape[1] // BAR, 1), still.shape[2])
            for still, colour in zip(stills, own, strict=True)
        ]
        found.append(stack([beside(stills), beside(bars)]))
    return found


def _still(picture: Tensor) -> Tensor:
    return picture[len(picture) // 2] if picture.ndim == 4 else picture


def _hidden(picture: Tensor) -> Tensor:
    return torch.full_like(picture, round(HIDDEN * 255))
