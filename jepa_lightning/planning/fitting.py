"""Small networks on frozen states, and how they are trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


def mlp(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers from each width to the next, with GELU between them."""
    *hidden, last = pairwise(widths)
    layers = [[nn.Linear(before, after), nn.GELU()] for before, after in hidden]
    return nn.Sequential(*(part for layer in layers for part in layer), nn.Linear(*last))


class Standardised(nn.Module):
    """Vectors (..., D) with the mean and spread of those that it is built from taken for what is usual."""

    mean: Tensor
    std: Tensor

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", values.mean(0))
        self.register_buffer("std", values.std(0, correction=0).clamp(min=1e-6))

    def forward(self, values: Tensor) -> Tensor:
        """Values of mean 0 and spread 1 where they are as usual."""
        return (values - self.mean) / self.std


def check_fitting(steps: int, batch_size: int, learning_rate: float) -> None:
    """Raise a ValueError where a setting is out of range."""
    if min(steps, batch_size) < 1 or not learning_rate > 0:
        raise ValueError(
            f"expected steps and batch_size of at least 1 and a positive learning_rate, got {steps}, {batch_size} "
            f"and {learning_rate}"
        )


@torch.enable_grad()
def minimise(
    parameters: Iterable[nn.Parameter], loss: Callable[[], Tensor], *, steps: int, learning_rate: float
) -> None:
    """Lower a loss, which draws anew at each call, by Adam with a cosine learning rate; gradients clipped to norm 1."""
    trained = list(parameters)
    optimizer = torch.optim.Adam(trained, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        value = loss()
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
