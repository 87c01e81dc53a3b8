"""The base of all data modules: splits, loaders, the probe's subset and the check for unreadable samples."""

from __future__ import annotations

import copy
import logging
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray
from torch.utils.data import Dataset, IterableDataset

from jepa_lightning.config.shown import Shown
from jepa_lightning.data.batch import Collate, Sample
from jepa_lightning.data.batched import BatchTransform, InMemory, finish
from jepa_lightning.data.errors import DataError
from jepa_lightning.data.ranks import require_same_samples
from jepa_lightning.data.sampler import EpochSampler, ResumableLoader
from jepa_lightning.data.samples import ReportingLoader, Samples, Unreadable
from jepa_lightning.data.shared_memory import workers_that_fit
from jepa_lightning.data.sources.records import Decode, Decoded, Records, decode_array
from jepa_lightning.data.split import draw, known_targets
from jepa_lightning.data.streams.first import map_style
from jepa_lightning.data.streams.loader import StreamLoader, epoch_batches
from jepa_lightning.data.streams.samples import Place, StreamSamples
from jepa_lightning.data.views import PlainViews, ViewTransform, with_first_view, without_first_view
from jepa_lightning.modality import Batch
from jepa_lightning.printable import printable
from jepa_lightning.randomness import isolate_rng

_log = logging.getLogger(__name__)
SPLITS = ("train", "val", "test")


