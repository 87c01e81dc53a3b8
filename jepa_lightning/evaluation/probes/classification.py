"""Probes of frozen features: a linear classifier, and what is asked during training, neighbours and R2 included."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy

from jepa_lightning.evaluation.features.pooled import Features
from jepa_lightning.evaluation.probes.held_out import random_fifth
from jepa_lightning.evaluation.probes.neighbours import knn_predict
from jepa_lightning.evaluation.probes.regression import r2

C_GRID = (0.001, 0.01, 0.1, 1.0, 10.0)


Linear = tuple[Tensor, Tensor]
"""Weight (classes, D) and bias (classes,)."""


def fit_linear(
    features: Tensor, labels: Tensor, *, c: float = 1.0, steps: int = 200, start: Linear | None = None
) -> Linear:
    """Fit a multinomial logistic regression with an L2 penalty, to convergence by L-BFGS.

    Minimises sum of cross-entropies + ||W||^2 / (2 C), scikit-learn's objective; the bias is not penalised. (With two
    classes scikit-learn has one weight vector instead of two, which makes its C half as strong: it calls 2 C what is C
    here.)

    Args:
        features: (n, D), best standardised.
        labels: (n,) int64 classes.
        c: inverse strength of the penalty.
        steps: iterations at most.
        start: where to begin: weight and bias for another `c`, which saves iterations; None: zeros.

    Returns:
        weight (classes, D) and bias (classes,).

    Raises:
        ValueError: the features hold NaN or infinity.
    """
    if not features.isfinite().all():
        raise ValueError("expected finite features, got NaN or infinity: the model they come from has diverged")
    return _minimise(features, labels, c=c, steps=steps, start=start)


def _minimise(features: Tensor, labels: Tensor, *, c: float, steps: int, start: Linear | None) -> Linear:
    samples, classes = len(features), int(labels.max()) + 1
    if start is None:
        start = features.new_zeros(classes, features.shape[1]), features.new_zeros(classes)
    weight, bias = (value.clone() for value in start)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=steps, tolerance_grad=1e-5, line_search_fn="strong_wolfe")
    truth = F.one_hot(labels, classes).to(features.dtype)

    @torch.no_grad()
    def closure() -> Tensor:  # the gradient by hand: autograd takes half the time of small fits
        logs = F.linear(features, weight, bias).log_softmax(1)
        loss = weight.square().sum() / (2 * c * samples) - (logs * truth).sum() / samples
        wrong = (logs.exp() - truth) / samples
        weight.grad = wrong.T @ features + weight / (c * samples)
        bias.grad = wrong.sum(0)
        return loss

    optimizer.step(closure)
    return weight, bias


def linear_predict(train: Tensor, labels: Tensor, test: Tensor, *, c: float) -> Tensor:
    """Predict classes (m,) of `test` (m, D) by `fit_linear` on `train` (n, D) and labels (n,)."""
    weight, bias = fit_linear(train, labels, c=c)
    return F.linear(test, weight, bias).argmax(1)


def choose_c(features: Tensor, labels: Tensor, *, grid: tuple[float, ...] = C_GRID) -> float:
    """Choose the C of `fit_linear` that does best on a fifth of these samples, held out at random (always the same).

    A fixed C favours narrow features where labels are few; chosen for each encoder by itself, from its training
    features alone, the comparison is fair.
    """
    held, kept = random_fifth(len(features), features.device)
    if not len(held):
        return 1.0
    return best_c(features[kept], labels[kept], features[held], labels[held], grid=grid)


def best_c(features: Tensor, labels: Tensor, asked: Tensor, truth: Tensor, *, grid: Sequence[float] = C_GRID) -> float:
    """Choose the C of `fit_linear` on features (n, D) and labels (n,) with the most right answers on `asked` (m, D).

    The strongest penalty of the best. Each fit begins where the one before ended.
    """
    right, fitted = [], None
    for c in sorted(grid):
        fitted = fit_linear(features, labels, c=c, start=fitted)
        right.append(int((F.linear(asked, *fitted).argmax(1) == truth).sum()))
    return sorted(grid)[right.index(max(right))]


def standardise(train: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Shift and scale every channel by the mean and standard deviation of `train`, in all the sets.

    A channel that is constant in `train` is only shifted, as by scikit-learn's StandardScaler.
    """
    mean, scale = mean_and_scale(train)
    return tuple((values - mean) / scale for values in (train, *others))


