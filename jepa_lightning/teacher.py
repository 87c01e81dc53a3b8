"""The target encoder: an exponential moving average (EMA) of the context encoder."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from jepa_lightning.encoders.base import Encoder
from jepa_lightning.precision import in_half, precise, sparing
from jepa_lightning.tokens import Tokens, take


class Teacher(nn.Module):
    """EMA copy of an encoder (I-JEPA, section 3): never trained, always in eval mode, part of the checkpoint.

    Its parameters do not require gradients, so neither the optimiser nor DDP's reducer sees them. They stay in float32
    where the student's are in half precision (bf16-true): at a momentum of 0.996 an average in bfloat16 would round
    every step away and never move.

    Args:
        encoder: the context encoder; the copy starts with its weights.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(False)
        self._pairs: tuple[nn.Module, list[Tensor], list[Tensor]] | None = None
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode: no dropout, no drop path, whatever the module around does."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, tokens: Tokens, keep: Tensor | None = None, keep_valid: Tensor | None = None) -> Tensor:
        """Representations (B, N or K, D) without gradient."""
        with in_half(tokens.device):
            return self.encoder(tokens, keep, keep_valid)

    @torch.no_grad()
    def alone(self, tokens: Tokens, targets: Tensor, valid: Tensor | None = None) -> Tensor:
        """Representations (B, M, T, D) of `targets` (B, M, T) by a teacher that sees nothing else of the sample.

        The targets of a sample are encoded together, a token that lies in several blocks once.
        """
        if targets.shape[1] == 1:
            return self(tokens, targets[:, 0], None if valid is None else valid[:, 0]).unsqueeze(1)
        count = tokens.count
        index = targets if valid is None else targets.masked_fill(~valid, count)
        ordered = index.flatten(1).sort(dim=1).values
        new = ordered < count
        new[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
        kept = ordered.masked_fill(~new, 0)
        encoded = self(tokens, kept, new)
        place = ordered.masked_fill(~new, count).unsqueeze(-1).expand_as(encoded)  # the rest goes to one slot too many
        every = encoded.new_zeros(encoded.shape[0], count + 1, encoded.shape[2]).scatter(1, place, encoded)
        return take(every, targets)

    @torch.no_grad()
    def update(self, student: nn.Module, momentum: float) -> None:
        """teacher = momentum teacher + (1 - momentum) student, for all parameters in a few fused kernels.

        Buffers are copied. Call it after each optimiser step. Sharded alike, each rank moves its own shards; a
        student in half precision is read in the teacher's precision.
        """
        if self._pairs is None or self._pairs[0] is not student:  # walking all parameters costs more than updating them
            pairs = [_local(m, t) for m, t in zip(self.encoder.parameters(), student.parameters(), strict=True)]
            self._pairs = student, [mine for mine, _ in pairs], [theirs for _, theirs in pairs]
        _, mine_all, theirs_all = self._pairs
        if any(mine.dtype != theirs.dtype for mine, theirs in zip(mine_all, theirs_all, strict=True)):
            widened = [torch.empty_like(mine) for mine in mine_all]
            torch._foreach_copy_(widened, theirs_all)
            theirs_all = widened
        torch._foreach_lerp_(mine_all, theirs_all, 1.0 - momentum)
        for mine, theirs in zip(self.encoder.buffers(), student.buffers(), strict=True):
            mine.copy_(theirs)

    def forget_pairs(self) -> None:
        """Look the parameters up again at the next update: they were moved or sharded since."""
        self._pairs = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.forget_pairs()
        return super()._apply(sparing(precise([self]), fn), recurse)

    def __deepcopy__(self, memo: dict[int, Any]) -> Teacher:
        clone = type(self)(copy.deepcopy(self.encoder, memo))
        memo[id(self)] = clone
        return clone


def _local(mine: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Both, or this rank's shards of both.

    Raises:
        ValueError: they are not sharded alike.
    """
    shards = [getattr(tensor, "placements", None) for tensor in (mine, theirs)]
    if shards[0] != shards[1]:
        raise ValueError(f"expected a teacher sharded like the student, got {shards[0]} and {shards[1]}")
    return (mine, theirs) if shards[0] is None else (mine.to_local(), theirs.to_local())  # type: ignore[attr-defined]
