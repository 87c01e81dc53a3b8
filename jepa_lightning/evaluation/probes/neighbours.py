"""k nearest neighbours of frozen features, with fixed settings or with settings chosen on the training part."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

K_GRID = (1, 5, 10, 20, 50)
_CELLS = 2**26  # of a matrix of similarities


def knn_predict(
    train: Tensor, labels: Tensor, test: Tensor, *, k: int = 20, temperature: float = 0.07, chunk: int = 4096
) -> Tensor:
    """Predict the classes of `test` by weighted k nearest neighbours (Wu et al. 2018; DINO's protocol).

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
    train, test = F.normalize(train, dim=1), F.normalize(test, dim=1)
    found = []
    for rows in test.split(chunk):
        similarity, nearest = (rows @ train.T).topk(k, dim=1)
        found += _answers(similarity, nearest, labels, [k], temperature=temperature)
    return torch.cat(found)


def choose_knn(
    train: Tensor,
    labels: Tensor,
    *,
    scaled: Tensor,
    grid: Sequence[int] = K_GRID,
    temperature: float = 0.07,
    most: int = 10_000,
    chunk: int = 2048,
) -> tuple[int, bool]:
    """Choose k of `knn_predict`, and whether features are standardised, by leaving out one training sample at a time.

    With fixed settings encoders are not compared fairly: where all features point into nearly the same direction, as
    those of an untrained network do, the cosines of near and far neighbours are the same within the temperature, and
    all k votes count alike; where features spread, the nearest one decides.

    Args:
        train: (n, D) features.
        labels: (n,) int64 classes.
        scaled: (n, D), the same, standardised.
        grid: numbers of neighbours to choose from; those of n and above are left out.
        temperature: of the votes.
        most: samples that are left out in turn; of more, so many are drawn, always the same.
        chunk: of these, compared at once; fewer where there are many others, for the memory's sake.

    Returns:
        k and whether to use `scaled`: the pair with the most right answers; of equals the larger k, features as they
        are. One neighbour and features as they are where there is no second sample.
    """
    samples = len(train)
    sizes = [k for k in sorted(grid) if k < samples]
    if not sizes:
        return 1, False
    asked = torch.arange(samples)
    if samples > most:
        asked = torch.randperm(samples, generator=torch.Generator().manual_seed(0))[:most]
    asked, chunk = asked.to(train.device), min(chunk, max(1, _CELLS // samples))
    right = []
    for features in (train, scaled):
        unit, counts = F.normalize(features, dim=1), torch.zeros(len(sizes), dtype=torch.int64)
        for rows in asked.split(chunk):
            similarity = unit[rows] @ unit.T
            similarity[torch.arange(len(rows), device=rows.device), rows] = -torch.inf  # itself
            closest, nearest = similarity.topk(sizes[-1], dim=1)
            answers = _answers(closest, nearest, labels, sizes, temperature=temperature)
            counts += torch.tensor([int((answer == labels[rows]).sum()) for answer in answers])
        right.append(counts)
    table = torch.stack(right)
    best = [(bool(row), sizes[column]) for row, column in (table == table.max()).nonzero().tolist()]
    use_scaled, k = min(best, key=lambda pair: (-pair[1], pair[0]))
    return k, use_scaled


def _answers(
    similarity: Tensor, nearest: Tensor, labels: Tensor, sizes: Sequence[int], *, temperature: float
) -> list[Tensor]:
    """Classes (m,) that the first so many neighbours vote for, for each of rising `sizes`.

    Args:
        similarity: (m, k) cosines, falling.
        nearest: (m, k) rows of `labels`.
        labels: (n,) int64 classes.
        sizes: numbers of neighbours, none above k.
        temperature: of the votes.
    """
    weight = ((similarity - similarity[:, :1]) / temperature).exp()  # of the nearest: 1, so nothing overflows
    votes = weight.new_zeros(len(weight), int(labels.max()) + 1)
    found, before = [], 0
    for k in sizes:
        votes.scatter_add_(1, labels[nearest[:, before:k]], weight[:, before:k])
        found.append(votes.argmax(1))
        before = k
    return found
