"""Frozen features of a data set, extracted once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_lightning.modality import Batch


@dataclass(frozen=True)
class Features:
    """Pooled features of a data set and what is known of its samples, on the CPU.

    Attributes:
        values: (n, D) float32.
        labels: name to (n, ...) tensor, of those labels that every sample has; empty without labels.
    """

    values: Tensor
    labels: dict[str, Tensor]

    def class_label(self, name: str | None = None) -> Tensor:
        """The label called `name`, or the first that holds classes (integers): (n,) int64."""
        classes = [key for key, value in self.labels.items() if not value.is_floating_point() and value.ndim == 1]
        if name is None and classes:
            name = classes[0]
        if name not in classes:
            raise ValueError(f"no class label {name or ''!r} in the data: it has the class labels {classes}")
        return self.labels[name].long()


@torch.no_grad()
def extract(embed: Callable[[Batch], Tensor], batches: Iterable[Batch]) -> Features:
    """Run `embed`, batch to (B, D), over all batches; they come already on the device."""
    values: list[Tensor] = []
    labels: dict[str, list[Tensor]] = {}
    for batch in batches:
        values.append(embed(batch).float().cpu())
        for name, label in batch.get("labels", {}).items():
            if isinstance(label, Tensor):  # labels of different shapes come as lists: nothing to classify
                labels.setdefault(name, []).append(label.cpu())
    if not values:
        raise ValueError("no batch to extract features from: the data set is empty")
    whole = {name: torch.cat(parts) for name, parts in labels.items() if len(parts) == len(values)}
    return Features(values=torch.cat(values), labels=whole)
