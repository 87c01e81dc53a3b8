"""What stays in float32 where the trainer's precision is bf16-true or 16-true."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

HALF = (torch.bfloat16, torch.float16)


def is_norm(module: nn.Module) -> bool:
    """Whether `module` is a normalisation with weights or statistics of its own (LayerNorm, RmsNorm, BatchNorm...)."""
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return bool(own) and "norm" in type(module).__name__.lower()


def autocast_in_half(device: torch.device) -> AbstractContextManager[object]:
    """Autocast inside a trainer's bf16-true or 16-true step (its default type tells), nothing elsewhere.

    Weights in float32 then meet activations in half precision, and neither kind has to be told of the other.
    """
    dtype = torch.get_default_dtype()
    return torch.autocast(device.type, dtype=dtype) if dtype in HALF else nullcontext()


def keep_precision(tensors: list[Tensor], convert: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`convert`, as `nn.Module._apply` takes it, except that it leaves `tensors` as precise as they are.

    They go where `convert` sends them, but not into half precision.
    """
    spared = {id(tensor): tensor for tensor in tensors}  # which keeps them alive, so that no id comes twice

    def convert_others(tensor: Tensor) -> Tensor:
        converted = convert(tensor)
        if id(tensor) in spared and converted.dtype in HALF and tensor.dtype not in HALF:
            return tensor.to(converted.device)
        return converted

    return convert_others


def precise(modules: list[nn.Module]) -> list[Tensor]:
    """The parameters, gradients and buffers of `modules`."""
    own = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    return own + [tensor.grad for tensor in own if tensor.grad is not None]
