"""Predictors: from the context's representations and two sets of positions to the targets' representations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn

from jepa_lightning.encoders.base import TokenSpec
from jepa_lightning.encoders.rotary import RotaryForm
from jepa_lightning.encoders.transformer import Transformer, check_sizes, init_weights
from jepa_lightning.objectives import pool


class Predictor(nn.Module, ABC):
    """Predicts what the teacher says at the targets from what the encoder says of the context."""

    @property
    @abstractmethod
    def blocks(self) -> Iterable[nn.Module]:
        """The residual blocks in order: the units that are checkpointed, compiled and sharded."""

    @abstractmethod
    def forward(
        self,
        context: Tensor,
        context_positions: Tensor,
        target_positions: Tensor,
        context_valid: Tensor | None = None,
        target_valid: Tensor | None = None,
    ) -> Tensor:
        """Predict all target blocks of every sample.

        Args:
            context: (B, K, D) representations of the context tokens.
            context_positions: (B, K, P) where they lie.
            target_positions: (B, M, T, P) where the tokens to predict lie.
            context_valid: (B, K) bool, False for filler, or None.
            target_valid: (B, M, T) bool, likewise.

        Returns:
            (B, M, T, D).
        """


PredictorFactory = Callable[[int, TokenSpec], Predictor]
"""Builds a predictor from the encoder's width D and the token spec; a `Predictor` class does."""


class TransformerPredictor(Predictor):
    """I-JEPA's predictor (Assran et al. 2023, section 3): a narrow ViT over the context and mask tokens.

    The context is projected to the predictor's width once; each target block then joins it as mask tokens (one shared
    learned vector plus the position), all M blocks of a sample in one call of batch B M. Blocks do not see each other.

    Args:
        dim: the encoder's width D, given by the module.
        spec: the tokens' spec, given by the module.
        width: the predictor's own width (384 in the paper for every encoder).
        depth: number of blocks (6 in the paper for ViT-B, 12 for L and H, by its appendix).
        heads: attention heads.
        mlp_ratio: hidden width of the MLP over the width.
        drop_path: stochastic depth of the last block.
        rotary: `interleaved` or `released` for rotary attention on the coordinates (as in V-JEPA 2) in place of the
            modality's position embedding; the queries are then the mask token alone.
    """

    def __init__(
        self,
        dim: int,
        spec: TokenSpec,
        *,
        width: int = 384,
        depth: int = 6,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        rotary: RotaryForm | None = None,
    ) -> None:
        super().__init__()
        check_sizes(width=width, depth=depth, heads=heads, mlp_ratio=mlp_ratio)
        self.embed = nn.Linear(dim, width)
        self.positions = None if rotary else spec.positions(width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.transformer = Transformer(
            width=width, depth=depth, heads=heads, mlp_ratio=mlp_ratio, drop_path=drop_path, rotary=rotary
        )
        self.project = nn.Linear(width, dim)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        init_weights(self.embed)
        init_weights(self.project)

    @property
    def blocks(self) -> Iterable[nn.Module]:
        """The Transformer's blocks."""
        return self.transformer.blocks

    def forward(
        self,
        context: Tensor,
        context_positions: Tensor,
        target_positions: Tensor,
        context_valid: Tensor | None = None,
        target_valid: Tensor | None = None,
    ) -> Tensor:
        """Predict (B, M, T, D); see `Predictor.forward`."""
        kept = context.shape[1]
        batch, blocks, length = target_positions.shape[:3]
        context = self.embed(context)
        positions = None
        if self.positions is None:
            queries = self.mask_token.to(context.dtype).expand(batch, blocks, length, -1)
            positions = _joined(context_positions, target_positions)
        else:
            context = context + self.positions(context_positions).to(context.dtype)
            queries = (self.mask_token + self.positions(target_positions)).to(context.dtype)
        valid = _joined_valid(context_valid, target_valid, (batch, blocks, kept, length))
        x = self.transformer(_joined(context, queries), valid, positions)
        return self.project(x[:, kept:]).unflatten(0, (batch, blocks))


class MLPPredictor(Predictor):
    """Graph-JEPA's predictor: an MLP of the pooled context and where the target lies, each target token by itself.

    The context's tokens, with the embedding of where they lie added, are averaged over the real ones; the embedding of
    a target's position joins the mean (Skenderi et al. 2023), and the sum goes through the layers. Targets
    do not see each other, nor do the tokens of a block.

    Deviation: there, the context is one token, and its position is known to the encoder alone.

    Args:
        dim: the encoder's width D, given by the module.
        spec: the tokens' spec, given by the module.
        width: width of the hidden layers.
        depth: number of linear maps; the hidden ones are followed by LayerNorm and GELU.
    """

    def __init__(self, dim: int, spec: TokenSpec, *, width: int = 384, depth: int = 2) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        self.positions = spec.positions(dim)
        sizes = [dim] + [width] * (depth - 1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(before, after), nn.LayerNorm(after), nn.GELU()) for before, after in pairwise(sizes)
        )
        self.project = nn.Linear(sizes[-1], dim)

    @property
    def blocks(self) -> Iterable[nn.Module]:
        """The hidden layers."""
        return self.layers

    def forward(
        self,
        context: Tensor,
        context_positions: Tensor,
        target_positions: Tensor,
        context_valid: Tensor | None = None,
        target_valid: Tensor | None = None,
    ) -> Tensor:
        """Predict (B, M, T, D); see `Predictor.forward`."""
        seen = pool(context + self.positions(context_positions).to(context.dtype), context_valid)
        x = seen[:, None, None] + self.positions(target_positions).to(seen.dtype)
        for layer in self.layers:
            x = layer(x)
        return self.project(x)


def _joined(context: Tensor, targets: Tensor) -> Tensor:
    """The sequences [context, one block]: (B, K, ...) and (B, M, T, ...) to (B M, K + T, ...)."""
    context = context.unsqueeze(1).expand(-1, targets.shape[1], *context.shape[1:])
    return torch.cat([context, targets], dim=2).flatten(0, 1)


def _joined_valid(
    context_valid: Tensor | None, target_valid: Tensor | None, sizes: tuple[int, int, int, int]
) -> Tensor | None:
    """Validity of the sequence [context, one block] for B M sequences: (B M, K + T), or None when all is real."""
    if context_valid is None and target_valid is None:
        return None
    batch, blocks, kept, length = sizes
    device = (context_valid if context_valid is not None else target_valid).device  # type: ignore[union-attr]
    if context_valid is None:
        context_valid = torch.ones(batch, kept, dtype=torch.bool, device=device)
    if target_valid is None:
        target_valid = torch.ones(batch, blocks, length, dtype=torch.bool, device=device)
    return _joined(context_valid, target_valid)
