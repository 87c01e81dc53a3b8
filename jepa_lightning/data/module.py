"""The base of all data modules: their settings, and what a modality supplies."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch.utils.data import Dataset, IterableDataset

from jepa_lightning.config.shown import Shown
from jepa_lightning.data.batch import Sample
from jepa_lightning.data.batched import BatchTransform, InMemory
from jepa_lightning.data.errors import DataError
from jepa_lightning.data.loaders import LoadedData
from jepa_lightning.data.parts import Parts, make_parts
from jepa_lightning.data.samples import Unreadable
from jepa_lightning.data.sources.records import Decode, Decoded, Records, decode_array
from jepa_lightning.data.streams.first import map_style
from jepa_lightning.data.streams.samples import StreamSamples
from jepa_lightning.data.views import PlainViews, ViewTransform
from jepa_lightning.modality import Batch
from jepa_lightning.printable import printable


class JEPADataModule(Shown, LoadedData, ABC):
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
        self._parts: Parts | None = None

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
        if self._parts is not None:
            return
        sets = self.load()
        train_transform, eval_transform = self.transforms()
        self._train_transform = self._viewing(train_transform)
        stream = sets["train"] if isinstance(sets["train"], IterableDataset) else None
        if stream is None and self.epoch_samples is not None:
            raise DataError("expected epoch_samples only for streams, got a dataset with a length: leave it out")
        parts = make_parts(
            map_style(sets, prepare=self.prepared, number=self.probe_samples),
            name=self.name,
            transforms=(self._train_transform, eval_transform),
            views=self.views,
            seed=self.seed,
            val_fraction=self.val_fraction if stream is None else 0.0,
            probe_samples=self.probe_samples,
            max_unreadable=self.max_unreadable,
        )
        if stream is not None:
            settings: dict[str, Any] = {"transform": self._train_transform, "batch_size": self.batch_size}
            settings |= {"name": self.name, "views": self.views, "prepare": self.prepared}
            self._stream = StreamSamples(stream, **settings)
            parts.records["train"] = parts.records["probe"] = Unreadable(total=None, limit=self.max_unreadable)
        self._parts = parts
        self._batch_transform = self.batch_transform()
        parts.samples["train"].batched = self._batched(parts.samples["train"].dataset)

    # What is known of the data; it loads them.

    @property
    def parts(self) -> Parts:
        """All parts of the data."""
        self.setup()
        assert self._parts is not None
        return self._parts

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
    def label(self) -> str | None:
        """Name of the first, primary label of a sample; None when unlabelled."""
        return next(iter(self.parts.example["labels"])) if self.labelled else None

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes, where the training data have them."""
        names = getattr(self.part("train").dataset, "classes", None)
        return [printable(name) for name in names] if names is not None and self.labelled else None

    @property
    def unreadable(self) -> dict[str, str]:
        """Id and reason of every unreadable sample met so far."""
        records = {} if self._parts is None else self._parts.records
        return {key: why for record in records.values() for key, why in record.reasons.items()}

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

    def _batched(self, train: Dataset[Any]) -> BatchTransform | None:
        """What augments whole training batches.

        Raises:
            DataError: nothing can, though `batched` is true.
        """
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
