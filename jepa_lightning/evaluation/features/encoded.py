"""What frozen encoders make of a data set: the input of `evaluate_features`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from jepa_lightning.evaluation.features.pooled import Features
from jepa_lightning.evaluation.features.token_store import TokenFeatures
from jepa_lightning.evaluation.pca import principal_components
from jepa_lightning.evaluation.report.results import Embedding

_POINTS = 1000  # of an embedding's picture


@dataclass(frozen=True)
class Encoded:
    """What one frozen encoder makes of a data set.

    Attributes:
        train: features of the training part, or of everything.
        test: of the data's own test part, needed for the protocol "split"; the others take both parts together.
        views: (m, D) features of another view of samples of `train`, for the alignment.
        viewed: (m,) numbers of these samples; None: all, in order.
        tokens: features of all tokens of everything, the training part first, for the attentive probe; None where there
            are none, as of raw input.
    """

    train: Features
    test: Features | None = None
    views: Tensor | None = None
    viewed: Tensor | None = None
    tokens: TokenFeatures | None = None

    @property
    def values(self) -> Tensor:
        """(n, D) features of everything, the training part first."""
        return self.train.values if self.test is None else torch.cat([self.train.values, self.test.values])

    @property
    def labels(self) -> dict[str, Tensor]:
        """The labels of everything; -1, or NaN, for samples of a part that lacks one."""
        if self.test is None:
            return self.train.labels
        both = [(part.labels, len(part.values)) for part in (self.train, self.test)]
        names = dict.fromkeys(name for labels, _ in both for name in labels)
        return {name: torch.cat([_label(labels, name, rows, both) for labels, rows in both]) for name in names}


def _label(labels: dict[str, Tensor], name: str, rows: int, both: list[tuple[dict[str, Tensor], int]]) -> Tensor:
    if name in labels:
        return labels[name]
    one = next(of[name] for of, _ in both if name in of)
    return one.new_full((rows, *one.shape[1:]), torch.nan if one.is_floating_point() else -1)


def parts(encoded: Encoded, *, own_split: bool) -> tuple[Tensor, Tensor, int]:
    """Return training features, test features, and the number of the first test sample."""
    if own_split and encoded.test is not None:
        return encoded.train.values.float(), encoded.test.values.float(), len(encoded.train.values)
    return encoded.values.float(), encoded.values.float(), 0


def project(name: str, train: Tensor, test: Tensor, first: int) -> Embedding:
    """Features `train` and `test`, whose first sample has the number `first`, in two dimensions for a picture.

    At most 1,000 samples of `test`, along the principal components of at most 2,000 of `train`.
    """
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(test), generator=generator)[:_POINTS].sort().values
    rows = (chosen + first).numpy()
    known = train[torch.randperm(len(train), generator=generator)[: 2 * _POINTS]]
    if not (known.isfinite().all() and test.isfinite().all()):
        return Embedding(name, np.full((len(rows), 2), np.nan), (np.nan, np.nan), rows)
    mean, sizes, axes = principal_components(known)
    points = np.zeros((len(rows), 2))
    found = ((test[chosen] - mean) @ axes[:2].T).double().numpy()
    points[:, : found.shape[1]] = found  # of a single channel there is no second component
    shares = [*(sizes.square() / sizes.square().sum().clamp(min=1e-30)).tolist(), 0.0]
    return Embedding(name, points, (shares[0], shares[1]), rows)
