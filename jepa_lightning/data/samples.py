"""Reading samples when some cannot be read: a substitute steps in, the bad one is counted and named.

A broken file is met in a worker process, but the log and the decision to end the run belong to the main one. So its
name travels with the batch under `unreadable`, and the loader takes it out again before anyone sees the batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from jepa_lightning.data.batch import Sample, to_sample
from jepa_lightning.data.batched import BatchTransform, take
from jepa_lightning.data.errors import DataError
from jepa_lightning.data.on_device import OnDevice
from jepa_lightning.data.split import known_targets
from jepa_lightning.data.views import ViewTransform, draw_views, with_first_view
from jepa_lightning.data.watch import Watch
from jepa_lightning.modality import Batch
from jepa_lightning.names.printable import printable
from jepa_lightning.randomness import reseed

__all__ = ["READ_ERRORS", "DataError", "ReportingLoader", "Samples", "Unreadable"]

READ_ERRORS = (OSError, EOFError, ValueError, SyntaxError)
"""What counts as an unreadable sample (Pillow raises SyntaxError for some broken files)."""

TRIES = 100  # samples in a row that may fail before there is no substitute
_LISTED = 20  # names in an error
_FEWEST = 1000  # samples of a stream, before which its share of unreadable ones says little
_log = logging.getLogger(__name__)


class Samples(Dataset[Sample]):
    """A part of a dataset as sample dicts, with a transform; never fails on an unreadable sample.

    Where a sample cannot be read, the next one that can takes its place, so that batches keep their size; what failed
    is listed in that sample's `unreadable` (id and reason).

    Args:
        dataset: gives what `to_sample` takes. It may have a method `sample_id(index)`, or torchvision's `samples`
            (path and class), to name its samples.
        name: key of the input, e.g. "image".
        split: names samples that have no name of their own: "train[12]".
        indices: which samples of the dataset, or None for all.
        transform: sample dict to sample dict, or None. Must be picklable.
        views: how many views of each sample; more than one need a `ViewTransform`.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        name: str,
        split: str = "",
        indices: NDArray[np.int64] | None = None,
        transform: Callable[[Sample], Sample] | None = None,
        views: int = 1,
    ) -> None:
        self.dataset = dataset
        self.name = name
        self.split = split
        self.indices = np.arange(len(dataset)) if indices is None else indices  # type: ignore[arg-type]
        self.transform = transform
        self.views = views
        self.batched: BatchTransform | None = None
        self.held: OnDevice | None = None
        self._bad: dict[int, str] = {}  # read once, not again in every epoch

    def __len__(self) -> int:
        return len(self.indices)

    def derive(
        self, transform: Callable[[Sample], Sample] | None, *, indices: NDArray[np.int64] | None = None, views: int = 1
    ) -> Samples:
        """The same samples, or those at `indices` of the data set, with another transform and number of views."""
        indices = self.indices if indices is None else indices
        return Samples(
            self.dataset, name=self.name, split=self.split, indices=indices, transform=transform, views=views
        )

    def sample_id(self, index: int) -> str:
        """Name of the underlying dataset's sample `index`."""
        if hasattr(self.dataset, "sample_id"):
            return str(self.dataset.sample_id(index))
        files = getattr(self.dataset, "samples", None)
        if isinstance(files, list) and isinstance(files[index], tuple) and isinstance(files[index][0], str):
            return files[index][0]
        return f"{self.split}[{index}]"

    @property
    def labelled(self) -> bool:
        """Whether some of these samples have a label, as far as it can be told without reading them all.

        Known classes are looked at, of which -1 is none; else the first sample that can be read.
        """
        targets = known_targets(self.dataset)
        if targets is not None:
            return bool((targets[self.indices] >= 0).any()) or any(v.is_floating_point() for v in self._first_labels())
        return bool(self._first_labels())

    def _first_labels(self) -> list[Any]:
        return list(self[0].get("labels", {}).values()) if len(self) else []

    def read(self, index: int, seed: int | None = None) -> Sample:
        """Sample `index` of the underlying dataset, transformed; errors pass through. Views are drawn from `seed`."""
        sample = to_sample(self.dataset[index], name=self.name, sample_id=self.sample_id(index))
        if self.views > 1 and isinstance(self.transform, ViewTransform):
            return draw_views(sample, self.transform, views=self.views, seed=seed)
        return sample if self.transform is None else self.transform(sample)

    def __getitems__(self, places: Sequence[Any]) -> Any:
        """The samples of a batch: a list, or with `batched` the batch as a whole."""
        if self.batched is None:
            return [self[place] for place in places]
        positions, seeds = np.array(places, dtype=np.int64).T
        if self.held is not None:
            return take(self.held, positions, seeds, name=self.name_at, by=self.batched)
        return take(self.dataset, self.indices[positions], seeds, name=self.sample_id, by=self.batched)  # type: ignore[arg-type]

    def name_at(self, position: int) -> str:
        """Name of the sample at this position."""
        return self.sample_id(int(self.indices[position]))

    def hold(self, device: torch.device | None) -> None:
        """Move the inputs to the device that trains, where batches are then gathered; None: let go of them."""
        if device is None:
            self.held = None
        elif self.held is None or self.held.device != device:
            self.held = OnDevice(self.dataset, self.indices, device)  # type: ignore[arg-type]

    def __getitem__(self, place: int | tuple[int, int]) -> Sample:
        """Sample `place`, or with (position, seed) that position, its augmentation drawn from that seed.

        The global generators are seeded, so what is drawn does not depend on which worker reads it, or after what.
        """
        position, seed = place if isinstance(place, tuple) else (place, None)
        failed: list[tuple[str, str]] = []
        for step in range(min(TRIES, len(self))):
            index = int(self.indices[(position + step) % len(self)])
            if index not in self._bad:
                if seed is not None:
                    reseed(seed)
                try:
                    sample = self.read(index, seed)
                except DataError:
                    raise  # the dataset as a whole is not what it should be
                except READ_ERRORS as error:
                    self._bad[index] = f"{type(error).__name__}: {error}"
                else:
                    if failed:
                        sample["unreadable"] = failed
                    return sample
            failed.append((self.sample_id(index), self._bad[index]))
        return {"unreadable": failed}


