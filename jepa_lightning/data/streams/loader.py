"""Batches of a stream: epochs of equal length on every rank, resumed where they were stopped."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

from jepa_lightning.data.errors import DataError
from jepa_lightning.data.samples import ReportingLoader
from jepa_lightning.data.streams.samples import Place
from jepa_lightning.modality import Batch
from jepa_lightning.randomness import isolate_rng


class StreamLoader(ReportingLoader):
    """Training batches of a stream, equally many on every rank; its place is part of a checkpoint.

    Args:
        *args: the DataLoader's.
        place: whose share is read.
        batches: in an epoch; None: without an end.
        epoch: gives the epoch as an iteration begins.
        **kwargs: the DataLoader's, and `unreadable`.
    """

    def __init__(
        self,
        *args: Any,
        place: Place,
        batches: int | None = None,
        epoch: Callable[[], int] = lambda: 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        # Lightning warns of what is seen to here: that every worker reads its own share.
        warnings.filterwarnings("ignore", message="Your `IterableDataset` has `__len__` defined")
        self.place = place
        self.batches = batches
        self._current = epoch
        self._resume: tuple[int, int] | None = None
        self._epoch = self._batches = 0

    def __len__(self) -> int:
        if self.batches is None:
            raise TypeError("this stream has no end")
        return self.batches

    def __bool__(self) -> bool:
        return True  # with or without an end

    def state_dict(self) -> dict[str, Any]:
        """Return the seed, the epoch, how many of its batches were handed out, and to how many readers."""
        readers = (self.place.ranks, self.num_workers)
        return {"seed": self.place.seed, "epoch": self._epoch, "batches": self._batches, "readers": readers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume after those batches, if the next iteration is of that epoch; and with that seed."""
        self.place.seed = int(state["seed"])
        self._resume = int(state["epoch"]), int(state["batches"])
        self._epoch, self._batches = self._resume
        readers = (self.place.ranks, self.num_workers)
        if tuple(state["readers"]) != readers:
            warnings.warn(
                "the stream resumes in another order than before: (ranks, data.num_workers) were "
                f"{tuple(state['readers'])}, and are {readers}",
                stacklevel=2,
            )

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        resume, self._resume = self._resume, None
        self._epoch, self._batches = self._current(), 0
        if resume is not None and resume[0] == self._epoch and (self.batches is None or resume[1] < self.batches):
            self._batches = resume[1]
        self.place.epoch, self.place.start = self._epoch, self._batches
        self.dataset.place = self.place  # type: ignore[attr-defined]  # workers begin with a copy of it
        found = super().__iter__()
        while self.batches is None or self._batches < self.batches:
            if self.num_workers:
                batch = next(found)
            else:
                with isolate_rng():  # augmentation seeds the generators of this process
                    batch = next(found)
            self._batches += 1
            yield batch


def epoch_batches(trainer: Any, epoch_samples: int | None, together: int) -> int | None:
    """Count the batches in an epoch of a stream, on each rank.

    Args:
        trainer: None, or what has no steps to count, where nothing trains.
        epoch_samples: of all ranks; None for the whole run.
        together: samples of the batches of all ranks.

    Raises:
        DataError: there is no batch in an epoch, or nothing says how long it is.
    """
    if epoch_samples is not None:
        if epoch_samples < together:
            raise DataError(
                f"expected epoch_samples of at least {together}, a batch on each process, got {epoch_samples}"
            )
        return epoch_samples // together
    steps = getattr(trainer, "max_steps", None)
    if steps is None:
        return None
    if steps < 0:
        raise DataError(
            "expected trainer.max_steps or data.epoch_samples with a stream, which has no length, got neither: set one"
        )
    return max(1, steps * trainer.accumulate_grad_batches)
