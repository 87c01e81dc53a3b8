"""Prediction losses: the distance between predicted and target representations."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_lightning.names.shown import ShownModule
from jepa_lightning.schedules import Schedule, value_at

Over = Literal["mean", "min"] | float


class PredictionLoss(ShownModule, nn.Module, ABC):
    """Distance between predictions and targets, averaged over all real target tokens of the batch.

    Computed in float32 for inputs of any precision.
    """

    def set_step(self, step: int, total: int) -> None:
        """Take the optimiser step and the length of the run, for settings that follow a schedule; not by default."""

    @abstractmethod
    def distance(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the distance of each token: two (..., D) to (...)."""

    def forward(
        self,
        predicted: Tensor,
        target: Tensor,
        valid: Tensor | None = None,
        weight: Tensor | None = None,
        over: Over = "mean",
    ) -> Tensor:
        """Compute the weighted mean distance of predictions and targets.

        Args:
            predicted: (B, M, T, D), or (S, B, M, T, D) for S draws of a latent variable z.
            target: (B, M, T, D).
            valid: (B, M, T) bool, False for filler, which is ignored; None: all are real.
            weight: (B, M, T) weight of each token, at least zero; None: one each.
            over: how to reduce the draws: their "mean", or for each sample the "min" of its mean distance. With "min"
                only one draw has to be right (several futures for one past). A number from 0 to 1: that share of the
                mean, and the rest of the min.

        Returns:
            A scalar: the sum of weight x distance over the sum of weights.

        Raises:
            ValueError: `over` is none of these.
        """
        if over not in ("mean", "min") and (isinstance(over, str) or not 0 <= over <= 1):
            raise ValueError(f"over must be mean, min or a number from 0 to 1, got {over!r}")
        distance = self.distance(predicted.float(), target.float().expand_as(predicted))  # (..., B, M, T)
        if weight is None and over == "mean":
            if valid is None:
                return distance.mean()
            draws = distance.numel() // valid.numel()
            return distance.masked_fill(~valid, 0).sum() / (draws * valid.sum().clamp(min=1))
        weight = torch.ones_like(distance[(0,) * (distance.ndim - 3)]) if weight is None else weight.float()
        if valid is not None:
            weight, distance = weight.masked_fill(~valid, 0), distance.masked_fill(~valid, 0)
        of_sample = (distance * weight).sum((-2, -1)).view(-1, len(weight))  # (draws, B)
        share = {"mean": 1.0, "min": 0.0}[over] if isinstance(over, str) else over
        summed = of_sample.amin(0).lerp(of_sample.mean(0), share)  # exact at 0 and 1
        return summed.sum() / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)


