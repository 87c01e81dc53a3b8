"""timm's Transformer block, with options to compute part of its tokens only and to share a context."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Attention
from timm.models.vision_transformer import Block as TimmBlock
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SharedContext:
    """Sequences [context, block 1, ..., block M] in which the context sees itself, and a block the context and itself.

    Attributes:
        kept: number K of context tokens, which come first.
        blocks: number M of blocks after them, of equal length T.
        context_mask: (B, 1, 1, K) bool, False for filler of the context; None: all are real.
        block_mask: (B M, 1, 1, K + T) bool, likewise for each block after the context.
    """

    kept: int
    blocks: int
    context_mask: Tensor | None = None
    block_mask: Tensor | None = None


class TransformerLayer(TimmBlock):
    """timm's pre-norm block, whose gradients of queries, keys and values are put together without a second copy.

    With `start`, only the tokens from there on are returned and computed.

    All tokens are keys and values; queries, projection and MLP are computed for the returned tokens only. This is
    exact, since their outputs do not depend on the other tokens' outputs. With `shared`, attention is that of a
    `SharedContext`.
    """

    def forward(  # type: ignore[override]
        self, x: Tensor, attn_mask: Tensor | None = None, *, start: int = 0, shared: SharedContext | None = None
    ) -> Tensor:
        """Run the block: (B, N, W) to (B, N - start, W)."""
        attn: Attention = self.attn  # type: ignore[assignment]
        if shared is None:
            seen = attend_from(attn, self.norm1(x), start, attn_mask)
        else:
            seen = attend_shared(attn, self.norm1(x), shared, start)
        x = (x[:, start:] if start else x) + self.drop_path1(self.ls1(seen))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


def attend_from(attn: Attention, x: Tensor, start: int, attn_mask: Tensor | None = None) -> Tensor:
    """Compute timm's attention for the queries from `start` on: (B, N, W) to (B, N - start, W).

    Args:
        attn: attention without dropout, gate and norms.
        x: (B, N, W).
        start: index of the first query.
        attn_mask: (B, 1, 1, N) bool, the same for all queries.
    """
    queries, keys, values = project_from(attn, x, start)
    seen = F.scaled_dot_product_attention(queries, keys, values, attn_mask=attn_mask)
    return attn.proj(seen.transpose(1, 2).flatten(2))


def project_from(attn: Attention, x: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries (B, H, N - start, C) of the tokens from `start` on, and keys and values (B, H, N, C) of all."""
    weight, bias, heads = attn.qkv.weight, attn.qkv.bias, attn.num_heads
    if start == 0:
        queries, keys, values = attn.qkv(x).unflatten(2, (3, heads, -1)).unbind(2)
        return queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2)
    width = len(weight) // 3
    queries = F.linear(x[:, start:], weight[:width], bias[:width]).unflatten(2, (heads, -1)).transpose(1, 2)
    keys, values = F.linear(x, weight[width:], bias[width:]).unflatten(2, (2, heads, -1)).unbind(2)
    return queries, keys.transpose(1, 2), values.transpose(1, 2)


def attend_shared(attn: Attention, x: Tensor, shared: SharedContext, start: int = 0) -> Tensor:
    """Compute timm's attention within a `SharedContext`: (B, N, W) to (B, N - start, W).

    Queries, keys and values of the context are computed once for all blocks.

    Args:
        attn: attention without dropout, gate and norms.
        x: (B, N, W), with N = K + M T.
        shared: how the N tokens divide, and which of them are filler.
        start: index of the first query: a token of the context, or K for the blocks alone.
    """
    kept, blocks = shared.kept, shared.blocks
    queries, keys, values = project_from(attn, x, start)

    def apart(tokens: Tensor) -> Tensor:
        """Bring the blocks to the batch: (B, H, M T, C) to (B M, H, T, C)."""
        return tokens.unflatten(2, (blocks, -1)).transpose(1, 2).flatten(0, 1)

    def after_context(tokens: Tensor) -> Tensor:
        """Put the context before each block: (B, H, K + M T, C) to (B M, H, K + T, C)."""
        return torch.cat([tokens[:, :, :kept].repeat_interleave(blocks, 0), apart(tokens[:, :, kept:])], dim=2)

    seen = F.scaled_dot_product_attention(
        apart(queries[:, :, kept - start :]), after_context(keys), after_context(values), attn_mask=shared.block_mask
    )
    seen = seen.transpose(1, 2).flatten(2).unflatten(0, (-1, blocks)).flatten(1, 2)  # (B, M T, W)
    if start < kept:
        context = F.scaled_dot_product_attention(
            queries[:, :, : kept - start], keys[:, :, :kept], values[:, :, :kept], attn_mask=shared.context_mask
        )
        seen = torch.cat([context.transpose(1, 2).flatten(2), seen], dim=1)
    return attn.proj(seen)
