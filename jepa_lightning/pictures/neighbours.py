"""What looks alike to an encoder: each sample's nearest neighbours among many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from jepa_lightning.evaluation.features.extraction import Embed
from jepa_lightning.evaluation.features.pooled import Features, extract, is_class
from jepa_lightning.modality import Batch

_ROWS = 4096  # compared at once


@dataclass(frozen=True)
class Gallery:
    """Pooled features of many samples by one or more encoders.

    Attributes:
        positions: (n,) of the samples in their split.
        ids: their names.
        features: by encoder; all have the same samples.
    """

    positions: list[int]
    ids: list[str]
    features: dict[str, Features]

    @classmethod
    def read(cls, batches: Iterable[Batch], embedders: Mapping[str, Embed], *, total: int | None = None) -> Self:
        """In one pass over batches of `ChosenSamples`; several clips of one video are one sample, their mean.

        Args:
            batches: of them.
            embedders: by encoder, batch to (B, D).
            total: how many samples there are, for the progress bar.
        """
        positions: list[int] = []
        ids: list[str] = []
        found: dict[str, list[Features]] = {name: [] for name in embedders}
        with tqdm(total=total, unit=" samples", disable=None) as bar:
            for batch in batches:
                first = dict(reversed(list(zip(batch["position"], batch["id"], strict=True))))
                rows = dict.fromkeys(batch["position"])
                positions += rows
                ids += [first[place] for place in rows]
                for name, embed in embedders.items():
                    found[name].append(extract(embed, [batch]))
                bar.update(len(rows))
        return cls(positions, ids, {name: _joined(parts) for name, parts in found.items()})

    @property
    def labels(self) -> dict[str, Tensor]:
        """Of the samples, by name."""
        return next(iter(self.features.values())).labels

    @property
    def class_labels(self) -> dict[str, Tensor]:
        """Those that hold classes."""
        return {name: value for name, value in self.labels.items() if is_class(value)}


def nearest(features: Tensor, *, k: int = 5, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k nearest neighbours of each sample among the others, by cosine similarity.

    Args:
        features: (n, D).
        k: how many; no more than n - 1 are found.
        rows: (m,) the samples whose neighbours are sought; None for all.

    Returns:
        Their numbers and similarities, both (m, k), the nearest first.
    """
    rows = torch.arange(len(features)) if rows is None else rows
    unit = F.normalize(features.double(), dim=1)
    k = min(k, len(features) - 1)
    found = []
    for part in rows.split(_ROWS):
        similarity = unit[part] @ unit.T
        similarity[torch.arange(len(part)), part] = -torch.inf
        found.append(similarity.topk(k, dim=1))
    return torch.cat([top.indices for top in found]), torch.cat([top.values for top in found]).float()


def same_label(labels: Tensor, neighbours: Tensor) -> float:
    """Share of the neighbours (n, k) of all n samples that have the class of their sample; NaN where nothing is known.

    Args:
        labels: (n,) int64 classes; negative ones are not known.
        neighbours: (n, k) numbers of samples.
    """
    known = (labels >= 0)[:, None] & (labels[neighbours] >= 0)
    same = (labels[neighbours] == labels[:, None]) & known
    return float(same.sum() / known.sum()) if known.any() else float("nan")


def chance_of_same(labels: Tensor) -> float:
    """What `same_label` is for neighbours drawn at random; NaN for fewer than two samples."""
    labels = labels[labels >= 0]
    if len(labels) < 2:
        return float("nan")
    counts = labels.bincount().double()
    return float((counts * (counts - 1)).sum() / (len(labels) * (len(labels) - 1)))


def _joined(parts: list[Features]) -> Features:
    """Batches below each other; labels that some lack, or have in another shape, are left out."""
    names = [
        name
        for name, value in parts[0].labels.items()
        if all(name in part.labels and part.labels[name].shape[1:] == value.shape[1:] for part in parts)
    ]
    labels = {name: torch.cat([part.labels[name] for part in parts]) for name in names}
    return Features(torch.cat([part.values for part in parts]), labels)