def mean_and_scale(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of every channel of features (n, D); 1 for the latter where it is constant."""
    mean, std = features.mean(0), features.std(0, correction=0)
    return mean, torch.where(std > 1e-6 * mean.abs().clamp(min=1e-6), std, 1.0)


def chance(known: Tensor, truth: Tensor) -> float:
    """Measure the accuracy on the classes `truth` (m,) of always saying the one that is most frequent in `known` (n,).

    Examples:
        >>> import torch
        >>> from jepa_lightning.evaluation.probes.classification import chance
        >>> chance(torch.tensor([3, 3, 5]), torch.tensor([3, 5, 5, 7]))
        0.25
    """
    classes, counts = known.unique(return_counts=True)
    return float((truth == classes[counts.argmax()]).double().mean())


def probe(
    train: Features, test: Features, *, label: str | None = None, k: int = 20, c: float | None = None
) -> dict[str, float]:
    """Score on `test` probes fitted on `train`: classes by kNN and a linear classifier, continuous labels by R2.

    Args:
        train: labelled features. Samples of a negative class (torchvision's "none") are left out here and in `test`.
        test: features of other samples.
        label: which class label; the first by default. Continuous labels are all probed.
        k: neighbours of the kNN (cosine, temperature 0.07, on the features as they are).
        c: inverse penalty of the logistic regression (on features standardised by train); None: `choose_c`, on train.

    Returns:
        `knn` and `linear`, accuracies in 0-1, where there are classes; `r2_NAME` for each continuous label that both
        sets have (ridge regression on standardised features, its penalty chosen on a fifth of train). NaN where the
        features are not finite or a set has no labelled sample.

    Raises:
        ValueError: neither classes nor continuous labels, or none called `label`.
    """
    finite = bool(train.values.isfinite().all() and test.values.isfinite().all())
    both = [name for name in train.continuous if name in test.labels]
    scores: dict[str, float] = {}
    if label is not None or train.has_classes or not both:
        known, labels = _labelled(train, label)
        asked, truth = _labelled(test, label)
        scores = {"knn": math.nan, "linear": math.nan}
        if finite and len(labels) and len(truth):
            scores = _classify(known, labels, asked, truth, k=k, c=c)
    if both and finite:
        scaled, scaled_asked = standardise(train.values, test.values)
    for name in both:
        values, truth = train.labels[name], test.labels[name]
        has, asks = (part.reshape(len(part), -1).isfinite().all(1) for part in (values, truth))  # NaN is "no label"
        usable = finite and bool(has.any() and asks.any())
        scores[f"r2_{name}"] = r2(scaled[has], values[has], scaled_asked[asks], truth[asks]) if usable else math.nan
    return scores


def _classify(
    known: Tensor, labels: Tensor, asked: Tensor, truth: Tensor, *, k: int, c: float | None
) -> dict[str, float]:
    """Measure the accuracy of both classifiers."""
    names, numbers = torch.cat([labels, truth]).unique(return_inverse=True)  # a class called 2**40 is one class
    labels, truth, classes = numbers[: len(labels)], numbers[len(labels) :], len(names)
    scaled, scaled_asked = standardise(known, asked)
    c = choose_c(scaled, labels) if c is None else c
    predictions = {
        "knn": knn_predict(known, labels, asked, k=k),
        "linear": linear_predict(scaled, labels, scaled_asked, c=c),
    }
    return {
        name: float(multiclass_accuracy(predicted, truth, num_classes=max(classes, 2), average="micro"))
        for name, predicted in predictions.items()
    }


def _labelled(features: Features, label: str | None) -> tuple[Tensor, Tensor]:
    labels = features.class_label(label)
    return features.values[labels >= 0], labels[labels >= 0]
