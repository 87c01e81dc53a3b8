"""Variance and sliced-Wasserstein terms (VISReg)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from jepa_lightning.pretexts.base import Outcome
from jepa_lightning.regularizers.base import On, Regularizer, RegularizerSpec
from jepa_lightning.regularizers.sigreg import draw_directions
from jepa_lightning.schedules import Schedule

_SMALLEST = 1e-6  # standard deviation to divide by


class VISReg(Regularizer):
    """Hold scale, centre and shape of pooled representations apart (VISReg: Wu et al. 2026, arXiv:2606.02572).

    For N samples of D channels with means m_j and standard deviations s_j (over N):

        scale   mean over channels of (1 - s_j)^2: its gradient does not vanish for collapsed representations
        centre  mean over channels of m_j^2
        shape   squared distance to N(0, 1) of the standardised samples along random directions: sorted projections
                against the quantiles i / (N + 1) of the normal distribution (sliced Wasserstein), mean over both

    The shape has no gradient through s_j, so that it never changes the scale. Computed in float32, on each rank's own
    samples. The directions are a function of (run seed, step): the same on all ranks, and after resuming. Invariance,
    the V, is the prediction of the pretext `Views`.

    Args:
        spec: widths, given by the module.
        directions: number of random directions per step (256 in the official code).
        scale: weight of the scale.
        centre: weight of the centre.
        shape: weight of the shape.
        on: representations to regularize: context, target or predicted.
        weight: weight in the loss, a number or a schedule.

    Examples:
        >>> import torch
        >>> from jepa_lightning.pretexts import Outcome
        >>> from jepa_lightning.regularizers import RegularizerSpec, VISReg
        >>> from jepa_lightning.tokens import Latents
        >>> visreg = VISReg(RegularizerSpec(dim=8, out=8))
        >>> gaussian = torch.randn(512, 1, 8, generator=torch.Generator().manual_seed(0))
        >>> bool(visreg(Outcome(context=[Latents(values=gaussian)])) < 0.05)
        True
        >>> bool(visreg(Outcome(context=[Latents(values=0.0 * gaussian)])) > 1)
        True
    """

    name = "visreg"
    min_samples = 2

    def __init__(
        self,
        spec: RegularizerSpec,
        *,
        directions: int = 256,
        scale: float = 1.0,
        centre: float = 1.0,
        shape: float = 1.0,
        on: On = "context",
        weight: float | Schedule = 0.05,
    ) -> None:
        super().__init__(spec, on=on, weight=weight)
        if directions < 1:
            raise ValueError(f"directions must be at least 1, got {directions}")
        self.directions = directions
        self.weights = scale, centre, shape

    def forward(self, outcome: Outcome) -> Tensor:
        """Compute the weighted sum of the terms, and its mean over contexts if there are several."""
        values = [self.terms(latents.pooled().flatten(1)) for latents in self.looked_at(outcome)]
        return values[0] if len(values) == 1 else torch.stack(values).mean()

    def terms(self, features: Tensor) -> Tensor:
        """Compute the weighted sum of the terms of features (N, D) in float32."""
        with torch.autocast(features.device.type, enabled=False):
            count = len(features)
            mean = features.mean(0)
            centred = features - mean
            std = centred.norm(dim=0) / math.sqrt(count)
            steady = centred / std.detach().clamp(min=_SMALLEST)
            ordered = (steady @ draw_directions(features, self.directions, self.seed)).sort(dim=0).values
            ranks = torch.arange(1, count + 1, device=features.device, dtype=features.dtype) / (count + 1)
            shape = (ordered - torch.special.ndtri(ranks)[:, None]).square().mean()
            found = (1 - std).square().mean(), mean.square().mean(), shape
        return sum(weight * value for weight, value in zip(self.weights, found, strict=True))
