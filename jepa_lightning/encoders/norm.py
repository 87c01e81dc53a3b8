"""LayerNorm that stays in the type of autocast."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_NEVER_CAST = (torch.float64,)  # autocast leaves it as it is


class LayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` whose input and output, and on CUDA the weights, are in autocast's type inside autocast.

    Autocast runs a LayerNorm on CUDA in float32: the activations are cast up, normalised, and cast down again by the
    next linear map. Here the kernel reads and writes half precision and keeps its mean and variance in float32, so
    nothing is lost but the last bits of the weights, which are stored in float32. Outside autocast it is
    `nn.LayerNorm`, bit for bit.

    Examples:
        >>> import torch
        >>> from jepa_lightning.encoders.norm import LayerNorm
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     LayerNorm(8)(torch.randn(2, 8)).dtype
        torch.bfloat16
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axes of `x`."""
        kind = x.device.type
        if kind == "meta" or x.dtype in _NEVER_CAST or not torch.is_autocast_enabled(kind):
            return super().forward(x)
        dtype = torch.get_autocast_dtype(kind)
        weight: Tensor | None = self.weight
        bias: Tensor | None = self.bias
        if kind != "cpu":  # whose kernel mixes the types, and keeps its statistics in float32 only then
            weight, bias = (None if p is None else p.to(dtype) for p in (weight, bias))
        with torch.autocast(kind, enabled=False):
            return F.layer_norm(x.to(dtype), self.normalized_shape, weight, bias, self.eps)
