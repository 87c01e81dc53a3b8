"""From features and labels of a training part to what a probe says of a test part.

The test part is handed to the fitted probe and to nothing else: scaling, the choice of a penalty and the fit see the
training part alone.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from jepa_lightning.evaluation.features.token_store import TokenFeatures
from jepa_lightning.evaluation.probes.attentive import DECAYS, LRS, fit_attentive
from jepa_lightning.evaluation.probes.bootstrap import Outcome
from jepa_lightning.evaluation.probes.classification import C_GRID, best_c, linear_predict, standardise
from jepa_lightning.evaluation.probes.dense import MOST, count_pixels, fit_dense
from jepa_lightning.evaluation.probes.held_out import held_out
from jepa_lightning.evaluation.probes.neighbours import K_GRID, choose_knn, knn_predict
from jepa_lightning.evaluation.probes.protocols import LinearClassifier, Split
from jepa_lightning.evaluation.probes.regression import choose_penalty, fit_ridge

Probe = Literal["knn", "knn_cv", "logistic", "svm", "ridge", "attentive", "dense"]
OF_TOKENS = frozenset({"attentive", "dense"})
"""Probes that need the features of single tokens."""
CLASSIFIERS: tuple[Probe, ...] = ("logistic", "svm", "knn_cv", "knn", "attentive")
"""Probes of classes: the first of these that is asked for draws the confusions."""
DESCRIPTIONS = {
    "knn": "k nearest neighbours by cosine, votes weighted by exp(similarity / 0.07), features as they are",
    "knn_cv": (
        f"the same; k of {', '.join(map(str, K_GRID))}, and whether features are standardised by the training part, "
        "chosen by leaving out one training sample at a time"
    ),
    "logistic": (
        "multinomial logistic regression (L2, L-BFGS) on features standardised by the training part; C from "
        f"{C_GRID[0]:g} to {C_GRID[-1]:g}, chosen on a stratified fifth of the training part, then fitted on all of it"
    ),
    "svm": str(LinearClassifier("svm")),
    "ridge": (
        "ridge regression on features standardised by the training part; the penalty chosen on a fifth of the "
        "training part"
    ),
    "attentive": (
        "a learned query attends over all tokens (4 heads), norm, linear map; tokens kept as float16, standardised by "
        "the training part; AdamW, 20 epochs, batches of 128 or an eighth of the samples, cosine schedule; learning "
        f"rate of {', '.join(f'{lr:g}' for lr in LRS)} and weight decay of {', '.join(f'{d:g}' for d in DECAYS)} "
        "chosen on a stratified fifth of the training part, then fitted on all of it"
    ),
    "dense": (
        "a linear map of each token, interpolated bilinearly to the pixels of a label map: logistic regression on the "
        "class that most pixels of a patch have, scored by mIoU, or ridge regression on their mean, scored by R2; C or "
        f"the penalty chosen on a fifth of the training samples, then fitted on all, on at most {MOST:,} tokens, "
        "kept as float16 and standardised by the training part"
    ),
}


def run_probe(
    probe: Probe,
    features: Tensor,
    labels: NDArray[Any],
    split: Split,
    *,
    k: int = 20,
    tokens: TokenFeatures | None = None,
    rows: NDArray[np.int64] | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> Outcome:
    """Fit a probe on the training part of a split, and predict its test part.

    Args:
        probe: "knn", "knn_cv", "logistic" or "svm" for classes, "ridge" for continuous labels, "attentive" for both;
            "dense" for maps of either.
        features: (n, D) float32; "knn", "knn_cv", "logistic" and "ridge" are fitted on the device that they are on.
        labels: (n,) classes from 0, or (n, d) values; or maps (n, H, W) of either, -1 and NaN for none.
        split: numbers of rows.
        k: neighbours of "knn".
        tokens: of all samples, for "attentive" and "dense" only.
        rows: (n,) numbers among them of the samples; None: the same.
        seed: of "attentive" and "dense".
        device: of "attentive" and "dense".

    Returns:
        Truth and predictions, the predictions NaN where a feature is not finite.

    Raises:
        ValueError: "attentive" or "dense" without tokens.
    """
    continuous = np.issubdtype(labels.dtype, np.floating)
    if probe in OF_TOKENS and tokens is None:
        raise ValueError(f"expected token features for the probe {probe}, got none")
    if probe == "dense" and tokens is not None:
        whole = np.arange(len(labels)) if rows is None else rows
        return _dense(tokens, whole, labels, split, seed=seed, device=device)
    here, there = torch.from_numpy(split.train), torch.from_numpy(split.test)
    train, test = features[here], features[there]
    known, truth = labels[split.train], labels[split.test]
    chosen: float | tuple[float, float] | None = None
    if not (train.isfinite().all() and test.isfinite().all()):
        predicted: NDArray[Any] = np.full(truth.shape, np.nan)
    elif probe == "svm":
        model = LinearClassifier("svm").fit(train.cpu().numpy(), known)
        chosen = float(model["classify"].C)
        predicted = model.predict(test.cpu().numpy())
    elif probe == "knn":
        predicted = knn_predict(train, torch.from_numpy(known).to(train.device), test, k=k).cpu().numpy()
    elif probe == "knn_cv":
        predicted, chosen = _knn_cv(train, test, torch.from_numpy(known).to(train.device))
    elif tokens is not None and probe == "attentive":
        whole = np.arange(len(labels)) if rows is None else rows
        fitted_on, tested = (torch.from_numpy(whole[part]) for part in (split.train, split.test))
        target = torch.from_numpy(known).float() if continuous else torch.from_numpy(known)
        fitted = fit_attentive(tokens.values, tokens.valid, target, rows=fitted_on, seed=seed, device=device)
        predicted = fitted.predict(tokens.values, tokens.valid, rows=tested).numpy()
        chosen = fitted.lr, fitted.decay
    else:
        fit = _logistic if probe == "logistic" else _ridge
        scaled, asked = standardise(train, test)
        predicted, chosen = fit(scaled, asked, torch.from_numpy(known).to(scaled.device))
    measure: Literal["accuracy", "R2"] = "R2" if continuous else "accuracy"
    return Outcome(measure, truth, predicted, train=len(train), chosen=chosen)


def choose_stratified_c(features: Tensor, labels: Tensor, *, grid: tuple[float, ...] = C_GRID) -> float:
    """Choose the C of `fit_linear` that does best on a fifth of each class, at least one sample, held out at random.

    The strongest penalty of the best; 1 where every class has a single sample. A class of one sample is not held out.
    """
    held = held_out(labels).to(features.device)
    if not held.any():
        return 1.0
    return best_c(features[~held], labels[~held], features[held], labels[held], grid=grid)


def _knn_cv(train: Tensor, test: Tensor, labels: Tensor) -> tuple[NDArray[Any], tuple[float, float]]:
    scaled, asked = standardise(train, test)
    k, standardised = choose_knn(train, labels, scaled=scaled)
    features = (scaled, asked) if standardised else (train, test)
    return knn_predict(features[0], labels, features[1], k=k).cpu().numpy(), (float(k), float(standardised))


def _logistic(train: Tensor, test: Tensor, labels: Tensor) -> tuple[NDArray[Any], float]:
    c = choose_stratified_c(train, labels)
    return linear_predict(train, labels, test, c=c).cpu().numpy(), c


def _ridge(train: Tensor, test: Tensor, values: Tensor) -> tuple[NDArray[Any], float]:
    mean, scale = values.mean(0), values.std(0, correction=0).clamp(min=1e-12)
    scaled = ((values - mean) / scale).float()
    penalty = choose_penalty(train, scaled)
    weight, bias = fit_ridge(train, scaled, penalty=penalty)
    return (F.linear(test, weight, bias).double() * scale + mean).cpu().numpy(), penalty


def _dense(
    tokens: TokenFeatures, rows: NDArray[np.int64], labels: NDArray[Any], split: Split, *, seed: int, device: str
) -> Outcome:
    measure: Literal["R2 of pixels", "mIoU"] = "R2 of pixels" if labels.dtype.kind == "f" else "mIoU"
    if tokens.valid is not None:
        raise ValueError("expected tokens that fill a grid for the probe dense, got some that are padding")
    if not all(tokens.values[torch.from_numpy(rows[part])].isfinite().all() for part in (split.train, split.test)):
        return Outcome(measure, split.test, np.full((len(split.test), 4), np.nan), train=len(split.train))
    known, asked = (
        (tokens.values[torch.from_numpy(rows[part])].to(device), torch.from_numpy(labels[part]).to(device))
        for part in (split.train, split.test)
    )
    fitted = fit_dense(*known, classes=None if measure != "mIoU" else int(labels.max()) + 1, seed=seed)
    counted = count_pixels(fitted, *asked).cpu().numpy()
    return Outcome(measure, split.test, counted, train=len(split.train), chosen=fitted.chosen)
