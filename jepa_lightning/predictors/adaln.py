"""A Transformer predictor that is modulated by a condition (AdaLN-zero)."""

from __future__ import annotations

from functools import partial

import torch
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from jepa_lightning.encoders.norm import LayerNorm
from jepa_lightning.encoders.transformer import check_sizes, init_weights
from jepa_lightning.encoders.transformer_layer import attend_from
from jepa_lightning.predictors.base import Predictor, PredictorSpec, check_condition
from jepa_lightning.predictors.transformer import join, join_valid
from jepa_lightning.tokens import Latents, Query, pool


class AdaLNLayer(nn.Module):
    """A pre-norm Transformer layer whose norms and residual branches are modulated by a vector (AdaLN-zero).

    LayerNorm without affine, then x (1 + scale) + shift, and each branch times a gate; shift, scale and gate are a
    linear map of SiLU(condition) that starts at zero, so that the layer starts as the identity (DiT: Peebles and Xie
    2023, section 3.2).

    Args:
        width: channels W.
        heads: attention heads.
        mlp_ratio: hidden width of the MLP over W.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        norm = partial(LayerNorm, width, elementwise_affine=False, eps=1e-6)
        self.norm1, self.norm2 = norm(), norm()
        self.attn = Attention(width, heads, qkv_bias=True)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.modulation = nn.Linear(width, 6 * width)
        init_weights(self)
        nn.init.zeros_(self.modulation.weight)

    def forward(self, x: Tensor, condition: Tensor, attn_mask: Tensor | None = None, start: int = 0) -> Tensor:
        """Run the layer: x (B, N, W), condition (B, W), mask (B, 1, 1, N) or None, to (B, N - start, W)."""
        modulation = self.modulation(nn.functional.silu(condition)).unsqueeze(1)
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=-1)
        seen = attend_from(self.attn, self.norm1(x) * (1 + scale1) + shift1, start, attn_mask)
        x = x[:, start:] + gate1 * seen
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


class AdaLNPredictor(Predictor):
    """A `TransformerPredictor` whose layers are modulated by a condition instead of attending to it.

    The condition's tokens are averaged, embedded by Linear, SiLU, Linear, and modulate every layer (AdaLN-zero: Peebles
    and Xie 2023, section 3.2), as actions do in LeWorldModel. The condition adds no tokens, so it is cheap. At
    initialisation all layers are the identity, and the prediction depends only on a query's position.

    Args:
        spec: widths and the tokens' spec, given by the module; it needs a condition.
        width: the predictor's own width.
        depth: number of layers.
        heads: attention heads.
        mlp_ratio: hidden width of the MLP over the width.

    Raises:
        ValueError: a setting is out of range, or the spec has no condition.

    Examples:
        >>> import torch
        >>> from jepa_lightning.encoders import SinCosPositions, TokenSpec
        >>> from jepa_lightning.predictors import AdaLNPredictor, PredictorSpec
        >>> from jepa_lightning.tokens import Latents, Query, pool
        >>> token = TokenSpec(shape=(3, 8, 8), grid=(4, 4), positions=SinCosPositions)
        >>> spec = PredictorSpec(dim=32, out=32, token=token, condition=2)
        >>> predictor = AdaLNPredictor(spec, width=16, depth=2, heads=2)
        >>> context = Latents(values=torch.randn(2, 5, 32), positions=torch.rand(2, 5, 2))
        >>> action = Latents(values=torch.randn(2, 1, 2))
        >>> predictor(context, Query(positions=torch.rand(2, 4, 3, 2)), action).shape
        torch.Size([2, 4, 3, 32])
    """

    def __init__(
        self, spec: PredictorSpec, *, width: int = 384, depth: int = 6, heads: int = 12, mlp_ratio: float = 4.0
    ) -> None:
        super().__init__()
        check_sizes(width=width, depth=depth, heads=heads, mlp_ratio=mlp_ratio)
        if spec.condition is None:
            raise ValueError(
                "AdaLNPredictor is modulated by a condition, and this pretext has none: use TransformerPredictor, or a "
                "pretext with actions, captions or a latent z"
            )
        self.condition = spec.condition
        self.embed = nn.Linear(spec.dim, width)
        self.positions = spec.token.positions(width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.embed_condition = nn.Sequential(nn.Linear(spec.condition, width), nn.SiLU(), nn.Linear(width, width))
        self.layers = nn.ModuleList(AdaLNLayer(width, heads, mlp_ratio) for _ in range(depth))  # type: ignore[misc]
        self.norm = LayerNorm(width, eps=1e-6)
        self.project = nn.Linear(width, spec.out)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        for part in (self.embed, self.embed_condition, self.project):
            init_weights(part)

    def forward(self, context: Latents, query: Query, condition: Latents | None = None) -> Tensor:
        """Predict (B, M, T, out); see `Predictor.forward`."""
        check_condition(self.condition, condition, type(self).__name__)
        if context.positions is None:
            raise ValueError("AdaLNPredictor needs the context's positions, got Latents without positions")
        batch, blocks = query.positions.shape[:2]
        told = pool(condition.values.to(self.project.weight.dtype), condition.valid)  # type: ignore[union-attr]
        vector = self.embed_condition(told).repeat_interleave(blocks, dim=0)
        seen = self.embed(context.values)
        seen = seen + self.positions(context.positions).to(seen.dtype)
        queries = (self.mask_token + self.positions(query.positions)).to(seen.dtype)
        kept = seen.shape[1]
        valid = join_valid(context.valid, query.valid, kept, query)
        mask = None if valid is None else valid[:, None, None, :]
        x = join(seen, queries)
        *others, last = self.layers
        for layer in others:
            x = layer(x, vector.to(x.dtype), mask)
        x = last(x, vector.to(x.dtype), mask, kept)  # the last layer returns the targets only
        return self.project(self.norm(x)).unflatten(0, (batch, blocks))
