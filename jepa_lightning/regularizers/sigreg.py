"""Sketched isotropic Gaussian regularization (LeJEPA)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from jepa_lightning.pretexts.base import Outcome
from jepa_lightning.regularizers.base import On, Regularizer, RegularizerSpec
from jepa_lightning.regularizers.gather import sum_over_ranks
from jepa_lightning.schedules import Schedule
from jepa_lightning.tokens import Latents


class SIGReg(Regularizer):
    """Pull representations towards an isotropic Gaussian (LeJEPA: Balestriero and LeCun 2025, arXiv:2511.08544).

    Pooled representations are projected on random directions, drawn at each step. On each direction, the Epps-Pulley
    statistic measures the distance of the samples' distribution from N(0, 1):

        N * integral of |mean_n exp(i t x_n) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt

    by the trapezoidal rule over `points` knots on [0, `limit`], twice (the integrand is even). The value is the mean
    over directions. For N samples of N(0, 1) it is 1.06 on average (sqrt(2 pi) - sqrt(2 pi / 3)), for every N; for a
    collapsed batch it grows with N. Computed in float32. The directions are a function of (run seed, step): the same
    on all ranks, and after resuming.

    Args:
        spec: widths, given by the module.
        directions: number of random directions per step (1024 in the paper's experiments).
        points: number of knots of the integral.
        limit: upper limit of the integral.
        on: representations to regularize: context, target or predicted.
        weight: weight in the loss, a number or a schedule; the paper's lambda (0.05, beside `prediction_weight` 0.95).
        gather: compute statistic and gradient over the samples of all ranks instead of each rank's own.
        per_sample: divide by N, so that the gradient does not grow with the batch.
        by_time: of trajectories, the statistic of the states at each time by itself, over the samples of the batch, and
            the mean over times (LeWorldModel: Maes et al. 2026, arXiv:2603.19312, algorithm 9). N is then the number of
            trajectories.
        tokens: each token is a sample by itself, N that of all tokens of the batch, in place of their mean; of masked
            prediction, whose small batches tell little of a distribution. Memory grows with tokens x `directions`.

    Raises:
        ValueError: a setting is out of range, or both `by_time` and `tokens`; when called: `by_time` of an outcome
            without trajectories.

    Examples:
        >>> import torch
        >>> from jepa_lightning.pretexts import Outcome
        >>> from jepa_lightning.regularizers import RegularizerSpec, SIGReg
        >>> from jepa_lightning.tokens import Latents
        >>> sigreg = SIGReg(RegularizerSpec(dim=8, out=8))
        >>> gaussian = torch.randn(512, 1, 8, generator=torch.Generator().manual_seed(0))
        >>> bool(sigreg(Outcome(context=[Latents(values=gaussian)])) < 2)
        True
        >>> bool(sigreg(Outcome(context=[Latents(values=0.0 * gaussian)])) > 100)
        True
    """

    name = "sigreg"
    knots: Tensor
    gaussian: Tensor
    weights: Tensor

    def __init__(
        self,
        spec: RegularizerSpec,
        *,
        directions: int = 1024,
        points: int = 17,
        limit: float = 5.0,
        on: On = "context",
        weight: float | Schedule = 0.05,
        gather: bool = True,
        per_sample: bool = False,
        by_time: bool = False,
        tokens: bool = False,
    ) -> None:
        super().__init__(spec, on=on, weight=weight)
        if directions < 1 or points < 2 or not 0 < limit < math.inf:
            raise ValueError(
                f"SIGReg needs at least 1 direction, 2 points and a positive limit, got {directions}, {points}, {limit}"
            )
        if by_time and tokens:
            raise ValueError("expected by_time or tokens, got both: a state at a time is the mean of its tokens")
        self.directions = directions
        self.gather = gather
        self.per_sample = per_sample
        self.by_time = by_time
        self.tokens = tokens
        self.min_samples = 1 if gather else 2
        knots = torch.linspace(0, limit, points)
        weights = torch.full((points,), 2 * limit / (points - 1))  # twice: the integrand is even
        weights[[0, -1]] /= 2
        gaussian = torch.exp(-knots.square() / 2)
        self.register_buffer("knots", knots, persistent=False)
        self.register_buffer("gaussian", gaussian, persistent=False)
        self.register_buffer("weights", weights * gaussian, persistent=False)

    def forward(self, outcome: Outcome) -> Tensor:
        """Compute the mean statistic over directions, and over contexts if there are several."""
        looked = self.looked_at(outcome)
        if self.by_time:  # (T, B, D)
            values = [self.statistic(outcome.by_trajectory(latents).transpose(0, 1)) for latents in looked]
        elif self.tokens:
            values = [self.statistic(*_each_token(latents)) for latents in looked]
        else:
            values = [self.statistic(latents.pooled().flatten(1)) for latents in looked]
        return values[0] if len(values) == 1 else torch.stack(values).mean()

    def statistic(self, features: Tensor, valid: Tensor | None = None) -> Tensor:
        """Compute the mean statistic of features (..., N, D) in float32, the mean over several sets of N.

        Args:
            features: the samples.
            valid: (..., N) bool, False for what is no sample; None: all are.
        """
        with torch.autocast(features.device.type, enabled=False):
            angles = (features @ self.draw(features)).unsqueeze(-1) * self.knots  # (..., N, directions, points)
            total = sum_over_ranks if self.gather else _itself
            cos, sin = angles.cos(), angles.sin()
            if valid is None:
                count = total(features.new_full((), features.shape[-2]))
            else:
                count = total(valid.sum().to(features)).clamp(min=1)
                cos, sin = (part * valid[..., None, None] for part in (cos, sin))
            real, imaginary = total(cos.sum(-3)) / count, total(sin.sum(-3)) / count
            distance = (real - self.gaussian).square() + imaginary.square()
            found = (distance * self.weights).sum(-1).mean()
            return found if self.per_sample else found * count

    def draw(self, features: Tensor) -> Tensor:
        """Draw the random unit directions (D, directions) of this step."""
        return draw_directions(features, self.directions, self.seed)


def draw_directions(features: Tensor, count: int, seed: int) -> Tensor:
    """Draw random unit directions (D, count) for features (..., D), from a seed."""
    generator = torch.Generator(features.device).manual_seed(seed)
    drawn = torch.randn(features.shape[-1], count, generator=generator, device=features.device, dtype=features.dtype)
    return drawn / drawn.norm(dim=0)


def _each_token(latents: Latents) -> tuple[Tensor, Tensor | None]:
    """The tokens of all samples (B N, D) in float32, those of several layers side by side, and which are real."""
    return latents.values.float().flatten(2).flatten(0, 1), None if latents.valid is None else latents.valid.flatten()


def _itself(value: Tensor) -> Tensor:
    return value
