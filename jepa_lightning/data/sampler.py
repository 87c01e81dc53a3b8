"""The order of training samples: a function of seed and epoch, shared out over ranks, that can start anywhere."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sized
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DistributedSampler, SequentialSampler

from jepa_lightning.data.samples import ReportingLoader
from jepa_lightning.modality import Batch
from jepa_lightning.randomness import isolate_rng


class Draw(NamedTuple):
    """A sample to read, and what its augmentation is drawn from."""

    position: int
    seed: int


class EpochSampler(DistributedSampler):
    """Every sample once an epoch, in an order and with augmentation seeds drawn from (seed, epoch) alone.

    So a run that is resumed sees what it would have seen, whatever the number of workers. A DistributedSampler by type,
    so that Lightning takes it as it is and calls `set_epoch`.

    Args:
        dataset: what has a length.
        seed: of the run.
        ranks: processes that share the samples out.
        rank: this one.
        drop_last: leave out what does not fill all ranks evenly; else the first samples are repeated to fill them.

    Attributes:
        start: how many of its samples the next iteration leaves out; set it before each.
    """

    def __init__(
        self, dataset: Sized, *, seed: int = 0, ranks: int = 1, rank: int = 0, drop_last: bool = False
    ) -> None:
        super().__init__(dataset, num_replicas=ranks, rank=rank, seed=seed, drop_last=drop_last)  # type: ignore[arg-type]
        # torch's own count does not leave an even split alone with drop_last, nor does it say that it never repeats
        share = len(dataset) / ranks
        self.num_samples = math.floor(share) if drop_last else math.ceil(share)
        self.total_size = self.num_samples * ranks
        self.start = 0

    def __iter__(self) -> Iterator[Draw]:
        """Give what this rank reads in the epoch, from `start` on."""
        order, seeds = self.draw(len(self.dataset))  # type: ignore[arg-type]
        mine = np.resize(order, self.total_size)[self.rank : self.total_size : self.num_replicas][self.start :]
        for position in mine:
            yield Draw(int(position), int(seeds[position]))

    def draw(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw the epoch's order of `count` samples, and a seed for each sample."""
        rng = np.random.default_rng([self.seed, self.epoch])
        return rng.permutation(count), rng.integers(2**63, size=count)


class FixedSampler(EpochSampler, SequentialSampler):  # type: ignore[misc]
    """The samples in their own order, with the same augmentation in every epoch: for `Trainer(overfit_batches=...)`.

    A SequentialSampler by type, in whose place Lightning would put one of its own otherwise.
    """

    def draw(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Give the order of the samples, and seeds that no epoch changes."""
        return np.arange(count), np.random.default_rng([self.seed, 0]).integers(2**63, size=count)


def run_place(trainer: Any) -> dict[str, int]:
    """What the order of training samples depends on besides the epoch: the run's seed, and the ranks that share them.

    Args:
        trainer: Lightning's; None where nothing trains.
    """
    seed = int(os.environ.get("PL_GLOBAL_SEED", 0))
    connector = getattr(trainer, "_accelerator_connector", None)
    if not getattr(connector, "use_distributed_sampler", True):
        return {"seed": seed}
    shares = getattr(trainer, "distributed_sampler_kwargs", None) or {}
    return {"seed": seed, "ranks": shares.get("num_replicas", 1), "rank": shares.get("rank", 0)}


class ResumableLoader(ReportingLoader):
    """The loader of training batches: its place in the epoch is part of a checkpoint.

    A resumed run starts with the batch after the last one that was trained on; the ones before it are not read.
    Lightning saves and loads the state of any loader that has these two methods.
    """

    _epoch = 0
    _batches = 0  # handed out in this epoch
    _resume: tuple[int, int] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return seed, epoch, how many batches of it were handed out, and how many samples a batch of all ranks has."""
        place = {"seed": getattr(self.sampler, "seed", 0), "epoch": self._epoch, "batches": self._batches}
        return {**place, "together": self._together}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume after those batches, if the next iteration is of that epoch; and with that seed.

        With another batch size or number of ranks it resumes after as many samples, and warns: Lightning counts the
        batches of the epoch, so with larger ones it may end early.
        """
        if not isinstance(self.sampler, EpochSampler):
            return
        batches, together = int(state["batches"]), int(state.get("together", self._together))
        if batches and together != self._together:
            warnings.warn(
                f"the checkpoint is from the middle of an epoch with {together} samples in the batches of all "
                f"processes, now there are {self._together}: the rest of this epoch is not what it would have been",
                stacklevel=2,
            )
            batches = -(-batches * together // self._together)
        self.sampler.seed = int(state["seed"])
        self._resume = int(state["epoch"]), batches
        self._epoch, self._batches = self._resume

    @property
    def _together(self) -> int:
        """Samples in the batches of all ranks."""
        return (self.batch_size or 1) * getattr(self.sampler, "num_replicas", 1)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # All of this happens at the first `next`: by then Lightning has told the sampler the epoch.
        resume, self._resume = self._resume, None
        self._epoch, self._batches = getattr(self.sampler, "epoch", 0), 0
        if isinstance(self.sampler, EpochSampler):
            if resume is not None and resume[0] == self._epoch and resume[1] < len(self):
                self._batches = resume[1]
            self.sampler.start = self._batches * (self.batch_size or 1)
        batches = super().__iter__()
        while True:
            try:
                if self.num_workers:
                    batch = next(batches)
                else:
                    with isolate_rng():  # augmentation seeds the generators of this process
                        batch = next(batches)
            except StopIteration:
                return
            self._batches += 1
            yield batch
