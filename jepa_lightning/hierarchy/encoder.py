"""Two encoders, one on top of the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from itertools import chain

import torch
from torch import Tensor, nn

from jepa_lightning.encoders.base import Encoder
from jepa_lightning.encoders.pooling import Pooling, pool_tokens
from jepa_lightning.hierarchy.tokenizer import SegmentTokens, of_latents
from jepa_lightning.tokens import Tokens


class SegmentEncoder(Encoder):
    """Encode each segment with the first level, pool it to one token, and encode these with the second level.

    Hidden segments are dropped before the first level sees them. Called with tokens of the first level (any but
    `SegmentTokens`), it is the first level's encoder: so a pretext trains both through one `forward`.

    Args:
        first: of the first level.
        second: of the second, built for tokens of `pooled_width` numbers.
        pooling: how a segment's tokens are pooled.
        frozen: leave the first level as it is: in eval mode and without gradient.
    """

    def __init__(self, first: Encoder, second: Encoder, *, pooling: Pooling = "mean", frozen: bool = True) -> None:
        super().__init__()
        self.first = first
        self.second = second
        self.pooling = pooling
        self.frozen = frozen
        self.dim = second.dim
        self.depth = second.depth
        if frozen:
            self.freeze(first)

    @property
    def layers(self) -> Iterable[nn.Module]:
        """Return the layers of both levels."""
        return list(chain(self.first.layers, self.second.layers))

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """Return what gives the number of a parameter's layer: 0 for the first level, then those of the second."""
        second = self.second.group_matcher(coarse)
        return lambda name: 0 if name.startswith("first.") else second(name.removeprefix("second."))

    def segments(self, tokens: SegmentTokens) -> Tensor:
        """Encode and pool segments with the first level: (B, S, D) latents."""
        with torch.no_grad() if self.frozen else nullcontext():
            encoded = self.first(tokens.inner())
            pooled = pool_tokens(encoded, how=self.pooling, grid=tokens.inner_grid)
        return pooled.unflatten(0, (-1, tokens.count))

    def forward(
        self,
        tokens: Tokens,
        keep: Tensor | None = None,
        keep_valid: Tensor | None = None,
        *,
        layers: Sequence[int] = (),
    ) -> Tensor:
        """Encode all segments or the kept ones by both levels; tokens of the first level by it. See `Encoder`."""
        options = {"layers": layers} if layers else {}
        if not isinstance(tokens, SegmentTokens):
            with torch.no_grad() if self.frozen else nullcontext():
                return self.first(tokens, keep, keep_valid, **options)
        if keep is not None:
            kept = tokens.take(keep, keep_valid)
            assert isinstance(kept, SegmentTokens)
            tokens = kept
        return self.second(of_latents(tokens, self.segments(tokens)), **options)


def pooled_width(dim: int, pooling: Pooling, grid: Sequence[int] | None) -> int:
    """Return the width of a pooled segment whose tokens have `dim` channels and fill `grid`."""
    if pooling == "quarters":
        return dim * math.prod(2 if size > 1 else 1 for size in grid or ())
    return dim * (2 if pooling == "mean+max" else 1)
