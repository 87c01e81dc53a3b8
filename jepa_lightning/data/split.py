"""Drawing a part of a data set, stratified by class where the classes are known."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import ConcatDataset, Dataset, Subset


def known_targets(dataset: Dataset[Any]) -> NDArray[np.int64] | None:
    """Find the class of every sample, (N,), as far as it can be had without reading the samples; else None.

    Looks for what torchvision's datasets have, `targets` or `labels` (one integer a sample); sees through `Subset`
    and `ConcatDataset`.
    """
    if isinstance(dataset, Subset):
        inner = known_targets(dataset.dataset)
        return None if inner is None else inner[np.asarray(dataset.indices, dtype=np.int64)]
    if isinstance(dataset, ConcatDataset):
        parts = [known_targets(part) for part in dataset.datasets]
        known = [part for part in parts if part is not None]
        return np.concatenate(known) if known and len(known) == len(parts) else None
    for name in ("targets", "labels"):
        values = getattr(dataset, name, None)
        if values is None or callable(values):
            continue
        try:
            array = np.asarray(values)
        except (TypeError, ValueError):  # a ragged list, a tensor on a device
            continue
        if array.shape == (len(dataset),) and np.issubdtype(array.dtype, np.integer):  # type: ignore[arg-type]
            return array.astype(np.int64)
    return None


def draw(count: int, number: int, *, seed: int, targets: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Draw `number` of the indices 0 to `count` - 1 by `seed`, sorted.

    With `targets` (count,) each class has its share of the draw, rounded so that the total is exact.
    """
    number = min(number, count)
    rng = np.random.default_rng(seed)
    if targets is None:
        return np.sort(rng.permutation(count)[:number])
    classes, inverse, sizes = np.unique(targets, return_inverse=True, return_counts=True)
    share = sizes * (number / count)
    quota = np.floor(share).astype(np.int64)
    # The largest remainders are rounded up; among equal ones the order is drawn, not the class number's.
    order = rng.permutation(len(classes))
    order = order[np.argsort(-(share - quota)[order], kind="stable")]
    quota[order[: number - quota.sum()]] += 1
    shuffled = rng.permutation(count)
    by_class = shuffled[np.argsort(inverse[shuffled], kind="stable")]
    starts = np.cumsum(sizes) - sizes
    parts = [by_class[start : start + take] for start, take in zip(starts, quota, strict=True)]
    return np.sort(np.concatenate(parts))
