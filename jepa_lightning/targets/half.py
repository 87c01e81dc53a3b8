"""A copy of an encoder's weights in half precision, for a forward pass under autocast."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from jepa_lightning.encoders.base import Encoder
from jepa_lightning.encoders.norm import LayerNorm
from jepa_lightning.precision import HALF

DEVICES = {"cuda"}
"""Devices on which the copy is worth its memory: elsewhere autocast's casts do not limit a step."""


class HalfCopy:
    """An encoder whose linear layers and norms hold autocast's casts of the weights; everything else is shared.

    Autocast casts these weights at every forward pass; an encoder without gradients can keep them. The output is
    bit for bit that of autocast. Other parameters (positions, scales, embeddings, layers of other kinds) are those
    of the encoder itself. A sharded encoder is used as it is.

    It is not part of a model: not a module, not in checkpoints, not copied with it. Weights changed by anything but
    `refresh` (such as loading a checkpoint) are detected by torch's version counters, and copied again.

    Args:
        encoder: encoder with weights in float32.
        device: device it computes on; the copy has autocast's dtype of that device.
    """

    def __init__(self, encoder: Encoder, device: torch.device) -> None:
        self.dtype = torch.get_autocast_dtype(device.type)
        self._of = encoder
        parameters = list(encoder.parameters())
        self._first = next(iter(parameters), None)
        self._originals: list[Tensor] = []
        self._halves: list[Tensor] = []
        self._versions: list[int] = []
        sharded = any(hasattr(p, "placements") for p in parameters)
        shared = {id(tensor): tensor for tensor in (*parameters, *encoder.buffers())}
        self._encoder: Encoder = encoder if sharded else copy.deepcopy(encoder, shared)
        if sharded:
            return
        kinds = (nn.Linear,) if device.type == "cpu" else (nn.Linear, LayerNorm)  # the CPU's LayerNorm mixes types
        for theirs, mine in zip(encoder.layers, self._encoder.layers, strict=True):
            for part in mine.modules():
                for name, original in list(part.named_parameters(recurse=False)) if type(part) in kinds else []:
                    if original.dtype == torch.float32:
                        half = nn.Parameter(original.detach().to(self.dtype), requires_grad=False)
                        setattr(part, name, half)
                        self._originals.append(original)
                        self._halves.append(half)
            if is_compiled(theirs):
                mine.compile()
        self._versions = [original._version for original in self._originals]

    @staticmethod
    def serves(device: torch.device) -> bool:
        """Return whether autocast currently casts weights to half precision, which a copy avoids."""
        kind = device.type
        return kind in DEVICES and torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) in HALF

    def is_of(self, encoder: Encoder, device: torch.device) -> bool:
        """Return whether this is a copy of this encoder's current parameters in autocast's dtype."""
        return (
            encoder is self._of
            and self.dtype == torch.get_autocast_dtype(device.type)
            and next(iter(encoder.parameters()), None) is self._first  # assigned ones replace all
        )

    def encoder(self) -> Encoder:
        """Return the encoder to compute with, with up-to-date weights."""
        if any(original._version != known for original, known in zip(self._originals, self._versions, strict=True)):
            self.refresh()
        return self._encoder

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the weights again, in one kernel."""
        if self._halves:
            torch._foreach_copy_(self._halves, self._originals)
        self._versions = [original._version for original in self._originals]


def is_compiled(block: nn.Module) -> bool:
    """Return whether `block.compile()` was called."""
    return block._compiled_call_impl is not None
