"""A copy of an encoder's weights in half precision, for a forward pass under autocast."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from jepa_lightning.encoders.base import Encoder
from jepa_lightning.encoders.norm import LayerNorm
from jepa_lightning.precision import HALF

DEVICES = {"cuda"}
"""Where it is worth its memory: elsewhere autocast's casts are not what a step waits for."""


class HalfCopy:
    """An encoder whose layers' linear maps and norms hold autocast's casts of the weights; all else is shared.

    Autocast casts these weights at every forward pass; one that never gets a gradient can keep them. What comes out is
    bit for bit what autocast gives. Other parameters (positions, scales, embeddings, layers of other kinds) are those
    of the encoder itself, and an encoder in shards is used as it is.

    It is no part of a model: no module, in no checkpoint, in no copy. Weights that were changed by anything but
    `refresh` (a checkpoint that is loaded) are told by torch's version counters, and copied anew.

    Args:
        encoder: its weights in float32.
        device: where it computes, under autocast, whose type the copy takes.
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
        """Whether autocast casts weights to half precision here and now, so that a copy spares it."""
        kind = device.type
        return kind in DEVICES and torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) in HALF

    def is_of(self, encoder: Encoder, device: torch.device) -> bool:
        """Whether this is a copy of this encoder's present parameters in autocast's type."""
        return (
            encoder is self._of
            and self.dtype == torch.get_autocast_dtype(device.type)
            and next(iter(encoder.parameters()), None) is self._first  # assigned ones replace all
        )

    def encoder(self) -> Encoder:
        """The encoder to compute with, its weights those of the original."""
        if any(original._version != known for original, known in zip(self._originals, self._versions, strict=True)):
            self.refresh()
        return self._encoder

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the weights anew, in one kernel."""
        if self._halves:
            torch._foreach_copy_(self._halves, self._originals)
        self._versions = [original._version for original in self._originals]


def is_compiled(block: nn.Module) -> bool:
    """Whether `block.compile()` was called."""
    return block._compiled_call_impl is not None
