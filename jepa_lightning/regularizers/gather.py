"""Differentiable sums over all ranks, and the samples of all ranks."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _SumOverRanks(torch.autograd.Function):
    """All-reduce; its gradient is the sum of all ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def sum_over_ranks(value: Tensor) -> Tensor:
    """Sum `value` over all ranks; returns `value` itself in a run of one process.

    Differentiable. Every rank then computes the same function of all samples, and the gradient at a rank's
    own representations is that of the sum of all ranks' values: the number of ranks times that of one process with the
    whole batch. DDP and FSDP average gradients over ranks, which makes them equal.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return value
    return _SumOverRanks.apply(value)


def gather_over_ranks(value: Tensor) -> Tensor:
    """Gather (B, D) of all ranks below each other, in the order of ranks; `value` itself in a run of one process.

    Differentiable, as `sum_over_ranks`, which it is of rows that are zero but on one rank. Ranks may have different
    numbers of rows, so the host waits once for the counts.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return value
    own = torch.tensor([len(value)], device=value.device)
    counts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, own)
    rows = [int(count) for count in counts]
    start = sum(rows[: dist.get_rank()])
    padding = (0, 0) * (value.ndim - 1) + (start, sum(rows) - start - len(value))
    return sum_over_ranks(torch.nn.functional.pad(value, padding))
