"""Cast the weights of a layer to half precision in one kernel, in place of one for each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from jepa_lightning.encoders.norm import LayerNorm
from jepa_lightning.targets.half import HalfCopy


class CastTogether:
    """A layer's forward in which autocast finds the weights of linear layers and norms cast already.

    Autocast casts each weight by itself, and each gradient back: about two kernels of five that a small model's step
    launches. Here a layer has one for its weights and one for their gradients. Values and gradients are those of
    autocast, bit for bit. Where autocast does not cast to half precision (see `HalfCopy.serves`), and while torch
    compiles, it is the forward as it was.

    Args:
        layer: whose `forward` is called.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.forward = layer.forward
        self.names = [
            (part, name)
            for part in layer.modules()
            if type(part) in (nn.Linear, LayerNorm)
            for name, weight in part.named_parameters(recurse=False)
            if weight.dtype == torch.float32
        ]

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Run the layer."""
        if torch.compiler.is_compiling() or not HalfCopy.serves(x.device):
            return self.forward(x, *args, **kwargs)
        kinds = (nn.Linear,) if x.device.type == "cpu" else (nn.Linear, LayerNorm)  # the CPU's LayerNorm mixes types
        slots = [(part._parameters, name) for part, name in self.names if type(part) in kinds]
        weights = [parameters[name] for parameters, name in slots]
        casts = _Cast.apply(torch.get_autocast_dtype(x.device.type), *weights)
        try:
            for (parameters, name), cast in zip(slots, casts, strict=True):
                parameters[name] = cast
            return self.forward(x, *args, **kwargs)
        finally:
            for (parameters, name), weight in zip(slots, weights, strict=True):
                parameters[name] = weight


class _Cast(torch.autograd.Function):
    """Tensors in another type, and their gradients in the type before."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        casts = [torch.empty_like(weight, dtype=dtype) for weight in weights]
        torch._foreach_copy_(casts, list(weights))
        return tuple(casts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        found = [gradient for gradient in gradients if gradient is not None]
        wide = [torch.empty_like(gradient, dtype=torch.float32) for gradient in found]
        if found:
            torch._foreach_copy_(wide, found)
        each = iter(wide)
        return None, *(None if gradient is None else next(each) for gradient in gradients)
