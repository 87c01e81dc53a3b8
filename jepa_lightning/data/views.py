"""Several views of a sample: it is read once, and transformed as often as there are views, each with its own seed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_lightning.data.batch import OTHER_VIEWS, OtherViews, Sample, as_view
from jepa_lightning.modality import Batch
from jepa_lightning.names.shown import Shown
from jepa_lightning.randomness import derive_seed, reseed


class ViewTransform(Shown, ABC):
    """Makes a training view of a sample: a random augmentation, named by `data.view_transform`.

    It draws from the global generators of Python, NumPy or torch, which are seeded before each view from (seed, epoch,
    sample, view), so resuming and the number of loader workers change nothing. It must be picklable, and must not
    change the tensors and arrays in the sample in place: all views of a sample begin with the same ones.

    Attributes:
        name: key of the input it is for (`image`, `waveform`, ...); None: of any.

    Examples:
        >>> import torch
        >>> from jepa_lightning.data import ViewTransform
        >>> class Shifted(ViewTransform):
        ...     def __call__(self, sample, view=0):
        ...         return {**sample, "series": sample["series"] + torch.randn(())}
        >>> sample = Shifted()({"series": torch.zeros(5), "labels": {}, "id": "a"}, view=1)
        >>> sample["series"].shape
        torch.Size([5])
    """

    name: str | None = None

    def configure(self, data: Any) -> None:
        """Take sizes from the data module, once, before the first view; `data.views` is the number of views.

        Raises:
            DataError: the settings do not fit the data.
        """

    @abstractmethod
    def __call__(self, sample: Sample, view: int = 0) -> Sample:
        """Make view number `view` (from 0) of a sample as it was read; a new dict, or the given one with new values."""


class PlainViews(ViewTransform):
    """A modality's own training transform as the transform of every view.

    Args:
        transform: sample dict to sample dict.
    """

    def __init__(self, transform: Callable[[Sample], Sample]) -> None:
        self.transform = transform

    def __call__(self, sample: Sample, view: int = 0) -> Sample:
        """Transform a sample, whatever the view."""
        return self.transform(sample)


def view_seed(seed: int, view: int) -> int:
    """Derive the seed of a view from that of the sample, which is drawn from (seed, epoch, sample).

    The first view has the sample's own, so it is what a run with one view sees.
    """
    return derive_seed(seed, "view", view) if view else seed


def view_seeds(seeds: NDArray[np.int64], views: int) -> NDArray[np.int64]:
    """Seeds (B, V) of all views of a batch, from those (B,) of its samples; see `view_seed`."""
    return np.array([[view_seed(int(seed), view) for view in range(views)] for seed in seeds], dtype=np.int64)


def draw_views(sample: Sample, transform: ViewTransform, *, views: int, seed: int | None) -> Sample:
    """Make all views of a sample.

    Args:
        sample: as it was read.
        transform: of each view.
        views: how many, at least 2.
        seed: of the sample; the global generators have been seeded with it. None: the views are drawn one after the
            other from the generators as they are.

    Returns:
        The first view, with the others beside it for `Collate`.
    """
    copies = [{**sample, "labels": dict(sample["labels"])} for _ in range(1, views)]
    first = transform(sample, 0)
    others = OtherViews()
    for view, copied in enumerate(copies, start=1):
        if seed is not None:
            reseed(view_seed(seed, view))
        others.append(transform(copied, view))
    return {**first, OTHER_VIEWS: others}


def with_first_view(batch: Batch) -> Batch:
    """Let the first of a collated batch's `views` hold the batch's own tensors; any other batch stays as it is."""
    if OTHER_VIEWS not in batch:
        return batch
    others = batch.pop(OTHER_VIEWS)
    return {**batch, "views": [as_view(batch), *others]}


def without_first_view(batch: Batch) -> Batch:
    """Undo `with_first_view`, for whatever copies every tensor of a batch: to move it to a device, say."""
    return {**{key: value for key, value in batch.items() if key != "views"}, OTHER_VIEWS: batch["views"][1:]}