class Unreadable:
    """The record of one data set's unreadable samples, kept in the main process.

    Each is logged by name once (by every rank that meets it). With more than a share of the data set unreadable the
    run ends.

    Args:
        total: number of samples of the data set. None, for a stream: those met so far, but at least 1000.
        limit: largest share that may be unreadable.
    """

    def __init__(self, *, total: int | None, limit: float = 0.01) -> None:
        self._total = total
        self._met = 0
        self.limit = limit
        self.reasons: dict[str, str] = {}

    @property
    def total(self) -> int:
        """Number of samples that the limit is a share of."""
        return max(self._met, _FEWEST) if self._total is None else self._total

    def add(self, failed: list[tuple[str, str]]) -> None:
        """Record (id, reason) pairs.

        Raises:
            DataError: more than the limit are unreadable by now; the message lists them.
        """
        new = {sample_id: reason for sample_id, reason in failed if sample_id not in self.reasons}
        if not new:
            return
        self.reasons |= new
        if len(self.reasons) > self.limit * self.total:  # the message lists the first of them
            raise DataError(
                f"{len(self.reasons)} of {self.total} samples cannot be read, more than max_unreadable = "
                f"{self.limit:g} allows: repair or remove them, or raise the limit\n{self._listing()}"
            )
        for sample_id, reason in new.items():
            _log.warning("skipped an unreadable sample: %s (%s)", printable(sample_id), printable(reason))

    def take(self, batch: Batch) -> Batch:
        """Return the batch without its list of unreadable samples, which is recorded.

        Raises:
            DataError: as `add`, or so many samples in a row are unreadable that the batch could not be filled.
        """
        failed = batch.pop("unreadable", [])
        self._met += len(failed) + (len(batch["id"]) if isinstance(batch.get("id"), list) else 1)
        self.add(failed)
        if "id" not in batch:
            raise DataError(
                f"{TRIES} samples in a row, or the whole data set, cannot be read: check the data and their format\n"
                f"{self._listing()}"
            )
        return batch

    def _listing(self) -> str:
        lines = [
            f"  {printable(sample_id)} ({printable(reason)})"
            for sample_id, reason in list(self.reasons.items())[:_LISTED]
        ]
        if len(self.reasons) > _LISTED:
            lines.append(f"  and {len(self.reasons) - _LISTED} more")
        return "\n".join(lines)


class ReportingLoader(DataLoader[Batch]):
    """A DataLoader that hands the unreadable samples of each batch to a record, and the batch on without them.

    Args:
        *args: the DataLoader's.
        unreadable: where they are recorded.
        **kwargs: the DataLoader's.
    """

    def __init__(self, *args: Any, unreadable: Unreadable, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.unreadable = unreadable

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        watch = Watch(self.timeout if self.num_workers else 0)
        batches: Any = self._iterator  # of an earlier epoch, whose workers are still there
        try:
            if batches is not None:
                watch.start()
            with watch.waiting(batches):
                batches = super().__iter__()
            watch.start()  # not before workers are forked
            while True:
                with watch.waiting(batches):
                    batch = next(batches, None)
                if batch is None:
                    return
                yield with_first_view(self.unreadable.take(batch))
        except (ConnectionError, EOFError) as error:
            if not self.num_workers or str(error).startswith("Caught "):  # in a worker, which lives
                raise
            self._iterator = None
            raise RuntimeError("DataLoader worker (pid unknown) exited while it passed a batch") from error
        except RuntimeError:
            self._iterator = (
                None  # its workers are dead: torch must not find that out later, in the midst of other work
            )
            raise
        finally:
            watch.stop()
