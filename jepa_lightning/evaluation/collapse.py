"""Whether a representation has collapsed: how many dimensions it fills, and how far its samples lie apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_lightning.evaluation.rank import effective_rank

MIN_RANK, MIN_STD = 2.0, 0.01  # and of the collapse monitor
_SAMPLES = 2048  # are looked at; the monitor takes 512

Verdict = Literal["healthy", "collapsed", "diverged"]


@dataclass(frozen=True)
class Collapse:
    """What the spread of features (n, D) says.

    Attributes:
        verdict: "diverged" of features that are not finite; "collapsed" below `MIN_RANK` or `MIN_STD`, as the
            collapse monitor has it during training; else "healthy".
        effective_rank: RankMe on centred features.
        std: standard deviation over samples, mean over channels, of the features as they are.
        relative_std: the same after all features were scaled to a mean square of 1. It is what the verdict looks at:
            during training the features are layer-normed, and here they come in any scale.
        spectrum: eigenvalues of the covariance over their sum, largest first, at most n - 1 or D of them.
        uniformity: log of the mean of exp(-2 d^2) over pairs of samples, d the distance on the unit sphere (Wang and
            Isola 2020, t = 2), 0 where all are the same.
        alignment: mean square distance on the unit sphere of two views of one sample (Wang and Isola 2020, alpha = 2),
            0 where they are the same; None without views.
    """

    verdict: Verdict
    effective_rank: float
    std: float
    relative_std: float
    spectrum: tuple[float, ...]
    uniformity: float
    alignment: float | None = None


def collapse(features: Tensor, views: Tensor | None = None, *, viewed: Tensor | None = None) -> Collapse:
    """Measure the spread of features, of 2,048 samples drawn at random (always the same) where there are more.

    Args:
        features: (n, D), at least 2 samples.
        views: (m, D) features of another view of some samples.
        viewed: (m,) numbers of those; None: all, in the same order.

    Raises:
        ValueError: fewer than 2 samples, or views that do not match.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"expected features (n, D) of at least 2 samples, got the shape {tuple(features.shape)}")
    of_views = features if viewed is None else features[viewed]
    if views is not None and views.shape != of_views.shape:
        raise ValueError(f"expected views like the features {tuple(of_views.shape)}, got {tuple(views.shape)}")
    features = features.detach().float()
    if not features.isfinite().all():
        return Collapse("diverged", math.nan, math.nan, math.nan, (), math.nan, None if views is None else math.nan)
    drawn = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))[:_SAMPLES]
    features = features[drawn]
    rank, std = float(effective_rank(features)), float(features.std(0).mean())
    size = float(features.double().square().mean().sqrt())
    relative = std / size if size > 0 else 0.0
    variances = torch.linalg.svdvals((features - features.mean(0)).double()).square()[: len(features) - 1]
    spectrum = variances / variances.sum().clamp(min=torch.finfo(torch.float64).tiny)
    unit = F.normalize(features, dim=1)
    return Collapse(
        verdict="healthy" if rank >= MIN_RANK and relative >= MIN_STD else "collapsed",
        effective_rank=rank,
        std=std,
        relative_std=relative,
        spectrum=tuple(spectrum.tolist()),
        uniformity=uniformity(unit),
        alignment=None if views is None else alignment(of_views, views),
    )


def alignment(features: Tensor, views: Tensor) -> float:
    """Measure the mean square distance on the unit sphere of features (m, D) from those of other views."""
    one, other = (F.normalize(values.float(), dim=1) for values in (features, views))
    return float((one - other).square().sum(1).mean())


def uniformity(unit: Tensor) -> float:
    """Log of the mean Gaussian potential of all pairs of unit vectors (n, D)."""
    distances = torch.pdist(unit).square()
    return float(torch.logsumexp(-2 * distances, 0) - math.log(len(distances)))
