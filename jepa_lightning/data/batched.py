"""Whole training batches at once: taken from memory in one piece, and augmented on the device that trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jepa_lightning.modality import Batch

DRAWS = "draws"
"""Key of what was drawn for a batch that is still to be augmented."""
HELD = "held"
"""Key of where inputs lie on the device that trains, in a batch that is still without them."""


@runtime_checkable
class InMemory(Protocol):
    """A data set whose inputs lie in memory as one array, or would if they were all of one size."""

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """Shape of every input; -1 is an axis along which they differ. None: they cannot be taken many at once.

        That is where they are not in memory, or not all of them can be read, or are of a type that the modality's
        `batch_augmentation` does not know: images and clips are uint8, clouds and audio any numbers without NaN.
        """

    def take(self, indices: NDArray[np.int64]) -> dict[str, Any]:
        """Give the samples of these indices as one: the inputs (B, ...) at the data module's key, and `labels`."""


@runtime_checkable
class PartsInMemory(InMemory, Protocol):
    """Inputs (L,) in memory, of one length or of several."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Length (N,) of each input."""

    def take_parts(
        self, indices: NDArray[np.int64], starts: NDArray[np.int64], counts: NDArray[np.int64], size: int
    ) -> dict[str, Any]:
        """Give a part of each input at the data module's key, (B, V, size), zeros behind it; and `labels`.

        Args:
            indices: (B,) of the samples.
            starts: (B, V) of the parts of each.
            counts: (B,) length of each part, at most `size`.
            size: of the rows.
        """


class BatchTransform(ABC):
    """Augments whole batches on the device that they are on, from a seed for each sample.

    Drawing and applying are two steps, so that a batch travels as it lies in memory (uint8), with a few numbers a
    sample.
    """

    @abstractmethod
    def draw(self, seeds: NDArray[np.int64]) -> dict[str, Tensor]:
        """Draw what is done to the samples of these seeds: tensors (B, ...), each row from its own seed alone."""

    def take(self, dataset: InMemory, indices: NDArray[np.int64], draws: dict[str, Tensor]) -> dict[str, Any]:
        """Take the samples from memory, as `InMemory.take`; a part of each, where what was drawn says which."""
        return dataset.take(indices)

    @abstractmethod
    def __call__(self, batch: Batch, draws: dict[str, Tensor]) -> Batch:
        """Augment a batch by what was drawn for it."""


class SampleIds:
    """The names of a batch's samples, made when one is asked for.

    Args:
        name: gives the name of a sample.
        indices: of the samples.
    """

    def __init__(self, name: Callable[[int], str], indices: NDArray[np.int64]) -> None:
        self._name = name
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return [self._name(int(index)) for index in self._indices[place]]
        return self._name(int(self._indices[place]))

    def __iter__(self) -> Iterator[str]:
        return iter(self[:])


class Held(Protocol):
    """Inputs on the device that trains; see `OnDevice`."""

    key: str

    def gather(self, held: dict[str, Any]) -> Tensor:
        """Gather the inputs of a batch."""


def take(
    dataset: InMemory,
    indices: NDArray[np.int64],
    seeds: NDArray[np.int64],
    *,
    name: Callable[[int], str],
    by: BatchTransform,
) -> Batch:
    """Take a batch of a data set in memory, with what its augmentation draws.

    Args:
        dataset: in memory.
        indices: (B,) of its samples.
        seeds: (B,), one for each.
        name: gives the name of a sample.
        by: the augmentation.

    Returns:
        A batch with tensors, `labels` (integers int64, others float32), `id` and `DRAWS`.
    """
    draws = by.draw(seeds)
    found = by.take(dataset, indices, draws)
    labels = {key: torch.from_numpy(np.asarray(values)) for key, values in found.pop("labels", {}).items()}
    batch: Batch = {
        key: torch.from_numpy(values) if isinstance(values, np.ndarray) else values for key, values in found.items()
    }
    batch["labels"] = {
        key: value.float() if value.is_floating_point() else value.long() for key, value in labels.items()
    }
    ids = SampleIds(name, indices)
    batch["id"] = ids if torch.utils.data.get_worker_info() is None else ids[:]  # a worker would send the data set, too
    batch[DRAWS] = draws
    return batch


def finish(batch: Any, by: BatchTransform | None, held: Held | None = None) -> Any:
    """Augment a batch that `take` made, where it is; any other batch is as it was.

    Args:
        batch: on the device.
        by: the augmentation.
        held: the inputs, where a batch has not its own.
    """
    if by is None or not isinstance(batch, dict) or DRAWS not in batch:
        return batch
    batch = dict(batch)
    if HELD in batch:
        if held is None:
            raise RuntimeError("expected the inputs on the device that trains, got a batch without them")
        batch[held.key] = held.gather(batch.pop(HELD))
    return by(batch, batch.pop(DRAWS))
