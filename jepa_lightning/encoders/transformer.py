"""The Transformer trunk that our ViT and the predictor share: timm's blocks, our initialisation."""

from __future__ import annotations

import math
from functools import partial

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn


class Transformer(nn.Module):
    """Pre-norm Transformer blocks (timm's, attention by SDPA) and a final LayerNorm: (B, N, W) to (B, N, W).

    Initialisation as in I-JEPA (Assran et al. 2023) and BEiT: truncated normal of std 0.02, biases zero, and the last
    linear map of each residual branch of layer l (counted from 1) divided by sqrt(2 l).

    Args:
        width: channels W; a multiple of `heads`.
        depth: number of blocks.
        heads: attention heads.
        mlp_ratio: hidden width of the MLP over W.
        drop_path: stochastic depth of the last block; earlier ones get less, linearly.
    """

    def __init__(self, *, width: int, depth: int, heads: int, mlp_ratio: float = 4.0, drop_path: float = 0.0) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}: change one of them")
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path is a share, from 0 to below 1; got {drop_path}")
        self.blocks = nn.ModuleList(
            Block(
                width,
                heads,
                mlp_ratio=mlp_ratio,
                qkv_bias=True,
                drop_path=drop_path * layer / max(depth - 1, 1),
                norm_layer=partial(nn.LayerNorm, eps=1e-6),  # type: ignore[arg-type]
            )
            for layer in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        init_weights(self)
        with torch.no_grad():
            for layer, block in enumerate(self.blocks, start=1):
                block.attn.proj.weight /= math.sqrt(2 * layer)  # type: ignore[union-attr,operator]
                block.mlp.fc2.weight /= math.sqrt(2 * layer)  # type: ignore[union-attr,operator]

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Run the blocks and the norm. Slots where `valid` (B, N) is False are never attended to."""
        mask = None if valid is None else valid[:, None, None, :]
        for block in self.blocks:
            x = block(x, attn_mask=mask)
        return self.norm(x)


def init_weights(module: nn.Module) -> None:
    """Truncated normal of std 0.02 for the weights of every linear map in `module`, zero for its biases."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
