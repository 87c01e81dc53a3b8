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
    deviation over the batch above a target, and the squared off-diagonal covariance, over D. Computed in float32. With
    several contexts (V-JEPA's masks, views) it is the mean over them. C-JEPA's third term, the invariance of the mean
    of a sample's tokens, is the mean squared difference of the pooled context and the pooled target; it is off by
    default, and not divided by `target_std`.

    The target is one in the papers. Layer-normed token features, pooled over an image,
    rarely reach that standard deviation without encoding noise, so `target_std` is a setting: the terms are computed on
    the features divided by it. The variance term is zero once the target is reached.

    Args:
        spec: widths, given by the module.
        variance: weight of the variance term.
        covariance: weight of the covariance term.
        invariance: weight of the invariance term (C-JEPA: 25, 25 and 1 of variance, invariance and covariance, times a
            weight of 0.001); zero for pretexts that predict pooled representations themselves, as `Views` does.
        target_std: target standard deviation of the variance term (gamma in VICReg).
        on: representations to regularize: context, target or predicted.
        weight: weight of both terms together, a number or a schedule.
        gather: compute statistics over the samples of all ranks instead of each rank's own; values and gradient are
            those of one process with the whole batch.

    Examples:
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
        invariance: float = 0.0,
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
        self.invariance = invariance
        if invariance and spec.dim != spec.out:
            raise ValueError(
                f"invariance needs a context and targets of one width, got {spec.dim} and {spec.out}: set it to 0"
            )
        self.target_std = target_std
        self.gather = gather
        self.min_samples = 1 if gather else 2  # with gather all ranks must take part, with any number of samples

    def forward(self, outcome: Outcome) -> Tensor:
        """Compute the weighted sum of the terms for at least two samples (over all ranks with `gather`)."""
        values = [self.terms(latents.pooled().flatten(1)) for latents in self.looked_at(outcome)]
        found = values[0] if len(values) == 1 else torch.stack(values).mean()
        return found + self.invariance * invariance(outcome) if self.invariance else found

    def terms(self, features: Tensor) -> Tensor:
        """Compute the weighted sum of the two terms for features (B, D) in float32."""
        if len(features) < 2 and not self.gather:
            raise ValueError("VICReg needs at least two samples per batch on each rank, got 1: raise data.batch_size")
        with torch.autocast(features.device.type, enabled=False):  # autocast would multiply in half precision
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
        """Compute variances (D,) and covariance (D, D) of this rank's samples."""
        features = (features - features.mean(0)) / self.target_std
        count = len(features) - 1
        return features.square().sum(0) / count, features.T @ features / count

    def _gathered(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Compute them over all ranks' samples; ranks may have different numbers."""
        count = sum_over_ranks(features.new_full((), len(features)))
        mean = sum_over_ranks(features.sum(0)) / count
        features = (features - mean) / self.target_std
        covariance = sum_over_ranks(features.T @ features) / (count - 1).clamp(min=1)
        return covariance.diagonal(), covariance


def invariance(outcome: Outcome) -> Tensor:
    """Compute the mean squared difference of pooled contexts (B, D) and their pooled targets, mean over contexts."""
    targets = outcome.target * len(outcome.context) if len(outcome.target) == 1 else outcome.target
    pairs = zip(outcome.context, targets, strict=True)
    return torch.stack([F.mse_loss(context.pooled(), target.pooled()) for context, target in pairs]).mean()
