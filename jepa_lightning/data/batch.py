"""From what a dataset gives to a batch: `(input, label)` becomes a sample dict, samples become a batch dict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jepa_lightning.data.batched import DRAWS, BatchTransform, finish
from jepa_lightning.data.errors import DataError
from jepa_lightning.modality import Batch

Sample = dict[str, Any]
"""One sample: the modality's own key, `labels` (a dict, empty where there are none) and `id`."""

OTHER_VIEWS = "other_views"  # key in a sample and in a batch on the way from the loader's workers
_NOT_OF_A_VIEW = ("labels", "id", "source", "views", OTHER_VIEWS)


class OtherViews(list[Sample]):
    """The views of a sample after the first, at `OTHER_VIEWS` of the sample that is the first."""


def to_sample(item: Any, *, name: str, sample_id: str) -> Sample:
    """Turn what a dataset gave into a sample dict.

    Args:
        item: an input, a tuple `(input,)` or `(input, label)`, or a dict that has `name` (and perhaps `labels`, a
            dict; `label`, a single one; `id`). A dict's other entries pass through.
        name: key of the input, e.g. "image".
        sample_id: the sample's `id` where the item does not bring its own.

    Returns:
        A new dict with `name`, `labels` and `id`. Labels are tensors: integers int64 (classes), floats float32
        (regression). A label of None is no label.

    Raises:
        DataError: the item is none of these, or its label is no number.
    """
    if isinstance(item, dict):
        if name not in item:
            raise DataError(
                f"expected a sample dict with the key {name!r}, got the keys {sorted(map(str, item))}: "
                f"have the dataset return {{{name!r}: ...}} or an (input, label) tuple"
            )
        sample = dict(item)
        labels = sample.pop("labels", sample.pop("label", None))
    elif isinstance(item, tuple | list):
        if not 1 <= len(item) <= 2:
            raise DataError(
                f"expected an input, an (input, label) tuple or a dict from the dataset, got a {type(item).__name__} "
                f"of {len(item)}: have the dataset return a dict with {name!r} and 'labels'"
            )
        sample = {name: item[0]}
        labels = item[1] if len(item) == 2 else None
    else:
        sample, labels = {name: item}, None
    if labels is None:
        labels = {}
    elif not isinstance(labels, dict):
        labels = {"label": labels}
    sample["labels"] = {key: _label(key, value) for key, value in labels.items()}
    sample["id"] = str(sample.get("id", sample_id))
    return sample


def _label(key: str, value: Any) -> Tensor:
    try:
        label = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise DataError(
            f"expected label {key!r} to be a class number, a float or a tensor, got {type(value).__name__} {value!r}: "
            "give the dataset a target_transform that makes it one"
        ) from None
    if label.dtype.is_floating_point:
        return label.float()
    return label.long()


class Collate:
    """Samples to a batch: tensors and arrays of one shape are stacked, everything else becomes a list.

    A label that some samples lack is -1 for these, or NaN where it is no class.

    Runs in the loader's worker processes, so that work on the whole batch (`batch_transform`) is done there, once
    for all samples.

    Args:
        batch_transform: what is done to the finished batch, or None. Must be picklable.
        finish: augments whole batches here; None: whoever trains does so, on the device.
        later: mark batches, for whoever trains to do on the device what `batch_transform` would do; see
            `AfterTransfer`.
    """

    def __init__(
        self,
        batch_transform: Callable[[Batch], Batch] | None = None,
        *,
        finish: BatchTransform | None = None,
        later: bool = False,
    ) -> None:
        self.batch_transform = batch_transform
        self.finish = finish
        self.later = later

    def __call__(self, samples: Sequence[Sample] | Batch) -> Batch:
        """Join samples to a batch; perhaps with `unreadable` ones, and the views after the first at `OTHER_VIEWS`."""
        if isinstance(samples, dict):  # a whole batch, which was taken at once
            return finish(samples, self.finish)
        unreadable = [bad for sample in samples for bad in sample.get("unreadable", ())]
        if any("id" not in sample for sample in samples):  # a sample for which no substitute was found
            return {"unreadable": unreadable}
        batch = self._join(samples)
        if isinstance(samples[0].get(OTHER_VIEWS), OtherViews):
            for view in zip(*(sample[OTHER_VIEWS] for sample in samples), strict=True):
                batch.setdefault(OTHER_VIEWS, []).append(as_view(self._join(view)))
        if unreadable:
            batch["unreadable"] = unreadable
        if self.later:
            batch[DRAWS] = {}
        return batch

    def _join(self, samples: Sequence[Sample]) -> Batch:
        batch: Batch = {
            key: _stack([sample[key] for sample in samples])
            for key in samples[0]
            if key not in ("labels", "unreadable") and not isinstance(samples[0][key], OtherViews)
        }
        names = dict.fromkeys(key for sample in samples for key in sample["labels"])
        batch["labels"] = {key: _stack(_whole([sample["labels"].get(key) for sample in samples])) for key in names}
        if self.batch_transform is not None:
            batch = self.batch_transform(batch)
        return batch


class AfterTransfer(BatchTransform):
    """A batch transform of samples that were augmented one by one, on the device that trains.

    Images that are normalised there travel as bytes: a quarter of the memory that workers share, and of what is copied
    to a GPU.

    Args:
        transform: of a batch; it computes where the batch lies.
    """

    def __init__(self, transform: Callable[[Batch], Batch]) -> None:
        self.transform = transform

    @staticmethod
    def of(transform: Callable[[Batch], Batch] | None) -> AfterTransfer | None:
        """Return the same for the device, where a transform says by `anywhere` that it computes there."""
        return AfterTransfer(transform) if transform is not None and getattr(transform, "anywhere", False) else None

    def draw(self, seeds: NDArray[np.int64]) -> dict[str, Tensor]:
        """Draw nothing."""
        return {}

    def __call__(self, batch: Batch, draws: dict[str, Tensor]) -> Batch:
        """Transform a batch, and each of its views."""
        others = batch.pop("views", [])[1:]
        batch = self.transform(batch)
        if others:
            batch["views"] = [as_view(batch), *(self.transform(dict(view)) for view in others)]
        return batch


def as_view(batch: Batch) -> Batch:
    """Keep what a batch holds of its samples as they are seen: all but labels and names."""
    return {key: value for key, value in batch.items() if key not in _NOT_OF_A_VIEW}


def _whole(labels: list[Tensor | None]) -> list[Tensor]:
    """Gather the labels of one name, with -1, or NaN, for the samples that have none."""
    one = next(label for label in labels if label is not None)
    none = torch.full_like(one, torch.nan if one.is_floating_point() else -1)
    return [none if label is None else label for label in labels]


def _stack(values: list[Any]) -> Any:
    if isinstance(values[0], np.ndarray):
        values = [torch.from_numpy(value) for value in values]
    if isinstance(values[0], Tensor) and all(value.shape == values[0].shape for value in values):
        return torch.stack(values)
    return values
