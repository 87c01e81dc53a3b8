"""A linear probe of continuous labels: ridge regression, scored by R2."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.regression import r2_score

from jepa_lightning.evaluation.probes.held_out import random_fifth

PENALTIES = (100.0, 10.0, 1.0, 0.1, 0.01, 0.001, 0.0001)


def fit_ridge(features: Tensor, values: Tensor, *, penalty: float) -> tuple[Tensor, Tensor]:
    """Fit linear least squares with an L2 penalty, in closed form (float64).

    Minimises the mean over samples of ||y - W x - b||^2, plus penalty ||W||^2; the bias is not penalised. (The penalty
    is scikit-learn's alpha over the number of samples.)

    Args:
        features: (n, D), best standardised.
        values: (n, d).
        penalty: its strength, above 0.

    Returns:
        weight (d, D) and bias (d,), in the features' type.
    """
    x, y = features.double(), values.double()
    x_mean, y_mean = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    wide = x.shape[1] > len(x)  # then the same from the products of samples, which are fewer than those of features
    gram = (x @ x.T if wide else x.T @ x) / len(x)
    gram.diagonal().add_(penalty)
    solved = torch.linalg.solve(gram, (y if wide else x.T @ y) / len(x))
    weight = (x.T @ solved if wide else solved).T
    return weight.to(features.dtype), (y_mean - weight @ x_mean).to(features.dtype)


def choose_penalty(features: Tensor, values: Tensor, *, grid: tuple[float, ...] = PENALTIES) -> float:
    """Choose the penalty of `fit_ridge` that does best on a fifth of these samples, at random (always the same)."""
    held, kept = random_fifth(len(features), features.device)
    if not len(held):
        return grid[0]
    errors = []
    for penalty in grid:
        weight, bias = fit_ridge(features[kept], values[kept], penalty=penalty)
        errors.append(float((F.linear(features[held], weight, bias) - values[held]).square().mean()))
    return grid[errors.index(min(errors))]


def r2(
    train: Tensor, train_values: Tensor, test: Tensor, test_values: Tensor, *, penalty: float | None = None
) -> float:
    """Measure the share of the variance of `test_values` that a ridge regression fitted on `train` explains.

    Args:
        train: (n, D) features, standardised.
        train_values: (n, ...) labels; each number in them is one output, scaled to unit variance for the fit. Samples
            whose label is not finite are left out, here and in the test set.
        test: (m, D) features, scaled like `train`.
        test_values: (m, ...) labels.
        penalty: None: `choose_penalty`, on the training samples.

    Returns:
        R2, the mean over the outputs: 1 is perfect, 0 is no better than the mean of the test labels, below is worse.
        NaN where no label is left, or labels of the test set do not vary.
    """
    known, asked = (values.float().flatten(1) if values.ndim > 1 else values.float()[:, None]
                    for values in (train_values, test_values))  # fmt: skip
    here, there = known.isfinite().all(1), asked.isfinite().all(1)
    train, known, test, asked = train[here], known[here], test[there], asked[there]
    if len(known) < 2 or len(asked) < 2 or not bool((asked.std(0) > 0).all()):
        return math.nan
    mean, scale = known.mean(0), known.std(0).clamp(min=1e-12)
    known = (known - mean) / scale
    weight, bias = fit_ridge(train, known, penalty=choose_penalty(train, known) if penalty is None else penalty)
    predicted = F.linear(test, weight, bias) * scale + mean
    return float(r2_score(predicted.double(), asked.double(), multioutput="uniform_average"))