class SmoothL1(PredictionLoss):
    """Smooth L1 (Huber over `beta`), mean over D. I-JEPA's released configuration and Point-JEPA (beta 2).

    Examples:
        >>> import torch
        >>> from jepa_lightning.objectives import SmoothL1
        >>> SmoothL1(beta=2.0)(torch.zeros(2, 4, 3, 8), 4 * torch.ones(2, 4, 3, 8))
        tensor(3.)
    """

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        if not 0 < beta < math.inf:
            raise ValueError(f"beta must be positive, got {beta}; use L1 for the limit of zero")
        self.beta = beta

    def distance(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the mean over D of d^2 / (2 beta) where |d| < beta, else |d| - beta / 2."""
        return F.smooth_l1_loss(predicted, target, beta=self.beta, reduction="none").mean(-1)


class L1(PredictionLoss):
    """Mean absolute difference, V-JEPA's loss (Bardes et al. 2024, equation 1).

    Examples:
        >>> import torch
        >>> from jepa_lightning.objectives import L1
        >>> L1()(torch.zeros(2, 4, 3, 8), torch.ones(2, 4, 3, 8))
        tensor(1.)
    """

    def distance(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the mean over D of |d|."""
        return (predicted - target).abs().mean(-1)


class MSE(PredictionLoss):
    """Mean squared difference, the distance in I-JEPA's paper (Assran et al. 2023, section 3).

    Examples:
        >>> import torch
        >>> from jepa_lightning.objectives import MSE
        >>> MSE()(torch.zeros(2, 4, 3, 8), 2 * torch.ones(2, 4, 3, 8))
        tensor(4.)
    """

    def distance(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the mean over D of d^2."""
        return (predicted - target).square().mean(-1)


class Cosine(PredictionLoss):
    """One minus the cosine similarity.

    Examples:
        >>> import torch
        >>> from jepa_lightning.objectives import Cosine
        >>> Cosine()(torch.ones(2, 4, 3, 8), 2 * torch.ones(2, 4, 3, 8)).round(decimals=4).abs()
        tensor(0.)
    """

    def distance(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return 1 - cos(predicted, target) over D."""
        return 1 - F.cosine_similarity(predicted, target, dim=-1)


class CrossEntropy(PredictionLoss):
    """Cross-entropy of two softmax distributions over D: DINO's loss (Caron et al. 2021, arXiv:2104.14294, equation 2).

    Predictions and targets are logits. The target's lower temperature sharpens its distribution; together with the
    centring of the targets (`Views(centering=)`) that keeps DINO from collapse.

    Args:
        temperature: of the predictions.
        target_temperature: of the targets, a number or a schedule; the paper warms it up from 0.04 to 0.07.

    Raises:
        ValueError: a temperature is not above 0.

    Examples:
        >>> import torch
        >>> from jepa_lightning.objectives import CrossEntropy
        >>> logits = torch.eye(8)[:, None, None]  # (B, M, T, D): each sample a class of its own
        >>> loss = CrossEntropy(temperature=0.1, target_temperature=0.04)
        >>> round(float(loss(logits, logits)), 4), round(float(loss(torch.zeros(8, 1, 1, 8), logits)), 4)
        (0.0003, 2.0794)
    """

    def __init__(self, *, temperature: float = 0.1, target_temperature: float | Schedule = 0.04) -> None:
        super().__init__()
        self.temperature = _checked("temperature", temperature)
        self.target_temperature = target_temperature
        self.current = _checked("target_temperature", value_at(target_temperature, 0, 1))

    def set_step(self, step: int, total: int) -> None:
        """Take the temperature of the targets from its schedule."""
        self.current = _checked("target_temperature", value_at(self.target_temperature, step, total))

    def distance(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return -sum over D of softmax(target / its temperature) log softmax(predicted / temperature)."""
        share = F.softmax(target / self.current, dim=-1)
        return -(share * F.log_softmax(predicted / self.temperature, dim=-1)).sum(-1)


def _checked(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be above 0, got {value:g}")
    return value


class Hyperbola(PredictionLoss):
    """Smooth L1 between two numbers of the prediction and a point of the unit hyperbola, as in Graph-JEPA.

    A target's angle a defines the point (cosh a, sinh a), which the first two channels of the prediction should match
    (Skenderi et al. 2023). The other channels of a prediction are unused.

    Deviation: there, a is the mean of all channels, and nothing bounds it, so that cosh can overflow. Targets here are
    layer-normed, with a mean of zero, so a is the mean of the first half of the channels. It cannot leave [-1, 1]: with
    s the sum of that half, the other half sums to -s, and Cauchy-Schwarz on both gives D >= 2 s^2 / (D / 2), which is
    |s| <= D / 2.

    Args:
        beta: where the loss turns from quadratic to linear, as in `SmoothL1`.

    Examples:
        >>> import torch
        >>> from jepa_lightning.objectives import Hyperbola
        >>> predicted = torch.zeros(2, 4, 3, 8)
        >>> predicted[..., 0] = 1.0  # the point (1, 0), of the angle 0
        >>> Hyperbola()(predicted, torch.zeros(2, 4, 3, 8))
        tensor(0.)
    """

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.smooth_l1 = SmoothL1(beta)

    def distance(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the mean over the point's two coordinates; D must be even."""
        dim = target.shape[-1]
        if dim < 2 or dim % 2:
            raise ValueError(
                f"Hyperbola needs an even number of channels, got {dim}: change the encoder's width or the objective"
            )
        angle = target[..., : dim // 2].mean(-1)
        return self.smooth_l1.distance(predicted[..., :2], torch.stack([angle.cosh(), angle.sinh()], dim=-1))


def mean_of(losses: list[Tensor]) -> Tensor:
    """Return the mean of scalars."""
    return losses[0] if len(losses) == 1 else torch.stack(losses).mean()
