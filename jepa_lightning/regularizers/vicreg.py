"""Variance and covariance terms (VICReg)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_lightning.pretexts.base import Outcome
from jepa_lightning.regularizers.base import On, Regularizer, RegularizerSpec
from jepa_lightning.regularizers.gather import sum_over_ranks
from jepa_lightning.schedules import Schedule


class VICReg(Regularizer):
    """Variance and covariance terms on pooled representations, as C-JEPA adds them to I-JEPA (Mo and Tong 2024).

    The terms are those of VICReg (Bardes et al. 2022, equations 1-4): a hinge that keeps each channel's standard
    deviation over the batch above a target, and the squared off-diagonal covariance, over D. Computed in float32. Of
    several contexts (V-JEPA's masks, views) the mean of their values.

    The target is one in the papers. Pooled over the tokens of one image, features that are layer-normed token by token
    rarely spread so far without encoding noise, so `target_std` is a setting: the terms are those of the features
    divided by it, and once the spread is reached the variance term is silent.

    Args:
        spec: widths, given by the module.
        variance: weight of the variance term.
        covariance: weight of the covariance term.
        target_std: standard deviation that the variance term asks for (gamma in VICReg).
        on: which representations: context, target or predicted.
        weight: of both terms together, a number or a schedule.
        gather: statistics over the samples of all ranks, in place of each rank's own; as one process with the whole
            batch would compute them, the gradient too.

    Example:
        >>> import torch
        >>> from jepa_lightning.pretexts import Outcome
        >>> from jepa_lightning.regularizers import RegularizerSpec, VICReg
        >>> from jepa_lightning.tokens import Latents
        >>> same = Outcome(context=[Latents(values=torch.ones(8, 4, 16))])
        >>> vicreg = VICReg(RegularizerSpec(dim=16, out=16), covariance=0.0)
        >>> round(float(vicreg(same)), 2)  # 1 - sqrt(1e-4): nothing varies
        0.99
    """

    name = "vicreg"

    def __init__(
        self,
        spec: RegularizerSpec,
        *,
        variance: float = 1.0,
        covariance: float = 0.04,
        target_std: float = 1.0,
        on: On = "context",
        weight: float | Schedule = 1.0,
        gather: bool = False,
    ) -> None:
        super().__init__(spec, on=on, weight=weight)
        if not 0 < target_std < math.inf:
            raise ValueError(f"target_std must be positive, got {target_std}")
        self.variance = variance
        self.covariance = covariance
        self.target_std = target_std
        self.gather = gather
        self.min_samples = 1 if gather else 2  # gathered, all ranks must take part, whatever each of them has

    def forward(self, outcome: Outcome) -> Tensor:
        """Weighted sum of the two terms for a batch of at least two samples (over all ranks with `gather`)."""
        values = [self.terms(latents.pooled().flatten(1)) for latents in self.looked_at(outcome)]
        return values[0] if len(values) == 1 else torch.stack(values).mean()

    def terms(self, features: Tensor) -> Tensor:
        """Weighted sum of the two terms for features (B, D) in float32."""
        if len(features) < 2 and not self.gather:
            raise ValueError("VICReg needs at least two samples a batch on each rank, got 1: raise data.batch_size")
        with torch.autocast(features.device.type, enabled=False):  # which would multiply in half precision
            variance, covariance = self._gathered(features) if self.gather else self._own(features)
        return self.weighted(variance, covariance)

    def weighted(self, variance: Tensor, covariance: Tensor) -> Tensor:
        """Weighted sum of the two terms for variances (..., D) and covariances (..., D, D), mean over the others."""
        hinge = F.relu(1 - (variance + 1e-4).sqrt()).mean()
        off_diagonal = (covariance.square().sum((-2, -1)) - variance.square().sum(-1)) / variance.shape[-1]
        return self.variance * hinge + self.covariance * off_diagonal.mean()

    def total(self, value: Tensor) -> Tensor:
        """The sum over all ranks with `gather`; else this rank's."""
        return sum_over_ranks(value) if self.gather else value

    def _own(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Variances (D,) and covariance (D, D) of this rank's samples."""
        features = (features - features.mean(0)) / self.target_std
        count = len(features) - 1
        return features.square().sum(0) / count, features.T @ features / count

    def _gathered(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The same of all ranks' samples, however many each has."""
        count = sum_over_ranks(features.new_full((), len(features)))
        mean = sum_over_ranks(features.sum(0)) / count
        features = (features - mean) / self.target_std
        covariance = sum_over_ranks(features.T @ features) / (count - 1).clamp(min=1)
        return covariance.diagonal(), covariance
