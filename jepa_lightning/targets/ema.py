"""The target as an exponential moving average (EMA) of the context encoder."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_lightning.encoders.base import Encoder, TokenSpec
from jepa_lightning.encoders.last_layers import check_count
from jepa_lightning.precision import keep_precision, precise
from jepa_lightning.schedules import LinearRamp, Schedule
from jepa_lightning.targets.base import FrozenTarget
from jepa_lightning.targets.half import HalfCopy
from jepa_lightning.tokens import Tokens


class EMA(FrozenTarget):
    """EMA copy of the context encoder (I-JEPA: Assran et al. 2023, section 3; BYOL: Grill et al. 2020).

    Never trained, always in eval mode, part of the checkpoint. It is the evaluated encoder. Its parameters require no
    gradients, so neither the optimiser nor DDP's reducer sees them. They stay in float32 when the context encoder's
    are in half precision (bf16-true): at a momentum of 0.996 an average in bfloat16 would round every update away. On
    CUDA under bf16-mixed it computes with a copy of its weights in half precision, made at each update, which equals
    autocast's cast at each step; see `HalfCopy`.

    With `average_layers` the targets are the mean of the last layers' outputs, each layer-normed token by token
    without affine (data2vec: Baevski et al. 2022, arXiv:2202.03555, section 3.3). Deviations: there, the outputs are
    those of a layer's feed-forward part, before the residual connection; here they are the layers' own, and the last
    one's has the encoder's norm. The evaluated features stay those of the last layer.

    A projector of the pretext (`Views`) is averaged beside the encoder, with the same momentum; see `counterpart`.

    Args:
        encoder: the context encoder, given by the module; the copy starts with its weights.
        spec: the tokens' spec, given by the module.
        momentum: schedule of the momentum m, over the optimiser steps of the run: target = m target + (1 - m) context.
        half_copy: use the copy in half precision where it helps; it is not saved in checkpoints.
        average_layers: number of last layers whose outputs are averaged (data2vec takes the upper 8 to 10 of 12); None:
            the encoder's output.

    Raises:
        ValueError: the encoder has fewer layers than are averaged, or gives its last one only.

    Examples:
        >>> from jepa_lightning.encoders import SinCosPositions, TokenSpec, ViT
        >>> from jepa_lightning.schedules import LinearRamp
        >>> from jepa_lightning.targets import EMA
        >>> spec = TokenSpec(shape=(3, 8, 8), grid=(4, 4), positions=SinCosPositions)
        >>> encoder = ViT(spec, width=32, depth=2, heads=2)
        >>> target = EMA(encoder, spec, momentum=LinearRamp(0.99, 1.0))
        >>> target.update(encoder, step=0, total=100)
    """

    def __init__(
        self,
        encoder: Encoder,
        spec: TokenSpec | None = None,
        *,
        momentum: Schedule = LinearRamp(start=0.996, end=1.0),
        half_copy: bool = True,
        average_layers: int | None = None,
    ) -> None:
        super().__init__(copy.deepcopy(encoder))
        if average_layers is not None:
            check_count(encoder, average_layers)
        self.average_layers = average_layers
        self.momentum = momentum
        self.followed: list[nn.Module] = []  # by head_0, head_1...; in a list, or they would be saved a second time
        self._pairs: tuple[nn.Module, list[Tensor], list[Tensor]] | None = None
        self.half_copy = half_copy
        self._half: HalfCopy | None = None

    @property
    def schedules(self) -> dict[str, Schedule]:  # type: ignore[override]
        """Return the momentum's schedule."""
        return {"momentum": self.momentum}

    @torch.no_grad()
    def forward(
        self,
        tokens: Tokens,
        keep: Tensor | None = None,
        keep_valid: Tensor | None = None,
        *,
        layers: tuple[int, ...] = (),
    ) -> Tensor:
        """Encode without gradient, and average the last layers if no other `layers` are asked for."""
        if layers or self.average_layers is None:
            return super().forward(tokens, keep, keep_valid, layers=layers)
        upper = super().forward(tokens, keep, keep_valid, layers=tuple(range(-self.average_layers, 0)))
        return F.layer_norm(upper.float(), upper.shape[-1:]).mean(2)

    def computing(self, device: torch.device) -> Encoder:
        """Return the encoder, or its copy in half precision if that gives the same output."""
        if not (self.half_copy and HalfCopy.serves(device)):
            return self.encoder
        if self._half is None or not self._half.is_of(self.encoder, device):
            self._half = HalfCopy(self.encoder, device)
        return self._half.encoder()

    def counterpart(self, module: nn.Module) -> nn.Module:
        """Return a copy of a trained module, which follows it as the encoder does: always in eval mode, no gradient."""
        average = copy.deepcopy(module).requires_grad_(False).eval()
        self.add_module(f"head_{len(self.followed)}", average)
        self.followed.append(module)
        self.forget_pairs()
        return average

    @property
    def counterparts(self) -> list[nn.Module]:
        """Return the averaged modules beside the encoder."""
        return [self.get_submodule(f"head_{number}") for number in range(len(self.followed))]

    def begin(self, student: Encoder) -> None:
        """Take the context encoder's weights, and those of the modules that are averaged beside it."""
        self.average(student, 0.0)

    def start(self, total: int) -> None:
        """See `Target.start`."""
        for step in (0, total // 2, total):
            if not 0 <= (momentum := self.momentum(step, total)) <= 1:
                raise ValueError(f"expected a momentum from 0 to 1, got {momentum:g} at step {step}")
        self.forget_pairs()

    def update(self, student: Encoder, step: int, total: int) -> None:
        """Update the average; see `Target.update` and `average`."""
        self.average(student, self.momentum(step, total))

    @torch.no_grad()
    def average(self, student: nn.Module, momentum: float) -> None:
        """Set target = momentum target + (1 - momentum) student, for all parameters in a few fused kernels.

        So are counterparts. Buffers are copied. Call it after each optimiser step. With the same sharding, each rank
        updates its own shards. A student in half precision is read in the target's precision.
        """
        if self._pairs is None or self._pairs[0] is not student:  # walking all parameters costs more than updating them
            both = self._averaged(student)
            pairs = [_local(*pair) for a, b in both for pair in zip(a.parameters(), b.parameters(), strict=True)]
            self._pairs = student, [mine for mine, _ in pairs], [theirs for _, theirs in pairs]
        _, mine_all, theirs_all = self._pairs
        if any(mine.dtype != theirs.dtype for mine, theirs in zip(mine_all, theirs_all, strict=True)):
            widened = [torch.empty_like(mine) for mine in mine_all]
            torch._foreach_copy_(widened, theirs_all)
            theirs_all = widened
        torch._foreach_lerp_(mine_all, theirs_all, 1.0 - momentum)
        if self._half is not None:
            self._half.refresh()
        for average, followed in self._averaged(student):
            for mine, theirs in zip(average.buffers(), followed.buffers(), strict=True):
                mine.copy_(theirs)

    def _averaged(self, student: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
        """All averages, each with what it follows."""
        return [(self.encoder, student), *zip(self.counterparts, self.followed, strict=True)]

    def forget_pairs(self) -> None:
        """Collect the parameters again at the next update, after they were moved or sharded."""
        self._pairs = self._half = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.forget_pairs()
        return super()._apply(keep_precision(precise([self]), fn), recurse)

    def __deepcopy__(self, memo: dict[int, Any]) -> EMA:
        settings: dict[str, Any] = {"half_copy": self.half_copy, "average_layers": self.average_layers}
        clone = type(self)(copy.deepcopy(self.encoder, memo), momentum=self.momentum, **settings)
        memo[id(self)] = clone
        for number, average in enumerate(self.counterparts):
            clone.add_module(f"head_{number}", copy.deepcopy(average, memo))
        clone.followed = copy.deepcopy(self.followed, memo)
        return clone


def _local(mine: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Return both tensors, or this rank's shards of both.

    Raises:
        ValueError: they are sharded differently.
    """
    shards = [getattr(tensor, "placements", None) for tensor in (mine, theirs)]
    if shards[0] != shards[1]:
        raise ValueError(f"expected a target encoder sharded like the context encoder, got {shards[0]} and {shards[1]}")
    return (mine, theirs) if shards[0] is None else (mine.to_local(), theirs.to_local())  # type: ignore[attr-defined]
