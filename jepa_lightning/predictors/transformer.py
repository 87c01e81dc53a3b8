"""I-JEPA's predictor: a narrow Transformer over context and mask tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from jepa_lightning.encoders.rotary import RotaryForm, grid_scale
from jepa_lightning.encoders.stored_positions import position_embedding
from jepa_lightning.encoders.transformer import Transformer, check_sizes, init_weights
from jepa_lightning.encoders.transformer_layer import SharedContext
from jepa_lightning.predictors.base import Predictor, PredictorSpec, check_condition
from jepa_lightning.tokens import Latents, Query
from jepa_lightning.weights.formats.fit import load_predictor


class TransformerPredictor(Predictor):
    """I-JEPA's predictor (Assran et al. 2023, section 3): a narrow ViT over the context and mask tokens.

    The context is projected to the predictor's width once; each target block then joins it as mask tokens (one shared
    learned vector plus the position), all M blocks of a sample in one call of batch B M. Blocks do not see each other.
    A condition, if any, is projected likewise and prepended to the context as S tokens (as
    actions in V-JEPA 2-AC: Assran et al. 2025, section 3); a learned vector distinguishes it from the context. A
    condition without positions is at the origin for rotary attention. Where the context's tokens are to be predicted,
    too, they have a linear map of their own at the end (V-JEPA 2.1).

    Args:
        spec: widths and the tokens' spec, given by the module.
        width: the predictor's own width (384 in the paper for every encoder).
        depth: number of layers (6 in the paper for ViT-B, 12 for L and H, by its appendix).
        heads: attention heads.
        mlp_ratio: hidden width of the MLP over the width.
        drop_path: stochastic depth of the last layer.
        rotary: `interleaved` or `released` for rotary attention on the coordinates (as in V-JEPA 2) in place of the
            modality's position embedding; the queries are then only the mask token.
        positions: `stored` for a fixed table, part of the weights; None: the modality's own positions. See `ViT`.
        rotary_grid: see `ViT`.
        norm_eps: likewise.
        mask_tokens: learned vectors for the queries; with several, each draw of masks has its own, as in V-JEPA
            (`Query.mask`, modulo their number).
        shared_context: encode the context once for all blocks of a sample, without sight of the queries: its tokens
            attend to each other only, those of a block to the context and to themselves. This is another function than
            I-JEPA's, where each block has a copy of the context that sees its queries; it saves 41% of a ViT-Ti/16
            step's FLOPs with four blocks (`benchmarks.against_official`), and nothing with one. Not with rotary
            attention.
        weights: likewise: weights to begin with, from a source that has a predictor.

    Examples:
        >>> import torch
        >>> from jepa_lightning.encoders import SinCosPositions, TokenSpec
        >>> from jepa_lightning.predictors import PredictorSpec, TransformerPredictor
        >>> from jepa_lightning.tokens import Latents, Query
        >>> token = TokenSpec(shape=(3, 8, 8), grid=(4, 4), positions=SinCosPositions)
        >>> spec = PredictorSpec(dim=32, out=32, token=token)
        >>> predictor = TransformerPredictor(spec, width=16, depth=2, heads=2)
        >>> context = Latents(values=torch.randn(2, 5, 32), positions=torch.rand(2, 5, 2))
        >>> predictor(context, Query(positions=torch.rand(2, 4, 3, 2))).shape
        torch.Size([2, 4, 3, 32])
    """

    def __init__(
        self,
        spec: PredictorSpec,
        *,
        width: int = 384,
        depth: int = 6,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        rotary: RotaryForm | None = None,
        positions: Literal["stored"] | None = None,
        rotary_grid: tuple[int, int] | None = None,
        norm_eps: float = 1e-6,
        mask_tokens: int = 1,
        shared_context: bool = False,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if rotary and shared_context:
            raise ValueError("rotary attention has no shared context: leave out rotary, or shared_context")
        if positions not in (None, "stored"):
            raise ValueError(f"positions must be stored, or null for the modality's own, got {positions!r}")
        if rotary and positions:
            raise ValueError("rotary attention adds no positions anywhere: leave out rotary, or positions")
        if mask_tokens < 1:
            raise ValueError(f"mask_tokens must be at least 1, got {mask_tokens}")
        check_sizes(width=width, depth=depth, heads=heads, mlp_ratio=mlp_ratio)
        self.condition = spec.condition
        self.predict_context = spec.predict_context
        self.shared_context = shared_context
        self.embed = nn.Linear(spec.dim, width)
        self.rotary_grid = rotary_grid
        self.positions = position_embedding(spec.token, width, rotary=rotary, stored=bool(positions))
        self.mask_token = nn.Parameter(torch.zeros(width) if mask_tokens == 1 else torch.zeros(mask_tokens, width))
        self.transformer = Transformer(
            width=width,
            depth=depth,
            heads=heads,
            mlp_ratio=mlp_ratio,
            drop_path=drop_path,
            rotary=rotary,
            rotary_scale=grid_scale(spec.token.grid, rotary_grid, rotary=rotary),
            norm_eps=norm_eps,
        )
        self.project = nn.Linear(width, spec.out)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        init_weights(self.embed)
        init_weights(self.project)
        if spec.predict_context:
            self.project_context = nn.Linear(width, spec.out)
            init_weights(self.project_context)
        if spec.condition is not None:
            self.embed_condition = nn.Linear(spec.condition, width)
            self.condition_token = nn.Parameter(torch.zeros(width))
            nn.init.trunc_normal_(self.condition_token, std=0.02)
            init_weights(self.embed_condition)
        if weights is not None:
            load_predictor(self, spec.token, weights)

    @property
    def layers(self) -> Iterable[nn.Module]:
        """The Transformer's layers."""
        return self.transformer.layers

    def forward(self, context: Latents, query: Query, condition: Latents | None = None) -> Tensor:
        """Predict (B, M, T, out), or with the context (B, M, K + T, out); see `Predictor.forward`."""
        check_condition(self.condition, condition, type(self).__name__)
        if context.positions is None:
            raise ValueError("TransformerPredictor needs the context's positions, got Latents without positions")
        batch, blocks, length = query.positions.shape[:3]
        seen = self.embed(context.values)
        if self.positions is None:
            queries = self._token(query).to(seen.dtype).expand(batch, blocks, length, -1)
        else:
            seen = seen + self.positions(context.positions).to(seen.dtype)
            queries = (self._token(query) + self.positions(query.positions)).to(seen.dtype)
        places, valid = context.positions, context.valid
        if condition is not None:
            seen, places, valid = self._prepend(condition, seen, places, valid)
        kept = seen.shape[1]
        context_only = context.values.shape[1]
        start = kept - context_only if self.predict_context else kept
        if self.shared_context:
            x = self._share(seen, queries, valid, query, start)
        else:
            positions = join(places, query.positions) if self.positions is None else None
            joined = join_valid(valid, query.valid, kept, query)
            x = self.transformer(join(seen, queries), joined, positions, start=start)
        if self.predict_context:
            x = torch.cat([self.project_context(x[:, :context_only]), self.project(x[:, context_only:])], dim=1)
        else:
            x = self.project(x)
        return x.unflatten(0, (batch, blocks))

    def _share(self, seen: Tensor, queries: Tensor, valid: Tensor | None, query: Query, start: int) -> Tensor:
        """Run the layers with one context for all blocks: (B M, K - start + T, W), as without sharing."""
        kept, blocks = seen.shape[1], queries.shape[1]
        joined = join_valid(valid, query.valid, kept, query)
        shared = SharedContext(
            kept=kept,
            blocks=blocks,
            context_mask=None if valid is None else valid[:, None, None, :],
            block_mask=None if joined is None else joined[:, None, None, :],
        )
        x = self.transformer(torch.cat([seen, queries.flatten(1, 2)], dim=1), start=start, shared=shared)
        return join(x[:, : kept - start], x[:, kept - start :].unflatten(1, (blocks, -1)))

    def _token(self, query: Query) -> Tensor:
        return self.mask_token if self.mask_token.ndim == 1 else self.mask_token[query.mask % len(self.mask_token)]

    def _prepend(
        self, condition: Latents, seen: Tensor, places: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Prepend the condition's tokens to the context's: values, positions and validity."""
        first = self.embed_condition(condition.values.to(self.embed_condition.weight.dtype)) + self.condition_token
        batch, count = first.shape[:2]
        where = condition.positions
        if where is not None and self.positions is not None:
            first = first + self.positions(where).to(first.dtype)
        where = places.new_zeros(1, count, places.shape[-1]) if where is None else where
        where = where.expand(batch, -1, -1)
        if valid is not None or condition.valid is not None:
            parts = (condition.valid, first), (valid, seen)
            valid = torch.cat([v if v is not None else x.new_ones(x.shape[:2], dtype=torch.bool) for v, x in parts], 1)
        seen = torch.cat([first.to(seen.dtype), seen], dim=1)
        return seen, torch.cat([where, places.expand(batch, -1, -1)], dim=1), valid


def join(context: Tensor, targets: Tensor) -> Tensor:
    """Concatenate the context with each block: (B, K, ...) and (B, M, T, ...) to (B M, K + T, ...)."""
    context = context.unsqueeze(1).expand(-1, targets.shape[1], *context.shape[1:])
    return torch.cat([context, targets], dim=2).flatten(0, 1)


def join_valid(context: Tensor | None, targets: Tensor | None, kept: int, query: Query) -> Tensor | None:
    """Return the validity (B M, K + T) of the sequences [context, block], or None if all is real."""
    if context is None and targets is None:
        return None
    batch, blocks, length = query.positions.shape[:3]
    device = query.positions.device
    if context is None:
        context = torch.ones(batch, kept, dtype=torch.bool, device=device)
    if targets is None:
        targets = torch.ones(batch, blocks, length, dtype=torch.bool, device=device)
    return join(context, targets)
