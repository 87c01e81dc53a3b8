"""What a JEPA minimises: a distance between predicted and target representations, and regularisers of the context."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PredictionLoss(nn.Module, ABC):
    """Distance between predictions and targets, averaged over all real target tokens of the batch.

    Computed in float32 whatever comes in.
    """

    @abstractmethod
    def distance(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Distance of each token: two (..., D) to (...)."""

    def forward(self, predicted: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Mean distance of `predicted` and `target`, both (B, M, T, D), where `valid` (B, M, T) is True."""
        distance = self.distance(predicted.float(), target.float())
        if valid is None:
            return distance.mean()
        return distance.masked_fill(~valid, 0).sum() / valid.sum().clamp(min=1)


class SmoothL1(PredictionLoss):
    """Smooth L1 (Huber over `beta`), mean over D. I-JEPA's released configuration and Point-JEPA (beta 2)."""

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        if not 0 < beta < math.inf:
            raise ValueError(f"beta must be positive, got {beta}; use L1 for the limit of zero")
        self.beta = beta

    def distance(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Mean over D of d^2 / (2 beta) where |d| < beta, else |d| - beta / 2."""
        return F.smooth_l1_loss(predicted, target, beta=self.beta, reduction="none").mean(-1)


class L1(PredictionLoss):
    """Mean absolute difference, V-JEPA's loss (Bardes et al. 2024, equation 1)."""

    def distance(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Mean over D of |d|."""
        return (predicted - target).abs().mean(-1)


class MSE(PredictionLoss):
    """Mean squared difference, the distance in I-JEPA's paper (Assran et al. 2023, section 3)."""

    def distance(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Mean over D of d^2."""
        return (predicted - target).square().mean(-1)


class Cosine(PredictionLoss):
    """One minus the cosine similarity."""

    def distance(self, predicted: Tensor, target: Tensor) -> Tensor:
        """1 - cos(predicted, target) over D."""
        return 1 - F.cosine_similarity(predicted, target, dim=-1)


class Hyperbola(PredictionLoss):
    """Smooth L1 between two numbers of the prediction and a point of the unit hyperbola, as in Graph-JEPA.

    A target's angle a stands for the point (cosh a, sinh a), which the first two channels of the prediction are to hit
    (Skenderi et al. 2023); a prediction's other channels are free.

    Deviation: there, a is the mean of all channels, and nothing bounds it, so that cosh can overflow. Targets here are
    layer-normed, with a mean of zero, so a is the mean of the first half of the channels. It cannot leave [-1, 1]: with
    s the sum of that half, the other half sums to -s, and Cauchy-Schwarz on both gives D >= 2 s^2 / (D / 2), which is
    |s| <= D / 2.

    Args:
        beta: where the loss turns from quadratic to linear, as in `SmoothL1`.
    """

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.smooth_l1 = SmoothL1(beta)

    def distance(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Mean over the point's two coordinates; D must be even."""
        dim = target.shape[-1]
        if dim < 2 or dim % 2:
            raise ValueError(
                f"Hyperbola needs an even number of channels, got {dim}: change the encoder's width or the objective"
            )
        angle = target[..., : dim // 2].mean(-1)
        return self.smooth_l1.distance(predicted[..., :2], torch.stack([angle.cosh(), angle.sinh()], dim=-1))


class Regularizer(nn.Module, ABC):
    """A penalty on the context's representations, added to the prediction loss."""

    name: str
    """The name under which it is logged, as `train/loss_NAME`."""

    least: int = 1
    """Samples that a batch must have; a smaller one (what is left over at an epoch's end) is not penalised."""

    @abstractmethod
    def forward(self, context: Tensor, valid: Tensor | None = None) -> Tensor:
        """A scalar from (B, K, D) representations, of which those where `valid` (B, K) is True count."""


def pool(features: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean over the real tokens: (B, N, D) to (B, D)."""
    if valid is None:
        return features.mean(1)
    valid = valid.unsqueeze(-1)
    return features.masked_fill(~valid, 0).sum(1) / valid.sum(1).clamp(min=1)


class VICReg(Regularizer):
    """Variance and covariance terms on the pooled context, as C-JEPA adds them to I-JEPA (Mo and Tong 2024).

    The terms are those of VICReg (Bardes et al. 2022, equations 1-4): a hinge that keeps each channel's standard
    deviation over the batch above a target, and the squared off-diagonal covariance, over D. Computed in float32 on
    each rank's own batch.

    The target is one in the papers. Pooled over the tokens of one image, features that are layer-normed token by token
    rarely spread so far without encoding noise, so `target_std` is a setting: the terms are those of the features
    divided by it, and once the spread is reached the variance term is silent.

    Args:
        variance: weight of the variance term.
        covariance: weight of the covariance term.
        target_std: standard deviation that the variance term asks for (gamma in VICReg).
    """

    name = "vicreg"
    least = 2  # for there to be a spread

    def __init__(self, *, variance: float = 1.0, covariance: float = 0.04, target_std: float = 1.0) -> None:
        super().__init__()
        if not 0 < target_std < math.inf:
            raise ValueError(f"target_std must be positive, got {target_std}")
        self.variance = variance
        self.covariance = covariance
        self.target_std = target_std

    def forward(self, context: Tensor, valid: Tensor | None = None) -> Tensor:
        """Weighted sum of the two terms for a context (B, K, D) of at least two samples."""
        features = pool(context.float(), valid)
        batch, dim = features.shape
        if batch < 2:
            raise ValueError("VICReg needs at least two samples a batch on each rank, got 1: raise data.batch_size")
        features = (features - features.mean(0)) / self.target_std
        variance = features.square().sum(0) / (batch - 1)
        hinge = F.relu(1 - (variance + 1e-4).sqrt()).mean()
        with torch.autocast(features.device.type, enabled=False):  # which would multiply in half precision
            covariance = features.T @ features / (batch - 1)
        off_diagonal = (covariance.square().sum() - variance.square().sum()) / dim
        return self.variance * hinge + self.covariance * off_diagonal
