"""From a sample's tokens to one vector: the features that everything is evaluated by."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Literal

import torch
from torch import Tensor, nn

from jepa_lightning.encoders.base import Encoder
from jepa_lightning.encoders.last_layers import encode_last
from jepa_lightning.joint_tokens import JointTokens
from jepa_lightning.precision import autocast_in_half
from jepa_lightning.tokens import Tokens, pool

Pooling = Literal["mean", "max", "mean+max", "quarters", "segments"]

SEGMENTS = 4
"""Number of segments of the pooling "segments"."""


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put `module` in eval mode without gradients, and restore the mode of each part at the end."""
    training = [part for part in module.modules() if part.training]
    try:
        for part in training:
            part.training = False
        with torch.no_grad():
            yield
    finally:
        for part in training:
            part.training = True


def train_unfrozen(part: nn.Module) -> None:
    """Put a part in training mode where it has parameters to train; parts without any follow what they lie in."""
    part.training = True
    for child in part.children():
        own = list(child.parameters())
        if not own or any(parameter.requires_grad for parameter in own):
            train_unfrozen(child)


def pooled_features(encoder: Encoder, tokens: Tokens, *, pooling: Pooling = "mean", layers: int = 1) -> Tensor:
    """Encode all tokens and pool those that are real: (B, D) float32; (B, 2 D) with "mean+max".

    With "quarters" (B, 4 D) for images, with "segments" (B, 4 D), see `pool_tokens`. Of M modalities, each is pooled by
    itself, and they lie side by side: (B, M D).

    The one way from tokens to features: of `JEPA.embed`, `Frozen.embed`, the online probe and the benchmarks. The
    encoder is used in eval mode and without gradient, in the autocast that is around.

    Args:
        encoder: in any mode.
        tokens: a batch.
        pooling: "mean", "max", "mean+max", "quarters" or "segments".
        layers: the last layers side by side, see `encode_last`.
    """
    with evaluating(encoder), autocast_in_half(tokens.device):
        return pool_sample(encode_last(encoder, tokens, layers).float(), tokens, how=pooling)


def pool_sample(features: Tensor, tokens: Tokens, *, how: Pooling = "mean") -> Tensor:
    """Pool the features (B, N, D) of all `tokens`: (B, D), as `pool_tokens`; of M modalities side by side, (B, M D)."""
    if not isinstance(tokens, JointTokens):
        return pool_tokens(features, tokens.valid, how=how, grid=tokens.grid)
    found = tokens.split(features)
    pooled = [pool_tokens(found[name], part.valid, how=how, grid=part.grid) for name, part in tokens.parts.items()]
    return torch.cat(pooled, dim=1)


def pool_tokens(
    features: Tensor, valid: Tensor | None = None, *, how: Pooling = "mean", grid: Sequence[int] | None = None
) -> Tensor:
    """Mean, maximum, or both side by side over the real tokens: (B, N, D) to (B, D) or (B, 2 D).

    "quarters" says roughly where things are: the mean of each half of every axis of the grid, side by side, which are
    the four quarters of an image: (B, 4 D). Of a grid with one place along an axis, that axis is not halved; the middle
    of an odd axis belongs to both halves.

    "segments" says roughly when things are: the mean of each of four segments of equal length along the last axis of
    the grid, side by side: (B, 4 D). That is time in a spectrogram, and the order of tokens in a text. A sample is
    divided from its first to its last step with real tokens, so that padding does not count, and recordings spoken
    faster or slower are divided alike. Segments are those of adaptive average pooling: a step that a border cuts
    belongs to both sides, and of fewer than four steps, some are in several segments.

    Args:
        features: (B, N, D).
        valid: (B, N) bool, False for padding; a sample (or a quarter) without real tokens gives zeros.
        how: "mean", "max", "mean+max", "quarters" or "segments".
        grid: sizes of the grid that the tokens fill in raster order; for "quarters" and "segments".

    Raises:
        ValueError: an unknown pooling, or quarters or segments of tokens on no grid.
    """
    if how in ("quarters", "segments"):
        if grid is None or math.prod(grid) != features.shape[1]:
            raise ValueError(
                f"the pooling {how} needs tokens on a grid, got {features.shape[1]} tokens and the grid {grid}: use "
                "mean"
            )
        return (_quarters if how == "quarters" else _segments)(features, valid, grid)
    if how not in ("mean", "max", "mean+max"):
        raise ValueError(f"expected the pooling mean, max, mean+max, quarters or segments, got {how!r}")
    parts = [pool(features, valid)] if "mean" in how else []
    if "max" in how:
        if valid is None:
            parts.append(features.amax(1))
        else:
            largest = features.masked_fill(~valid.unsqueeze(-1), -torch.inf).amax(1)
            parts.append(largest.masked_fill(~valid.any(1, keepdim=True), 0))
    return torch.cat(parts, dim=1)


def _quarters(features: Tensor, valid: Tensor | None, grid: Sequence[int]) -> Tensor:
    """The means of the halves of each axis of the grid, side by side."""
    index = torch.arange(features.shape[1], device=features.device).view(*grid)
    parts = []
    for halves in product(*(_halves(size) for size in grid)):
        inside = index[halves].flatten()
        parts.append(pool(features[:, inside], None if valid is None else valid[:, inside]))
    return torch.cat(parts, dim=1)


def _halves(size: int) -> list[slice]:
    return [slice(0, (size + 1) // 2), slice(size // 2, size)] if size > 1 else [slice(0, 1)]


def _segments(features: Tensor, valid: Tensor | None, grid: Sequence[int]) -> Tensor:
    """The means of segments of the last axis of the grid, side by side."""
    if valid is None:
        valid = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
    rows = math.prod(grid[:-1])
    real = valid.view(-1, rows, grid[-1]).any(1)  # (B, T): steps with any real token
    place, count = real.cumsum(1) - 1, real.sum(1, keepdim=True)
    parts = []
    for number in range(SEGMENTS):
        first, behind = number * count // SEGMENTS, -(-(number + 1) * count // SEGMENTS)
        inside = (place >= first) & (place < behind)
        parts.append(pool(features, valid & inside.repeat(1, rows)))
    return torch.cat(parts, dim=1)
