"""From the representations of a sample's tokens to one vector."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from jepa_lightning.tokens import pool

Pooling = Literal["mean", "max", "mean+max"]


def pool_tokens(features: Tensor, valid: Tensor | None = None, *, how: Pooling = "mean") -> Tensor:
    """Mean, maximum, or both side by side over the real tokens: (B, N, D) to (B, D) or (B, 2 D).

    Args:
        features: (B, N, D).
        valid: (B, N) bool, False for padding; a sample without real tokens gives zeros.
        how: "mean", "max" or "mean+max".
    """
    if how not in ("mean", "max", "mean+max"):
        raise ValueError(f"expected the pooling mean, max or mean+max, got {how!r}")
    parts = [pool(features, valid)] if "mean" in how else []
    if "max" in how:
        if valid is None:
            parts.append(features.amax(1))
        else:
            largest = features.masked_fill(~valid.unsqueeze(-1), -torch.inf).amax(1)
            parts.append(largest.masked_fill(~valid.any(1, keepdim=True), 0))
    return torch.cat(parts, dim=1)
