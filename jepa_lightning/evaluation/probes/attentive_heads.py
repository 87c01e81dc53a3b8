"""The heads of attentive probes: many of them side by side, in single tensor operations, and their optimiser."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_BETAS, _EPS = (0.9, 0.999), 1e-8
_LEAST = 8  # samples a batch, at least

Parameters = dict[str, Tensor]
"""Of S probes: query (S, A, D), value (S, A, D, W), weight (S, A W, outputs), bias (S, 1, outputs)."""


class BatchedAdamW:
    """AdamW (Loshchilov & Hutter 2019) for S probes at once, each with its own learning rate and weight decay.

    Args:
        parameters: of S probes; they are changed in place.
        settings: S learning rates and weight decays.
        steps: of the cosine schedule, at whose end the rate is 0.
    """

    def __init__(self, parameters: Parameters, settings: Sequence[tuple[float, float]], *, steps: int) -> None:
        self.parameters, self.steps, self.done = parameters, steps, 0
        like = parameters["bias"]
        self.rate = torch.tensor([lr for lr, _ in settings], dtype=like.dtype, device=like.device)
        self.shrink = torch.tensor([lr * decay for lr, decay in settings], dtype=like.dtype, device=like.device)
        self.first = [torch.zeros_like(value) for value in parameters.values()]
        self.second = [torch.zeros_like(value) for value in parameters.values()]

    def step(self, x: Tensor, mask: Tensor | None, goal: Tensor) -> None:
        """Take one step of all probes, on a batch (B, N, D) with its classes (B,) or values (B, d)."""
        with torch.enable_grad():
            leaves = {name: value.detach().requires_grad_() for name, value in self.parameters.items()}
            total = losses(forward(leaves, x, mask), goal).sum()  # each probe's gradient is that of its own loss
            gradients = torch.autograd.grad(total, list(leaves.values()))
        with torch.no_grad():
            factor = 0.5 * (1 + math.cos(math.pi * self.done / self.steps))
            self.done += 1
            one, two = (1 - beta**self.done for beta in _BETAS)
            for (name, value), gradient, first, second in zip(
                self.parameters.items(), gradients, self.first, self.second, strict=True
            ):
                shape = [-1] + [1] * (value.ndim - 1)
                if name != "bias":
                    value.mul_(1 - factor * self.shrink.view(shape))
                first.lerp_(gradient, 1 - _BETAS[0])
                second.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
                move = (first / one) / ((second / two).sqrt_().add_(_EPS))
                value.sub_(move.mul_(factor * self.rate.view(shape)))


def attend(query: Tensor, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attend from S x A queries (S, A, D) to tokens (B, N, D): weights (B, A, S, N) and what they pool (S, A, B, D)."""
    probes, heads, width = query.shape
    logits = x @ (query.flatten(0, 1).T / math.sqrt(width))  # (B, N, S A), one matrix product for all probes
    if mask is not None:
        logits = logits.masked_fill(~mask.unsqueeze(-1), torch.finfo(logits.dtype).min)
    attention = logits.softmax(1)
    if mask is not None:
        attention = attention * mask.unsqueeze(-1)  # where all is padding, too
    attention = attention.transpose(1, 2)
    pooled = torch.bmm(attention, x).unflatten(1, (probes, heads))
    return attention.unflatten(1, (probes, heads)).transpose(1, 2), pooled.permute(1, 2, 0, 3)


def forward(parameters: Parameters, x: Tensor, mask: Tensor | None) -> Tensor:
    """Compute the outputs (S, B, outputs) of S probes on tokens (B, N, D).

    The values are taken of what is pooled, not pooled: the same, as both are linear, for a fraction of the work.
    """
    _, pooled = attend(parameters["query"], x, mask)
    values = torch.matmul(pooled, parameters["value"])  # (S, A, B, W)
    joined = values.transpose(1, 2).flatten(2)
    joined = F.layer_norm(joined, joined.shape[-1:])
    return torch.baddbmm(parameters["bias"], joined, parameters["weight"])


def losses(outputs: Tensor, goal: Tensor) -> Tensor:
    """Compute the mean loss of each of S probes, (S,), of outputs (S, B, outputs) and classes (B,) or values (B, d)."""
    if goal.is_floating_point():
        return (outputs - goal).square().mean((1, 2))
    wanted = goal.expand(len(outputs), -1)
    return F.cross_entropy(outputs.transpose(1, 2), wanted, reduction="none").mean(1)


def start(probes: int, heads: int, width: int, outputs: int, *, like: Tensor) -> Parameters:
    """Make the parameters of equal probes that pool the mean, whose values are the channels, and that answer 0."""
    each = -(-width // heads)
    value = torch.eye(width, heads * each).unflatten(1, (heads, each)).transpose(0, 1)
    shapes = {"query": (heads, width), "weight": (heads * each, outputs), "bias": (1, outputs)}
    found = {"value": value.expand(probes, -1, -1, -1).to(like).contiguous()}
    return found | {name: like.new_zeros(probes, *shape) for name, shape in shapes.items()}


def batch_order(count: int, *, epochs: int, batch_size: int, seed: int) -> list[Tensor]:
    """Choose which of `count` samples are in each step, every one once an epoch."""
    generator = torch.Generator().manual_seed(seed)
    size = min(batch_size, max(_LEAST, count // 8))
    return [batch for _ in range(epochs) for batch in torch.randperm(count, generator=generator).split(size)]
