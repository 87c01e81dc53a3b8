"""What the pretext `Views` puts on top of an encoder: MLPs, prototypes, centring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_lightning.precision import keep_precision, precise
from jepa_lightning.regularizers.gather import sum_over_ranks

Norm = Literal["layer", "batch"]


def mlp(widths: Sequence[int], norm: Norm = "layer") -> nn.Module:
    """Build linear layers with LayerNorm and GELU, or batch norm and ReLU, between them; the identity for one width."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        if layers:
            layers += [nn.LayerNorm(before), nn.GELU()] if norm == "layer" else [nn.BatchNorm1d(before), nn.ReLU()]
        layers.append(nn.Linear(before, after))
    return nn.Sequential(*layers)


class Prototypes(nn.Module):
    """Compute the cosines of projections with learned unit vectors (DINO: Caron et al. 2021, appendix C).

    DINO's last layer: the projection is scaled to norm one, and so is each row of the weights.

    Args:
        dim: width D of the projections.
        count: number K of prototypes.

    Examples:
        >>> import torch
        >>> from jepa_lightning.pretexts.view_heads import Prototypes
        >>> prototypes = Prototypes(16, 64)
        >>> prototypes(prototypes.weight[:4]).diagonal().round(decimals=4)
        tensor([1., 1., 1., 1.], grad_fn=<RoundBackward1>)
    """

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, dim))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, projected: Tensor) -> Tensor:
        """Return (..., K) of projections (..., D)."""
        return F.linear(F.normalize(projected, dim=-1), F.normalize(self.weight, dim=-1))


class Centering(nn.Module):
    """Subtract the running mean of a teacher's outputs from them (DINO: Caron et al. 2021, section 3.1, equation 4).

    In training the mean moves after it was subtracted: mean = momentum mean + (1 - momentum) batch mean, over the views
    and samples of all ranks. A batch that is not finite does not move it. It stays in float32 under bf16-true, and is
    in checkpoints.

    Args:
        width: width D of the outputs.
        momentum: of the mean.

    Examples:
        >>> import torch
        >>> from jepa_lightning.pretexts.view_heads import Centering
        >>> centering = Centering(2, momentum=0.9)
        >>> outputs = torch.tensor([[1.0, 2.0], [3.0, 2.0]])
        >>> centering(outputs)[0], centering(outputs)[0], centering.mean
        (tensor([1., 2.]), tensor([0.8000, 1.8000]), tensor([0.3800, 0.3800]))
    """

    mean: Tensor

    def __init__(self, width: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(width))

    def forward(self, outputs: Tensor) -> Tensor:
        """Return the outputs (..., D) less the mean before them, in the mean's precision."""
        centred = outputs.to(self.mean.dtype) - self.mean
        if self.training:
            self.move(outputs)
        return centred

    @torch.no_grad()
    def move(self, outputs: Tensor) -> None:
        """Move the mean towards that of the outputs (..., D) of all ranks."""
        rows = outputs.to(self.mean.dtype).flatten(0, -2)
        summed = sum_over_ranks(torch.cat([rows.sum(0), rows.new_full((1,), len(rows))]))
        moved = self.mean.lerp(summed[:-1] / summed[-1], 1 - self.momentum)
        self.mean.copy_(torch.where(moved.isfinite().all(), moved, self.mean))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        return super()._apply(keep_precision(precise([self]), fn), recurse)
