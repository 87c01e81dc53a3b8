"""Segments of long samples as a modality: a JEPA on top of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from jepa_lightning.encoders import SinCosPositions, TokenSpec, ViT
from jepa_lightning.encoders.base import Encoder
from jepa_lightning.encoders.pooling import Pooling
from jepa_lightning.hierarchy import pictures
from jepa_lightning.hierarchy.encoder import SegmentEncoder, pooled_width
from jepa_lightning.hierarchy.tokenizer import SegmentTokenizer, segment_grid
from jepa_lightning.maskers import Masker, Random
from jepa_lightning.modality import Batch, EncoderFactory, Modality, Tokenizer
from jepa_lightning.tokens import Masks, Tokens


class Segments(Modality):
    """Long samples as segments, each of which is one token: the pooled latents of a first level's encoder.

    The second level of a hierarchical JEPA (LeCun 2022, "A path towards autonomous machine intelligence", section 4.6):
    the first level represents a short span in detail, the second what changes slowly, over a longer horizon. A segment
    is a sample as the first level takes it: some frames of a long clip, a cell of a large image, a second of audio.
    Masks, predictors and pretexts work on segments as on any tokens.

    With `frozen`, the default, the first level is one that is trained already: give its encoder the run as `weights`
    (`ViT`). These weights become part of this run's checkpoint, so that `load` needs nothing else. With
    `frozen: false` and the pretext `Hierarchy` both levels are trained together.

    The features are those of the second level, one token a segment. Data are those of the first level, `parts` times
    as long.

    Args:
        level: the first level, for a sample of a segment's size: its tokenizer, masker and encoder.
        parts: number of segments along each axis: of clips (time, height, width), of images (height, width), of audio
            (time,).
        encoder: builds the second level's encoder.
        masker: draws which segments are context and which are targets.
        pooling: how a segment's tokens are pooled; "quarters" keeps where things are.
        frozen: leave the first level's weights as they are.

    Raises:
        ValueError: samples of the first level cannot be cut, or `parts` do not fit them.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from jepa_lightning.encoders import ViT
        >>> from jepa_lightning.hierarchy import Segments
        >>> from modalities.video import Video
        >>> small = partial(ViT, width=32, depth=1, heads=2)
        >>> level = Video(frames=4, image_size=32, patch_size=8, encoder=small)
        >>> long = Segments(level=level, parts=[6, 1, 1], encoder=partial(ViT, width=48, depth=1, heads=2))
        >>> tokens = long.tokenizer({"video": torch.randn(2, 3, 24, 32, 32)})
        >>> tokens.values.shape, long.encoder(tokens).shape
        (torch.Size([2, 6, 32, 3, 2, 8, 8]), torch.Size([2, 6, 48]))
    """

    masks_legend = "Each row of segments, from above: the sample, what the context shows, and what is predicted."

    def __init__(
        self,
        *,
        level: Modality,
        parts: Sequence[int],
        encoder: EncoderFactory = ViT,
        masker: Masker | None = None,
        pooling: Pooling = "mean",
        frozen: bool = True,
    ) -> None:
        extent = level.extent
        if extent is None:
            raise ValueError(
                f"samples of the modality {level.name} cannot be cut into segments: set its extent, as those of "
                "images, clips and audio do"
            )
        if len(parts) != len(extent.sizes) or min(parts) < 1 or max(parts) < 2:
            raise ValueError(
                f"expected parts with a number for each of {len(extent.sizes)} axes of {level.name}, at least one of "
                f"them above 1, got {list(parts)}"
            )
        self.level = level
        self.name = level.name
        self.parts = tuple(parts)
        self.tokenizer = SegmentTokenizer(level.tokenizer, extent, self.parts)
        self.grid = segment_grid(self.parts)
        count = extent.tokens
        self.spec = TokenSpec(shape=(count, *level.spec.shape), grid=self.grid, positions=SinCosPositions)
        width = pooled_width(level.encoder.dim, pooling, level.spec.grid)
        second = encoder(TokenSpec(shape=(width,), grid=self.grid, positions=SinCosPositions))
        self.masker = masker or Random(target_ratio=0.5)
        self.encoder = SegmentEncoder(level.encoder, second, pooling=pooling, frozen=frozen)
        for name, value in extent.settings(self.parts).items():
            setattr(self, name, value)  # the data take their sizes from here

    def using(self, tokenizer: Tokenizer, encoder: Encoder) -> Self:
        """Return the same modality, and the same first level, with other tokenizers and encoders."""
        assert isinstance(tokenizer, SegmentTokenizer)
        assert isinstance(encoder, SegmentEncoder)
        found = super().using(tokenizer, encoder)
        found.level = self.level.using(tokenizer.tokenizer, encoder.first)
        return found

    def draw_masks(self, batch: Batch, masks: list[Masks]) -> list[Tensor] | None:
        """Draw the segments of each sample side by side, then those of each context and of its targets."""
        drawn = self._drawn(batch)
        return None if drawn is None else pictures.masks(drawn, masks)

    def draw_features(self, batch: Batch, tokens: Tokens, colours: Tensor) -> list[Tensor] | None:
        """Draw the segments of each sample side by side, and below each its colour."""
        drawn = self._drawn(batch)
        return None if drawn is None else pictures.features(drawn, colours)

    def draw_samples(self, batch: Batch) -> list[Tensor] | None:
        """Draw the whole samples, as the first level does."""
        return self.level.draw_samples(batch)

    def example(self, count: int, generator: torch.Generator) -> Batch | None:
        """Make long samples of random segments."""
        segments = torch.Size(self.parts).numel()
        made = self.level.example(count * segments, generator)
        return None if made is None else self._tokenizer.join(made)

    def raw_features(self, batch: Batch) -> Tensor | None:
        """Return the first level's raw features of each segment, averaged: (B, D)."""
        raw = self.level.raw_features(self._tokenizer.cut(batch))
        return None if raw is None else raw.float().unflatten(0, (-1, torch.Size(self.parts).numel())).mean(1)

    @property
    def _tokenizer(self) -> SegmentTokenizer:
        assert isinstance(self.tokenizer, SegmentTokenizer)
        return self.tokenizer

    def _drawn(self, batch: Batch) -> list[list[Tensor]] | None:
        """Pictures of each sample's segments."""
        drawn = self.level.draw_samples(self._tokenizer.cut(batch))
        if not drawn:
            return None
        count = torch.Size(self.parts).numel()
        return [drawn[start : start + count] for start in range(0, len(drawn), count)]
