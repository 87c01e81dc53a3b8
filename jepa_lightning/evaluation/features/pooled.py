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
        labels: name to (n, ...) tensor, -1 or NaN for a sample without; empty without labels.
    """

    values: Tensor
    labels: dict[str, Tensor]

    def class_label(self, name: str | None = None) -> Tensor:
        """The label called `name`, or the first that holds classes (integers): (n,) int64."""
        classes = [key for key, value in self.labels.items() if is_class(value)]
        if name is None and classes:
            name = classes[0]
        if name not in classes:
            raise ValueError(f"no class label {name or ''!r} in the data: it has the class labels {classes}")
        return self.labels[name].long()

    @property
    def has_classes(self) -> bool:
        """Whether any label holds classes."""
        return any(is_class(value[:1]) for value in self.labels.values())

    @property
    def continuous(self) -> list[str]:
        """Names of the labels that are continuous, (n,) or (n, ...)."""
        return [name for name, value in self.labels.items() if value.is_floating_point()]


def is_class(label: Tensor) -> bool:
    """Whether labels (n,) are classes: one whole number a sample."""
    return label.ndim == 1 and not label.is_floating_point()


@torch.no_grad()
def extract(embed: Callable[[Batch], Tensor], batches: Iterable[Batch]) -> Features:
    """Run `embed`, batch to (B, D), over all batches; they come already on the device.

    Samples with the same entry in the batch's `source` (a list of names) are views of one thing, such as several clips
    of one video: they become one sample with the mean of their features and the labels of the first.
    """
    values: list[Tensor] = []
    sources: list[str] = []
    odd: set[str] = set()
    labels: dict[str, dict[int, Tensor]] = {}
    for number, batch in enumerate(batches):
        values.append(embed(batch).float().cpu())
        sources += batch.get("source", ())
        for name, label in batch.get("labels", {}).items():
            if isinstance(label, Tensor):  # labels of different shapes come as lists: nothing to classify
                labels.setdefault(name, {})[number] = label.cpu()
            else:
                odd.add(name)
    if not values:
        raise ValueError("no batch to extract features from: the data set is empty")
    whole = {name: _joined(parts, values) for name, parts in labels.items() if name not in odd}
    features = Features(values=torch.cat(values), labels=whole)
    return _merge(features, sources) if len(sources) == len(features.values) else features


def _joined(parts: dict[int, Tensor], values: list[Tensor]) -> Tensor:
    """A label of all batches: -1, or NaN where it is no class, for the samples of those that lack it."""
    one = next(iter(parts.values()))
    none = torch.nan if one.is_floating_point() else -1
    return torch.cat([parts.get(i, one.new_full((len(part), *one.shape[1:]), none)) for i, part in enumerate(values)])


def _merge(features: Features, sources: list[str]) -> Features:
    """One sample for each source, in the order of their first view."""
    number: dict[str, int] = {}
    index = torch.tensor([number.setdefault(source, len(number)) for source in sources])
    count = torch.bincount(index, minlength=len(number)).unsqueeze(1)
    summed = features.values.new_zeros(len(number), features.values.shape[1]).index_add_(0, index, features.values)
    first = torch.full((len(number),), len(sources)).scatter_reduce_(0, index, torch.arange(len(sources)), "amin")
    return Features(values=summed / count, labels={name: value[first] for name, value in features.labels.items()})