class JEPADataModule(Shown, LightningDataModule, ABC):
    """Loaders of batch dicts for training, validation, test and the online probe.

    A modality's data module sets `name`, implements `load` and `transforms`, and perhaps `batch_transform`. Where
    there is no validation split, a share of the training data is held out, drawn by `seed` and stratified by class.
    The order of training samples and their augmentation depend on the run's seed and the epoch alone.

    Args:
        batch_size: samples a batch (and process).
        num_workers: loader processes. None: none for data that lie in memory where no GPU waits for them, or on a
            single core; else one less than the cores this process may use, at most 8.
        timeout: seconds to wait for a worker's batch before the run ends, as on a network disk that hangs; 0: no end.
        pin_memory: None: only when CUDA is available.
        drop_last: leave out the last, smaller training batch.
        seed: draws the held-out part and the probe's subset.
        val_fraction: share of the training data that is held out where there is no validation split, 0 to below 1.
        probe_samples: size of the labelled subset of the training data that the online probe learns on.
        max_unreadable: largest share of a data set's samples that may be unreadable before the run ends.
        epoch_samples: only for streams, samples of an epoch, of all processes. None: an epoch is the whole run, of
            `trainer.max_steps`.
        views: of each training sample. With more than one, training batches have `views`, a list of as many dicts
            like the batch itself, without `labels` and `id`; the first holds the batch's own tensors. View v of a
            sample is drawn from (seed, epoch, sample, v). All that is not training has the evaluation transform, and
            no views.
        batched: augment whole training batches on the device that trains, of data in memory and of one size: in the
            main process, since there is next to nothing left to do for workers. None: where it is quicker; false:
            sample by sample, in the loader. Both draw from (seed, epoch, sample), but other numbers.
        view_transform: makes a training view, in place of the modality's training transform (also with one view).
            None: with one view, that transform; with more, the modality's default, or else that transform.

    Attributes:
        in_memory: set by `load` when reading a sample costs next to nothing.

    Raises:
        DataError: an argument out of range; from `setup` and the loaders when the data are not usable.
    """

    name: str
    in_memory: bool = False

    def __init__(
        self,
        *,
        batch_size: int = 128,
        num_workers: int | None = None,
        timeout: float = 900.0,
        pin_memory: bool | None = None,
        drop_last: bool = True,
        seed: int = 0,
        val_fraction: float = 0.1,
        probe_samples: int = 2000,
        max_unreadable: float = 0.01,
        epoch_samples: int | None = None,
        views: int = 1,
        view_transform: ViewTransform | None = None,
        batched: bool | None = None,
    ) -> None:
        super().__init__()
        if not getattr(self, "name", None):
            raise DataError(
                f"expected a class attribute `name`, the key of the input in a batch: {type(self).__name__} has none"
            )
        if batch_size < 1:
            raise DataError(f"expected batch_size of at least 1, got {batch_size}")
        if num_workers is not None and num_workers < 0:
            raise DataError(f"expected num_workers of at least 0, or null to choose by itself, got {num_workers}")
        if not 0 <= timeout < math.inf:
            raise DataError(f"expected a timeout of at least 0 seconds (0: for ever), got {timeout}")
        if not 0 <= val_fraction < 1:
            raise DataError(f"expected val_fraction from 0 to below 1, got {val_fraction}")
        if not 0 <= max_unreadable <= 1:
            raise DataError(f"expected max_unreadable from 0 to 1, got {max_unreadable}")
        if probe_samples < 1:
            raise DataError(f"expected probe_samples of at least 1, got {probe_samples}")
        if views < 1:
            raise DataError(f"expected at least 1 view of each sample, got views {views}")
        if view_transform is not None and not isinstance(view_transform, ViewTransform):
            raise DataError(
                f"expected view_transform to be a ViewTransform, got {type(view_transform).__name__}: subclass "
                "jepa_lightning.data.ViewTransform"
            )
        if view_transform is not None and view_transform.name not in (None, self.name):
            raise DataError(
                f"expected a view_transform for the input {self.name!r}, got {type(view_transform).__name__}, which is "
                f"for {view_transform.name!r}: choose another one"
            )
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.timeout = timeout
        self.pin_memory = pin_memory
        self.drop_last = drop_last
        self.seed = seed
        self.val_fraction = val_fraction
        self.probe_samples = probe_samples
        self.max_unreadable = max_unreadable
        self.epoch_samples = epoch_samples
        self.views = views
        self.view_transform = view_transform
        self.batched = batched
        self._train_transform: Callable[[Sample], Sample] | None = None
        self._stream: StreamSamples | None = None
        self._parts: dict[str, Samples] = {}
        self._records: dict[str, Unreadable] = {}
        self._targets: NDArray[np.int64] | None = None
        self._example: Sample = {}
        self._told_of_room = False
        self._batch_transform: Callable[[Batch], Batch] | None = None

    # What a modality supplies.

    @abstractmethod
    def load(self) -> dict[str, Dataset[Any]]:
        """The data sets by split: "train", and "val" and "test" where they exist; what `to_sample` takes, unaugmented.

        A data set may have `targets` and `classes` (as torchvision's), `sample_id(index)`, and `unreadable` (index to
        reason, for samples that are known to be broken). One without a length and indices is a stream: it is trained
        on as it comes, and nothing of it is held out for validation.
        """

    @abstractmethod
    def transforms(self) -> tuple[Callable[[Sample], Sample] | None, Callable[[Sample], Sample] | None]:
        """The training transform (with augmentation) and the evaluation transform; picklable, called after `load`."""

    def batch_transform(self) -> Callable[[Batch], Batch] | None:
        """What is done to a whole batch in the worker (picklable), or None. Called last."""
        return None

    def default_views(self) -> ViewTransform | None:
        """What makes the views where there are several and no `view_transform`; None: the training transform."""
        return None

    def batch_augmentation(
        self, shape: tuple[int, ...], *, one: Callable[[Sample], Sample] | None, batch: Callable[[Batch], Batch] | None
    ) -> BatchTransform | None:
        """What does for whole batches what `one` does for a training sample and then `batch` for a batch of them.

        Args:
            shape: of the inputs, uint8.
            one: the training transform.
            batch: the `batch_transform`.

        Returns:
            None where nothing does, or where it is no quicker.
        """
        return None

    def decoding(self) -> Decode:
        """How files in shards and tables are decoded (picklable); by default, .npy files.."""
        return decode_array

    def prepared(self, dataset: Dataset[Any]) -> Dataset[Any]:
        """A dataset of undecoded records as one that `to_sample` takes; any other as it is."""
        return Decoded(dataset, name=self.name, decode=self.decoding()) if isinstance(dataset, Records) else dataset

    # What Lightning and the callbacks call.

    def setup(self, stage: str | None = None) -> None:
        """Build the splits, once. Reads one sample of each."""
        if self._parts:
            return
        sets = self.load()
        train_transform, eval_transform = self.transforms()
        train_transform = self._train_transform = self._viewing(train_transform)
        stream = sets["train"] if isinstance(sets["train"], IterableDataset) else None
        if stream is None and self.epoch_samples is not None:
            raise DataError("expected epoch_samples only for streams, got a dataset with a length: leave it out")
        sets = map_style(sets, prepare=self.prepared, number=self.probe_samples)
        parts: dict[str, Samples] = {}
        for split, dataset in sets.items():
            total = _length(dataset, split)
            self._records[split] = Unreadable(total=total, limit=self.max_unreadable)
            parts[split] = Samples(dataset, name=self.name, split=split, transform=eval_transform)
            broken: dict[int, str] = getattr(dataset, "unreadable", {})
            self._records[split].add([(parts[split].sample_id(index), why) for index, why in broken.items()])
        train = parts["train"]
        if stream is not None:
            settings: dict[str, Any] = {"name": self.name, "transform": train_transform, "batch_size": self.batch_size}
            settings["views"] = self.views
            self._stream = StreamSamples(stream, prepare=self.prepared, **settings)
            self._records["train"] = Unreadable(total=None, limit=self.max_unreadable)
        self._targets = known_targets(train.dataset)
        if self._targets is not None and (self._targets < 0).any() and not hasattr(train.dataset, "files"):
            count = int((self._targets < 0).sum())
            _log.warning("%d of %d samples have a negative label, which means none", count, len(self._targets))
        kept = np.arange(len(train))
        if "val" not in parts and self.val_fraction > 0 and stream is None:
            number = max(1, round(self.val_fraction * len(train)))
            held = draw(len(train), number, seed=self.seed, targets=self._targets)
            kept = np.setdiff1d(kept, held)
            if not len(kept):
                raise DataError(
                    f"expected at least 2 training samples to hold some out for validation, got {len(train)}: "
                    "add data or set val_fraction to 0"
                )
            parts["val"] = Samples(train.dataset, name=self.name, split="train", indices=held, transform=eval_transform)
            self._records["val"] = self._records["train"]  # the same files
        for split, part in parts.items():
            example = _first(part, self._records[split])
            if split == "train":
                self._example = example
        parts["probe"] = Samples(
            train.dataset, name=self.name, split="train", indices=self._probe_indices(kept), transform=eval_transform
        )
        self._records["probe"] = self._records["train"]
        parts["train"] = Samples(
            train.dataset, name=self.name, split="train", indices=kept, transform=train_transform, views=self.views
        )
        self._parts = parts
        self._batch_transform = self.batch_transform()
        parts["train"].batched = self._batched()

    def train_dataloader(self) -> ReportingLoader:
        """Shuffled, augmented training batches.

        Raises:
            DataError: fewer samples than a batch, or other samples than another process has.
        """
        count = len(self._part("train"))
        if self._stream is None and "ranks" in self._run():
            require_same_samples({split: part for split, part in self._parts.items() if split in SPLITS})
        if self._stream is not None:
            place = Place(**self._run())
            return self._stream_loader(
                place, batches=epoch_batches(self.trainer, self.epoch_samples, self.batch_size * place.ranks)
            )
        world = self.trainer.world_size if self.trainer is not None else 1
        if self.drop_last and count < self.batch_size * world:
            processes = f" on each of {world} processes" if world > 1 else ""
            raise DataError(
                f"expected at least one batch of training samples, got {count} samples with batch_size "
                f"{self.batch_size}{processes}: lower batch_size, add data, or set drop_last to false"
            )
        train = self._part("train")
        return self._train_loader(EpochSampler(train, drop_last=self.drop_last, **self._run()), train)

    def statistics_dataloader(self) -> ReportingLoader:
        """Training batches without views, the same on every rank and for every seed: to estimate statistics from."""
        train = copy.copy(self._part("train"))
        stream = copy.copy(self._stream)
        if stream is not None:
            stream.views = 1
            return self._stream_loader(Place(), stream=stream)
        train.views = 1
        train.batched = None
        return self._train_loader(EpochSampler(train), train)

    def val_dataloader(self) -> ReportingLoader | list[Any]:
        """Validation batches with the evaluation transform; an empty list where there are none."""
        self.setup()
        return self._loader("val", keep_workers=True) if "val" in self._parts else []

    def test_dataloader(self) -> ReportingLoader:
        """Test batches with the evaluation transform.

        Raises:
            DataError: there is no test split.
        """
        if not self.has_test:
            raise DataError("expected a test split, but these data have none: add one, or use the validation split")
        return self._loader("test")

    def probe_dataloader(self) -> ReportingLoader | None:
        """The probe's labelled subset of the training data, evaluation transform, fixed order; None when unlabelled."""
        return self._loader("probe") if self.labelled else None

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch, and see that its first view shares its tensors there, too."""
        if self.views == 1 or not isinstance(batch, dict) or "views" not in batch:
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        return with_first_view(super().transfer_batch_to_device(without_first_view(batch), device, dataloader_idx))

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augment a whole training batch where it is trained on."""
        return finish(batch, self._part("train").batched)

    @property
    def training_transform(self) -> Callable[[Sample], Sample] | None:
        """What makes a training sample, its first view, of one that was read."""
        self.setup()
        return self._train_transform

    @property
    def viewing(self) -> ViewTransform | None:
        """`view_transform`, or with several views the modality's default; None: the training transform is used."""
        return self.view_transform or (self.default_views() if self.views > 1 else None)

    @property
    def has_test(self) -> bool:
        """Whether there is a test split."""
        self.setup()
        return "test" in self._parts

    @property
    def labelled(self) -> bool:
        """Whether training samples have labels."""
        self.setup()
        has_any = self._targets is None or bool((self._targets >= 0).any())  # torchvision marks "none" by -1
        return bool(self._example["labels"]) and has_any

    @property
    def label(self) -> str | None:
        """Name of the first, primary label of a sample; None when unlabelled."""
        return next(iter(self._example["labels"])) if self.labelled else None

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes, where the training data have them."""
        names = getattr(self._part("train").dataset, "classes", None)
        return [printable(name) for name in names] if names is not None and self.labelled else None

    @property
    def unreadable(self) -> dict[str, str]:
        """Id and reason of every unreadable sample met so far."""
        return {key: why for record in self._records.values() for key, why in record.reasons.items()}

    def or_model(self, name: str, value: Any) -> Any:
        """A setting's value, or where it is None, the modality's attribute of that name.

        Raises:
            DataError: it is None, and there is no model that has it.
        """
        if value is not None:
            return value
        module = self.trainer.lightning_module if self.trainer is not None else None
        value = getattr(getattr(module, "modality", None), name, None)
        if value is None:
            raise DataError(f"expected {name}, got none and there is no model to take it from: set data.{name}")
        return value

    def _viewing(self, plain: Callable[[Sample], Sample] | None) -> Callable[[Sample], Sample] | None:
        """What makes a training sample, from the modality's own training transform."""
        chosen = copy.deepcopy(self.viewing)
        if chosen is not None:
            chosen.configure(self)
            return chosen
        if self.views == 1:
            return plain
        if plain is None:
            raise DataError(
                f"expected a view_transform with views {self.views}: {type(self).__name__} has no augmentation, so all "
                "views would be the same; set data.view_transform"
            )
        return PlainViews(plain)

    def _batched(self) -> BatchTransform | None:
        """What augments whole training batches.

        Raises:
            DataError: nothing can, though `batched` is true.
        """
        train = self._parts["train"].dataset
        shape = train.input_shape if isinstance(train, InMemory) and self._stream is None and self.views == 1 else None
        found = None
        if shape is not None and self.batched is not False:
            found = self.batch_augmentation(shape, one=self._train_transform, batch=self._batch_transform)
        if self.batched and found is None:
            raise DataError(
                "expected data in memory, uint8 and of one size, and no views for batched: true: leave it out, or set "
                "batched to false"
            )
        return found

    def _part(self, split: str) -> Samples:
        self.setup()
        return self._parts[split]

    def _probe_indices(self, kept: NDArray[np.int64]) -> NDArray[np.int64]:
        targets = None if self._targets is None else self._targets[kept]
        if targets is not None and (targets >= 0).any():
            kept, targets = kept[targets >= 0], targets[targets >= 0]
        return kept[draw(len(kept), self.probe_samples, seed=self.seed + 1, targets=targets)]

    def _workers(self) -> int:
        """Loader processes, as many as there is shared memory for.

        Raises:
            DataError: there is none for so many as were asked for: workers that find no room hang.
        """
        wanted = self._wanted_workers()
        if not wanted:
            return 0
        processes = 1 if self.trainer is None else max(1, self.trainer.num_devices)
        with isolate_rng():
            one = Collate(self._batch_transform)([self._example])
        room = workers_that_fit(one, batch_size=self.batch_size * self.views, processes=processes)
        if room is None or wanted <= room.workers:
            return wanted
        if self.num_workers is not None:
            raise DataError(f"expected shared memory for num_workers {wanted}: {room}")
        if not self._told_of_room:
            rank_zero_warn(f"{room.workers} data workers in place of {wanted}: {room}")
        self._told_of_room = True
        return room.workers

    def _wanted_workers(self) -> int:
        if self.num_workers is not None:
            return self.num_workers
        if self._part("train").batched is not None:
            return 0
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if self.trainer is not None:
            cores //= max(1, self.trainer.num_devices)  # processes on this machine share its cores
        if cores <= 1 or (self.in_memory and not torch.cuda.is_available()):
            return 0
        return min(cores - 1, 8)

    def _run(self) -> dict[str, int]:
        """What the order of training samples depends on besides the epoch: the run's seed, and the ranks."""
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0))
        connector = getattr(self.trainer, "_accelerator_connector", None)
        if not getattr(connector, "use_distributed_sampler", True):
            return {"seed": seed}
        shares = getattr(self.trainer, "distributed_sampler_kwargs", None) or {}
        return {"seed": seed, "ranks": shares.get("num_replicas", 1), "rank": shares.get("rank", 0)}

    def _train_loader(self, sampler: EpochSampler, train: Samples) -> ResumableLoader:
        settings = self._settings("train", keep_workers=True)
        running = getattr(getattr(self.trainer, "state", None), "fn", None) is not None
        if not running:  # nobody finishes batches after their transfer
            settings["collate_fn"] = Collate(self._batch_transform, finish=train.batched)
        return ResumableLoader(train, sampler=sampler, drop_last=self.drop_last, **settings)

    def _stream_loader(
        self, place: Place, *, batches: int | None = None, stream: StreamSamples | None = None
    ) -> StreamLoader:
        settings = self._settings("train", keep_workers=False)  # workers begin with the place of the epoch
        return StreamLoader(
            stream or self._stream,
            place=place,
            batches=batches,
            epoch=lambda: getattr(self.trainer, "current_epoch", 0),
            **settings,
        )

    def _loader(self, split: str, *, keep_workers: bool = False) -> ReportingLoader:
        return ReportingLoader(self._part(split), **self._settings(split, keep_workers=keep_workers))

    def _settings(self, split: str, *, keep_workers: bool) -> dict[str, Any]:
        workers = self._workers()
        return {
            "batch_size": self.batch_size,
            "num_workers": workers,
            "persistent_workers": keep_workers and workers > 0,
            "timeout": self.timeout if workers > 0 else 0,
            "pin_memory": torch.cuda.is_available() if self.pin_memory is None else self.pin_memory,
            "collate_fn": Collate(self._batch_transform),
            "unreadable": self._records[split],
        }


def _length(dataset: Dataset[Any], split: str) -> int:
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise DataError(
            f"expected the {split} dataset to have a length and indices, or to be a torch IterableDataset, got "
            f"{type(dataset).__name__}: add __len__"
        )
    if not len(dataset):
        raise DataError(f"expected samples in the {split} dataset, got none: check where it reads from")
    return len(dataset)


def _first(part: Samples, record: Unreadable) -> Sample:
    """The first readable sample; mistakes in the dataset show here, in the main process, with a short message."""
    sample = part[0]
    record.take(sample)
    return sample
