"""Long samples to segments, each with the tokens of the first level."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.modality import Batch, Extent, Tokenizer
from jepa_lightning.patches import patchify, unpatchify
from jepa_lightning.tokens import Tokens, send


@dataclass(frozen=True, kw_only=True)
class SegmentTokens(Tokens):
    """Segments as tokens: `values` (B, S, n, ...) are the n raw tokens of each of S segments.

    Attributes:
        inner_positions: (1, n, P) coordinates of a segment's own tokens, the same in all segments.
        inner_grid: the grid that they fill, or None.
    """

    inner_positions: torch.Tensor
    inner_grid: tuple[int, ...] | None = None

    def inner(self) -> Tokens:
        """Return the tokens of all segments as samples of the first level: values (B S, n, ...)."""
        assert isinstance(self.values, torch.Tensor)
        return Tokens(values=self.values.flatten(0, 1), positions=self.inner_positions, grid=self.inner_grid)


class SegmentTokenizer(Tokenizer):
    """Cut long samples into segments of one size, and each segment into tokens of the first level.

    Args:
        tokenizer: the first level's, for samples of a segment's size.
        extent: the sizes of such a sample.
        parts: number of segments along each axis that is cut.

    Raises:
        ValueError: when called: samples of another size, or tokens that differ in number or place.
    """

    def __init__(self, tokenizer: Tokenizer, extent: Extent, parts: tuple[int, ...]) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.extent = extent
        self.parts = parts
        self.grid = segment_grid(parts)

    @property
    def needs_statistics(self) -> bool:  # type: ignore[override]
        """Whether the first level's tokenizer needs statistics of the data."""
        return self.tokenizer.needs_statistics

    def estimate(self, batches: Iterable[Batch]) -> None:
        """Let the first level's tokenizer estimate them from segments."""
        self.tokenizer.estimate(self.cut(batch) for batch in batches)

    def cut(self, batch: Batch) -> Batch:
        """Cut the samples: B long ones to B S of the first level, those of a sample one after the other.

        Raises:
            ValueError: the batch has no such samples, or they have another size.
        """
        key, sizes = self.extent.key, self.extent.sizes
        if key not in batch:
            raise ValueError(f"expected batches with {key!r}, got {sorted(batch)}: use the data of the first level")
        values = batch[key]
        whole = tuple(part * size for part, size in zip(self.parts, sizes, strict=True))
        if tuple(values.shape[-len(sizes) :]) != whole:
            raise ValueError(
                f"expected samples of {whole}, {self.parts} segments of {sizes}, got "
                f"{tuple(values.shape[-len(sizes) :])}: make parts and the first level's sizes those of the data"
            )
        channels = values.ndim > len(sizes) + 1
        cut = patchify(values if channels else values.unsqueeze(1), sizes).flatten(0, 1)
        return {key: cut if channels else cut.squeeze(1)}

    def join(self, batch: Batch) -> Batch:
        """Put B S samples of the first level together to B long ones, as before `cut`."""
        key, sizes = self.extent.key, self.extent.sizes
        values = batch[key]
        channels = values.ndim > len(sizes) + 1
        values = (values if channels else values.unsqueeze(1)).unflatten(0, (-1, math.prod(self.parts)))
        whole = unpatchify(values, self.parts)
        return {key: whole if channels else whole.squeeze(1)}

    def forward(self, batch: Batch) -> SegmentTokens:
        """Tokens with values (B, S, n, ...) of a batch of long samples."""
        tokens = self.tokenizer(self.cut(batch))
        if tokens.valid is not None or tokens.positions.shape[0] != 1 or not isinstance(tokens.values, torch.Tensor):
            raise ValueError(
                "expected segments whose tokens are the same in number and place, such as those of images, clips and "
                "spectrograms; got tokens that differ between samples"
            )
        return SegmentTokens(
            values=tokens.values.unflatten(0, (-1, math.prod(self.parts))),
            positions=grid_positions(self.grid, tokens.device),
            grid=self.grid,
            inner_positions=tokens.positions,
            inner_grid=tokens.grid,
        )


def segment_grid(parts: tuple[int, ...]) -> tuple[int, ...]:
    """Return the segments' grid: the parts, without axes of a single one."""
    return tuple(part for part in parts if part > 1)


def of_latents(tokens: SegmentTokens, latents: torch.Tensor) -> Tokens:
    """Return the tokens of the second level, whose values are latents (B, S, D) of the segments."""
    return Tokens(values=latents, positions=tokens.positions, grid=tokens.grid, valid=tokens.valid)


def some_segments(tokens: SegmentTokens, count: int | None, generator: torch.Generator) -> SegmentTokens:
    """Return `count` segments of each sample, drawn at random; None: all."""
    total = tokens.count
    if count is None or count >= total:
        return tokens
    keys = torch.rand(tokens.batch_size, total, generator=generator)
    keep = send(keys.argsort(1)[:, :count], tokens.device)
    taken = tokens.take(keep)
    assert isinstance(taken, SegmentTokens)
    return taken
