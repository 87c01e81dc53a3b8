"""Probes of frozen features: k nearest neighbours and a linear classifier."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy

from jepa_lightning.evaluation.features import Features


def knn_predict(
    train: Tensor, labels: Tensor, test: Tensor, *, k: int = 20, temperature: float = 0.07, chunk: int = 4096
) -> Tensor:
    """Classes of `test` by weighted k nearest neighbours (Wu et al. 2018; DINO's protocol).

    Neighbours by cosine similarity s, each voting with exp(s / temperature).

    Args:
        train: (n, D) features.
        labels: (n,) int64 classes.
        test: (m, D) features.
        k: neighbours; no more than n are used.
        temperature: of the votes; infinity for equal votes.
        chunk: rows of `test` compared at once.

    Returns:
        (m,) int64.
    """
    k = min(k, len(train))
    classes = int(labels.max()) + 1
    train, test = F.normalize(train, dim=1), F.normalize(test, dim=1)
    found = []
    for rows in test.split(chunk):
        similarity, nearest = (rows @ train.T).topk(k, dim=1)
        votes = torch.zeros(len(rows), classes).scatter_add_(1, labels[nearest], (similarity / temperature).exp())
        found.append(votes.argmax(1))
    return torch.cat(found)


def fit_linear(features: Tensor, labels: Tensor, *, c: float = 1.0, steps: int = 200) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression with an L2 penalty, to convergence by L-BFGS.

    Minimises sum of cross-entropies + ||W||^2 / (2 C), scikit-learn's objective; the bias is not penalised.

    Args:
        features: (n, D), best standardised.
        labels: (n,) int64 classes.
        c: inverse strength of the penalty.
        steps: iterations at most.

    Returns:
        weight (classes, D) and bias (classes,).
    """
    samples, classes = len(features), int(labels.max()) + 1
    weight = torch.zeros(classes, features.shape[1], dtype=features.dtype, requires_grad=True)
    bias = torch.zeros(classes, dtype=features.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=steps, tolerance_grad=1e-5, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(features, weight, bias), labels)
        loss = loss + weight.square().sum() / (2 * c * samples)
        loss.backward()
        return loss

    with torch.enable_grad(), torch.inference_mode(False):
        optimizer.step(closure)
    return weight.detach(), bias.detach()


def standardise(train: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Shift and scale every channel by the mean and standard deviation of `train`, in all the sets."""
    mean, std = train.mean(0), train.std(0).clamp(min=1e-6)
    return tuple((values - mean) / std for values in (train, *others))


def probe(
    train: Features, test: Features, *, label: str | None = None, k: int = 20, c: float = 1.0
) -> dict[str, float]:
    """Accuracy on `test` of the two probes fitted on `train`.

    Args:
        train: labelled features.
        test: features of other samples.
        label: which label; the first that holds classes by default.
        k: neighbours of the kNN (cosine, temperature 0.07, on the features as they are).
        c: inverse penalty of the logistic regression (on features standardised by train).

    Returns:
        `knn` and `linear`, in 0-1.
    """
    labels, truth = train.class_label(label), test.class_label(label)
    classes = int(max(labels.max(), truth.max())) + 1
    scaled, scaled_test = standardise(train.values, test.values)
    weight, bias = fit_linear(scaled, labels, c=c)
    predictions = {
        "knn": knn_predict(train.values, labels, test.values, k=k),
        "linear": F.linear(scaled_test, weight, bias).argmax(1),
    }
    return {
        name: float(multiclass_accuracy(predicted, truth, num_classes=max(classes, 2), average="micro"))
        for name, predicted in predictions.items()
    }
