"""Keep parts in float32 under bf16-true and 16-true."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

HALF = (torch.bfloat16, torch.float16)


def is_norm(module: nn.Module) -> bool:
    """Return whether `module` is a normalisation with weights or statistics (LayerNorm, RmsNorm, BatchNorm...)."""
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return bool(own) and "norm" in type(module).__name__.lower()


def autocast_in_half(device: torch.device) -> AbstractContextManager[object]:
    """Return autocast in a trainer's bf16-true or 16-true step (by the default dtype), else a null context.

    It makes weights in float32 work with activations in half precision.
    """
    dtype = torch.get_default_dtype()
    return torch.autocast(device.type, dtype=dtype) if dtype in HALF else nullcontext()


def keep_precision(tensors: list[Tensor], convert: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Wrap `convert`, as used by `nn.Module._apply`, so that `tensors` keep their precision.

    They are moved to `convert`'s device, but not to half precision.
    """
    spared = {id(tensor): tensor for tensor in tensors}  # keeps them alive, so that ids stay unique

    def convert_others(tensor: Tensor) -> Tensor:
        converted = convert(tensor)
        if id(tensor) in spared and converted.dtype in HALF and tensor.dtype not in HALF:
            return tensor.to(converted.device)
        return converted

    return convert_others


def precise(modules: list[nn.Module]) -> list[Tensor]:
    """Return the parameters, gradients and buffers of `modules`."""
    own = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    return own + [tensor.grad for tensor in own if tensor.grad is not None]
