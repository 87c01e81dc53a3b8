"""timm's Transformer block, with an option to compute part of its tokens only."""

from __future__ import annotations

import torch.nn.functional as F
from timm.models.vision_transformer import Attention
from timm.models.vision_transformer import Block as TimmBlock
from torch import Tensor


class TransformerLayer(TimmBlock):
    """timm's pre-norm block. With `start`, only the tokens from there on are returned and computed.

    All tokens are keys and values; queries, projection and MLP are computed for the returned tokens only. This is
    exact, since their outputs do not depend on the other tokens' outputs.
    """

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, *, start: int = 0) -> Tensor:  # type: ignore[override]
        """Run the block: (B, N, W) to (B, N - start, W)."""
        if start == 0:
            return super().forward(x, attn_mask=attn_mask)
        seen = attend_from(self.attn, self.norm1(x), start, attn_mask)  # type: ignore[arg-type]
        x = x[:, start:] + self.drop_path1(self.ls1(seen))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


def attend_from(attn: Attention, x: Tensor, start: int, attn_mask: Tensor | None = None) -> Tensor:
    """Compute timm's attention for the queries from `start` on: (B, N, W) to (B, N - start, W).

    Args:
        attn: attention without dropout, gate and norms.
        x: (B, N, W).
        start: index of the first query.
        attn_mask: (B, 1, 1, N) bool, the same for all queries.
    """
    if start == 0:
        return attn(x, attn_mask=attn_mask)
    weight, bias, heads = attn.qkv.weight, attn.qkv.bias, attn.num_heads
    width = len(weight) // 3
    queries = F.linear(x[:, start:], weight[:width], bias[:width]).unflatten(2, (heads, -1)).transpose(1, 2)
    keys, values = F.linear(x, weight[width:], bias[width:]).unflatten(2, (2, heads, -1)).permute(2, 0, 3, 1, 4)
    seen = F.scaled_dot_product_attention(queries, keys, values, attn_mask=attn_mask)
    return attn.proj(seen.transpose(1, 2).flatten(2))
