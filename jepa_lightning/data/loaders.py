"""The loaders of a data module: of shuffled training batches, and of whole splits."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch

from jepa_lightning.data.batch import AfterTransfer, Collate, Sample
from jepa_lightning.data.batched import BatchTransform, InMemory, finish
from jepa_lightning.data.bound import ModelSizedData
from jepa_lightning.data.errors import DataError
from jepa_lightning.data.on_device import fits
from jepa_lightning.data.parts import Parts
from jepa_lightning.data.ranks import require_same_samples
from jepa_lightning.data.sampler import EpochSampler, FixedSampler, ResumableLoader, run_place
from jepa_lightning.data.samples import ReportingLoader, Samples
from jepa_lightning.data.shared_memory import workers_that_fit
from jepa_lightning.data.streams.loader import StreamLoader, epoch_batches
from jepa_lightning.data.streams.samples import Place, StreamSamples
from jepa_lightning.data.views import with_first_view, without_first_view
from jepa_lightning.data.workers import choose_workers, fit_workers
from jepa_lightning.modality import Batch
from jepa_lightning.randomness import isolate_rng

SPLITS = ("train", "val", "test")
DEVICES = {"cuda"}
"""Devices that are to do what they can of a batch's preparation: elsewhere it costs the same anywhere."""


