"""Training batches of several kinds of data, one kind a batch, in an order that is drawn from seed and epoch."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import ConcatDataset, Dataset

from jepa_lightning.data.sampler import EpochSampler, FixedSampler, ResumableLoader
from jepa_lightning.modality import Batch
from jepa_lightning.randomness import derive_seed

KIND = "kind"
"""Key of a batch's kind, from the loader to the end of its transfer to the device."""


def order_of_kinds(counts: Sequence[int], *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Draw the kind of each batch of an epoch: number k `counts[k]` times, in random order.

    Examples:
        >>> from jepa_lightning.data.mixed_loader import order_of_kinds
        >>> sorted(order_of_kinds([3, 1], seed=0, epoch=0).tolist())
        [0, 0, 0, 1]
    """
    rng = np.random.default_rng(derive_seed(seed, "kinds", epoch))
    return rng.permutation(np.repeat(np.arange(len(counts)), counts))


class MixedLoader:
    """Training batches of several loaders; its place in the epoch is part of a checkpoint.

    An epoch is one of the first loader; of each other one it has `counts[k]` batches, which begin where those of the
    epoch before ended, through epochs of its own. Which batch comes when depends on the seed, the epoch and the place
    in it alone: not on the rank, so that all processes have batches of one kind at a step.

    Args:
        loaders: by kind.
        counts: how many batches of each an epoch has; of the first, its length.

    Attributes:
        sampler: of the first loader; Lightning tells it the epoch.
        batch_size: of the first loader.
        dataset: samples of all kinds.
    """

    def __init__(self, loaders: Mapping[str, ResumableLoader], *, counts: Sequence[int]) -> None:
        self.loaders = dict(loaders)
        self.counts = list(counts)
        first = next(iter(loaders.values()))
        self.sampler: EpochSampler = first.sampler  # type: ignore[assignment]
        self.batch_size = first.batch_size
        self.dataset: Dataset[Any] = ConcatDataset([loader.dataset for loader in loaders.values()])
        self._epoch = self._batches = 0
        self._resume: tuple[int, int] | None = None

    def __len__(self) -> int:
        return sum(self.counts)

    def state_dict(self) -> dict[str, Any]:
        """Return the seed, the epoch, how many batches of it were handed out, and what their order depends on."""
        return {"seed": self.sampler.seed, "epoch": self._epoch, "batches": self._batches, "form": self._form}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume after those batches, if the next iteration is of that epoch; and with that seed.

        Warns in the middle of an epoch, if the kinds have other numbers of batches or of samples in them than before.
        """
        if state["batches"] and state["form"] != self._form:
            warnings.warn(
                "the checkpoint is from the middle of an epoch whose kinds of data had other numbers of batches or "
                f"samples ({state['form']}, now {self._form}): the rest of this epoch is not what it would have been",
                stacklevel=2,
            )
        for loader in self.loaders.values():
            loader.sampler.seed = int(state["seed"])  # type: ignore[attr-defined]
        self._resume = int(state["epoch"]), int(state["batches"])
        self._epoch, self._batches = self._resume

    @property
    def _form(self) -> dict[str, list[int]]:
        """Of each kind: batches in our epoch, in its own, and samples in a batch of all processes."""
        parts = zip(self.loaders.items(), self.counts, strict=True)
        return {name: [count, len(loader), loader.state_dict()["together"]] for (name, loader), count in parts}

    def __iter__(self) -> Iterator[Batch]:
        # All of this happens at the first `next`: by then Lightning has told the sampler the epoch.
        resume, self._resume = self._resume, None
        self._epoch, self._batches = self.sampler.epoch, 0
        if resume is not None and resume[0] == self._epoch and resume[1] < len(self):
            self._batches = resume[1]
        epoch = 0 if isinstance(self.sampler, FixedSampler) else self._epoch
        order = order_of_kinds(self.counts, seed=self.sampler.seed, epoch=epoch)
        before = np.bincount(order[: self._batches], minlength=len(self.counts)).tolist()
        names = list(self.loaders)
        streams = [
            _batches(loader, start=epoch * count + done)
            for loader, count, done in zip(self.loaders.values(), self.counts, before, strict=True)
        ]
        try:
            for kind in order[self._batches :]:
                batch = next(streams[kind])
                self._batches += 1
                yield {**batch, KIND: names[kind]}
        finally:
            for stream in streams:
                stream.close()


def _batches(loader: ResumableLoader, *, start: int) -> Generator[Any, None, None]:
    """Batches of a loader from number `start` on, counted through all of its epochs, without an end."""
    epoch, done = divmod(start, len(loader))
    sampler: Any = loader.sampler
    while True:
        sampler.set_epoch(epoch)
        loader.load_state_dict({"seed": sampler.seed, "epoch": epoch, "batches": done})
        yield from loader
        epoch, done = epoch + 1, 0
