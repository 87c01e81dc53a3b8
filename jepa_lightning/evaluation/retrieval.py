"""Retrieval: is a sample's other modality the nearest among those of all samples?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_lightning.evaluation.probes.protocols import wilson, with_interval

_EQUAL = 1e-6  # cosines that differ by less are one
_ROWS = 1024  # queries whose cosines are held at once


@dataclass(frozen=True)
class Recall:
    """The share of queries whose partner is among the k nearest.

    Attributes:
        query: modality of the queries.
        gallery: modality that is searched.
        k: how many of the nearest are looked at.
        value: the recall, 0 to 1.
        low: lower end of its 95% interval (Wilson's, over queries).
        high: upper end.
        chance: k of the number of candidates.
        candidates: n, the number of queries and of what is searched.
    """

    query: str
    gallery: str
    k: int
    value: float
    low: float
    high: float
    chance: float
    candidates: int

    def __str__(self) -> str:
        return with_interval(self.value, self.low, self.high)


def retrieval(vectors: Mapping[str, Tensor], *, ks: Sequence[int] = (1, 5, 10)) -> list[Recall]:
    """Compute the recall at each k, from each modality to each other, by cosine.

    Candidates whose cosines are equal (two images with the same caption) are in random order: a query counts by the
    probability that its partner is among the first k. Features that are all alike thus get chance.

    Args:
        vectors: (n, D) of each modality, row by row of the same samples.
        ks: numbers of the nearest that are looked at; those above n are left out.

    Raises:
        ValueError: modalities with other numbers of samples or widths, or a single one.

    Examples:
        >>> import torch
        >>> from jepa_lightning.evaluation.retrieval import retrieval
        >>> one = torch.eye(8)
        >>> [(f"{r.query} to {r.gallery}", r.k, r.value) for r in retrieval({"image": one, "text": one}, ks=[1])]
        [('image to text', 1, 1.0), ('text to image', 1, 1.0)]
    """
    shapes = {name: tuple(values.shape) for name, values in vectors.items()}
    if len(set(shapes.values())) != 1 or len(shapes) < 2:
        raise ValueError(f"expected vectors (n, D) of two modalities or more, of one shape, got {shapes}")
    count = len(next(iter(vectors.values())))
    unit = {name: F.normalize(values.double(), dim=1) for name, values in vectors.items()}
    found = []
    for query, gallery in permutations(vectors, 2):
        above, equal = _ranks(unit[query], unit[gallery])
        for k in ks:
            if k <= count:
                value = float(((k - above) / equal).clamp(0, 1).mean())
                low, high = wilson(value * count, count)
                found.append(Recall(query, gallery, k, value, low, high, k / count, count))
    return found


def _ranks(queries: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor]:
    """Count what is nearer to each query than its partner, and what is as near, the partner included: (n,) each."""
    above, equal = [], []
    for start in range(0, len(queries), _ROWS):
        cosines = queries[start : start + _ROWS] @ gallery.T
        own = (queries[start : start + _ROWS] * gallery[start : start + _ROWS]).sum(1, keepdim=True)
        above.append((cosines > own + _EQUAL).sum(1))
        equal.append(((cosines - own).abs() <= _EQUAL).sum(1).clamp(min=1))
    return torch.cat(above), torch.cat(equal)