class LoadedData(ModelSizedData):
    """What Lightning, callbacks and evaluation ask of a data module once its parts are known.

    `JEPADataModule` has the settings, and makes the parts.
    """

    batch_size: int
    num_workers: int | None
    timeout: float
    pin_memory: bool | None
    drop_last: bool
    epoch_samples: int | None
    views: int
    in_memory: bool
    batched: bool | None
    on_device: bool | None
    takes_at_once: ClassVar[str]
    _train_transform: Callable[[Sample], Sample] | None
    _parts: Parts | None = None
    _stream: StreamSamples | None = None
    _batch_transform: Callable[[Batch], Batch] | None = None
    _told_of_room = False

    @abstractmethod
    def batch_augmentation(
        self, shape: tuple[int, ...], *, one: Callable[[Sample], Sample] | None, batch: Callable[[Batch], Batch] | None
    ) -> BatchTransform | None:
        """Return a transform of whole batches, or None."""

    @property
    @abstractmethod
    def parts(self) -> Parts:
        """All parts of the data, which are loaded for it."""

    def part(self, split: str) -> Samples:
        """The samples of a split: "train" as they are trained on, "val" and "test", or "probe", the probe's subset.

        Raises:
            DataError: there is no such split.
        """
        found = self.parts.samples
        if split not in found:
            raise DataError(
                f"expected a split {split}, but these data have only {', '.join(self.splits)}: choose one of them, or "
                "add it"
            )
        return found[split]

    @property
    def splits(self) -> list[str]:
        """Those of "train", "val" and "test" that there are."""
        return [split for split in SPLITS if split in self.parts.samples]

    @property
    def has_test(self) -> bool:
        """Whether there is a test split."""
        return "test" in self.splits

    @property
    def collate(self) -> Collate:
        """What makes a batch of samples, with the batch transform; picklable."""
        self.setup("fit")
        return Collate(self._batch_transform)

    @property
    def stream(self) -> StreamSamples | None:
        """The training samples, where they come as a stream."""
        self.setup("fit")
        return self._stream

    @property
    def labelled(self) -> bool:
        """Whether training samples have labels."""
        return self.parts.labelled

    @property
    def workers(self) -> int:
        """Loader processes: `num_workers`, or as many as are of use and there is shared memory for.

        Raises:
            DataError: there is no room for so many as were asked for: workers that find none hang.
        """
        asked = self.num_workers is not None
        processes = 1 if self.trainer is None else max(1, self.trainer.num_devices)
        wanted = self.num_workers or 0
        if not asked:
            wanted = choose_workers(processes=processes, in_memory=self.in_memory)
        if not wanted:
            return 0
        with isolate_rng():
            one = self.collate([self.parts.example])
        room = workers_that_fit(one, batch_size=self.batch_size * self.views, processes=processes)
        found = fit_workers(wanted, room, asked=asked, warn=not self._told_of_room)
        self._told_of_room = self._told_of_room or found < wanted
        return found

    def train_dataloader(self) -> ReportingLoader:
        """Shuffled, augmented training batches.

        Raises:
            DataError: fewer samples than a batch, or other samples than another process has.
        """
        train, place = self.part("train"), run_place(self.trainer)
        if self._stream is not None:
            together = self.batch_size * place.get("ranks", 1)
            batches = epoch_batches(self.trainer, self.epoch_samples, together)
            return self._stream_loader(Place(**place), batches=batches)
        if "ranks" in place:
            require_same_samples({split: self.part(split) for split in self.splits})
        world = self.trainer.world_size if self.trainer is not None else 1
        if self.drop_last and len(train) < self.batch_size * world:
            processes = f" on each of {world} processes" if world > 1 else ""
            raise DataError(
                f"expected at least one batch of training samples, got {len(train)} samples with batch_size "
                f"{self.batch_size}{processes}: lower batch_size, add data, or set drop_last to false"
            )
        sampler = FixedSampler if getattr(self.trainer, "overfit_batches", 0) else EpochSampler
        return self._train_loader(sampler(train, drop_last=self.drop_last, **place), train)

    def statistics_dataloader(self) -> ReportingLoader:
        """Training batches without views, the same on every rank and for every seed: to estimate statistics from."""
        train = self.part("train")
        if self._stream is not None:
            stream = copy.copy(self._stream)
            stream.views = 1
            return self._stream_loader(Place(), stream=stream)
        train = train.derive(train.transform)
        return self._train_loader(EpochSampler(train), train)

    def val_dataloader(self) -> ReportingLoader | list[Any]:
        """Validation batches with the evaluation transform; an empty list where there are none."""
        return self._loader("val", keep_workers=True) if "val" in self.splits else []

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
        train = self.part("train") if self._stream is None else None
        if train is None or train.batched is None:
            return finish(batch, AfterTransfer.of(self._batch_transform))
        return finish(batch, train.batched, train.held)

    def _train_loader(self, sampler: EpochSampler, train: Samples) -> ResumableLoader:
        idle = train.batched is not None and self.num_workers is None  # next to nothing is left for workers to do
        settings = self._settings("train", keep_workers=True, workers=0 if idle else None)
        if not self._running:  # nobody finishes batches after their transfer
            settings["collate_fn"] = Collate(self._batch_transform, finish=train.batched)
        elif train.batched is None and train is self.part("train"):
            settings["collate_fn"] = self._collate_of_run()
        self._hold(train, running=self._running)
        return ResumableLoader(train, sampler=sampler, drop_last=self.drop_last, **settings)

    @property
    def _running(self) -> bool:
        state = getattr(self.trainer, "state", None)
        return getattr(state, "fn", None) is not None and not getattr(state, "finished", False)

    def _collate_of_run(self) -> Collate:
        """What makes training batches: without the batch transform, where the device can do that."""
        device = self.trainer.strategy.root_device  # type: ignore[union-attr]
        if device.type in DEVICES and AfterTransfer.of(self._batch_transform) is not None:
            return Collate(later=True)
        return self.collate

    def _augmentation(self, train: Any) -> BatchTransform | None:
        """Return the augmentation of whole training batches.

        Raises:
            DataError: there is none, but `batched` or `on_device` is true; or `on_device` is, and `batched` false.
        """
        shape = train.input_shape if isinstance(train, InMemory) and self._stream is None else None
        found = None
        if shape is not None and self.batched is not False:
            found = self.batch_augmentation(shape, one=self._train_transform, batch=self._batch_transform)
        if found is None and (self.batched or self.on_device):
            why = f"data in memory, {self.takes_at_once}, and the modality's own transforms"
            why += "" if self.batched or self.batched is None else ", and batched not false,"
            setting = "batched" if self.batched else "on_device"
            raise DataError(f"expected {why} for {setting}: true: leave it out, or set {setting} to false")
        return found

    def _hold(self, train: Samples, *, running: bool) -> None:
        """Move the training data to the device of a run, where that is asked for, or is of use and has room."""
        if not running:
            train.hold(None)
        elif train.batched is not None and self.on_device is not False:
            device = self.trainer.strategy.root_device  # type: ignore[union-attr]
            if train.held is None and fits(train.dataset, train.indices, device, asked=bool(self.on_device)):  # type: ignore[arg-type]
                train.hold(device)

    def teardown(self, stage: str) -> None:
        """Let go of what lies on the device."""
        if self._parts is not None and self._stream is None:
            self.part("train").hold(None)

    def _stream_loader(
        self, place: Place, *, batches: int | None = None, stream: StreamSamples | None = None
    ) -> StreamLoader:
        settings = self._settings("train", keep_workers=False)  # workers begin with the place of the epoch
        if stream is None and self._running:
            settings["collate_fn"] = self._collate_of_run()
        return StreamLoader(
            stream or self._stream,
            place=place,
            batches=batches,
            epoch=lambda: getattr(self.trainer, "current_epoch", 0),
            **settings,
        )

    def _loader(self, split: str, *, keep_workers: bool = False) -> ReportingLoader:
        return ReportingLoader(self.part(split), **self._settings(split, keep_workers=keep_workers))

    def _settings(self, split: str, *, keep_workers: bool, workers: int | None = None) -> dict[str, Any]:
        workers = self.workers if workers is None else workers
        return {
            "batch_size": self.batch_size,
            "num_workers": workers,
            "persistent_workers": keep_workers and workers > 0,
            "timeout": self.timeout if workers > 0 else 0,
            "pin_memory": torch.cuda.is_available() if self.pin_memory is None else self.pin_memory,
            "collate_fn": self.collate,
            "unreadable": self.parts.records[split],
        }
