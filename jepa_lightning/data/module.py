"""Base class of data modules."""

from __future__ import annotations

import copy
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from torch.utils.data import Dataset, IterableDataset

from jepa_lightning.data.batch import Sample
from jepa_lightning.data.batched import BatchTransform
from jepa_lightning.data.errors import DataError
from jepa_lightning.data.files.file_list import regular_file
from jepa_lightning.data.loaders import LoadedData
from jepa_lightning.data.parts import Parts, make_parts
from jepa_lightning.data.samples import Unreadable
from jepa_lightning.data.sources.records import Decode, Decoded, Records, decode_array
from jepa_lightning.data.streams.first import map_style
from jepa_lightning.data.streams.samples import StreamSamples
from jepa_lightning.data.views import PlainViews, ViewTransform
from jepa_lightning.modality import Batch
from jepa_lightning.names.printable import printable
from jepa_lightning.names.shown import Shown


class JEPADataModule(Shown, LoadedData, ABC):
    """Load batch dicts for training, validation, test and the online probe.

    A modality's data module sets `name` and implements `load`, `transforms` and optionally `batch_transform`.
    Without a validation split, a share of the training data is held out, drawn by `seed` and stratified by class.
    The order of training samples and their augmentation depend only on the run's seed and the epoch.

    Args:
        batch_size: samples per batch and process.
        num_workers: number of loader processes. None: zero for data in memory without a GPU, or on a
            single core; else one less than the cores this process may use, at most 16.
        timeout: seconds to wait for a worker's batch before the run ends, as on a hanging network disk; 0: no limit.
        pin_memory: whether to pin memory. None: only if CUDA is available.
        drop_last: drop the last, smaller training batch.
        seed: seed of the held-out split and of the probe's subset.
        val_fraction: share of the training data to hold out without a validation split, 0 to below 1.
        probe_samples: size of the labelled subset of the training data that the online probe is fitted on.
        max_unreadable: largest share of unreadable samples in a dataset before the run ends.
        epoch_samples: only for streams: samples per epoch over all processes. None: the whole run of
            `trainer.max_steps` is one epoch.
        views: number of views of each training sample. With more than one, training batches have `views`, a list of
            dicts like the batch itself, without `labels` and `id`; the first holds the batch's own tensors. View v of
            a sample is drawn from (seed, epoch, sample, v). Other loaders use the evaluation transform, without
            views.
        batched: augment whole training batches on the training device, for audio in memory, and images, clips and
            clouds in memory and of one size, in the main process: workers have almost nothing left to do. None: if it
            is faster; false: sample by sample, in the loader. Both draw from (seed, epoch, sample), other numbers.
        on_device: move such data to the training device once, and gather batches there by index. None: to a GPU, if
            they take at most an eighth of its free memory; true: at most half, on any device. Same batches either way.
        view_transform: makes a training view instead of the modality's training transform (also with one view).
            None: with one view, that transform; with more, the modality's default, or else that transform.

    Attributes:
        in_memory: set by `load` if reading a sample is almost free.

    Raises:
        DataError: an argument is out of range; in `setup` and the loaders: the data are not usable.
    """

    name: str
    in_memory: bool = False
    takes_at_once: ClassVar[str] = "uint8 and of one size"  # what `batched` asks of the inputs
    takes_texts: ClassVar[bool] = False  # whether a string in a table is an input, and not the path of a file

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
        on_device: bool | None = None,
    ) -> None:
        super().__init__()
        if not getattr(self, "name", None):
            raise DataError(
                f"expected a class attribute `name`, the key of the input in a batch: {type(self).__name__} has none"
            )
        if batch_size < 1:
            raise DataError(f"expected batch_size of at least 1, got {batch_size}")
        if num_workers is not None and not 0 <= num_workers <= 512:
            raise DataError(f"expected num_workers from 0 to 512, or null for an automatic choice, got {num_workers}")
        if not 0 <= timeout < math.inf:
            raise DataError(f"expected a timeout of at least 0 seconds (0: no limit), got {timeout}")
        if not 0 <= val_fraction < 1:
            raise DataError(f"expected val_fraction from 0 to below 1, got {val_fraction}")
        if not 0 <= max_unreadable <= 1:
            raise DataError(f"expected max_unreadable from 0 to 1, got {max_unreadable}")
        if probe_samples < 1 or seed < 0:
            raise DataError(f"expected probe_samples of at least 1 and a seed from 0, got {probe_samples} and {seed}")
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
        self.on_device = on_device
        self._train_transform: Callable[[Sample], Sample] | None = None
        self._parts: Parts | None = None

    # To implement in a modality.

    @abstractmethod
    def load(self) -> dict[str, Dataset[Any]]:
        """Return the unaugmented datasets by split, "train" and optionally "val" and "test", as `to_sample` takes them.

        A dataset may have `targets` and `classes` (as torchvision's), `sample_id(index)`, and `unreadable` (index to
        reason, for samples known to be broken). A dataset without length and indices is a stream: it is read
        in its order, and nothing of it is held out for validation.
        """

    @abstractmethod
    def transforms(self) -> tuple[Callable[[Sample], Sample] | None, Callable[[Sample], Sample] | None]:
        """Return the training (augmenting) and the evaluation transform, both picklable; called after `load`."""

    def batch_transform(self) -> Callable[[Batch], Batch] | None:
        """Return a transform of a whole batch in the worker (picklable), or None. Applied last."""
        return None

    def default_views(self) -> ViewTransform | None:
        """Return the default transform for several views; None: the training transform."""
        return None

    def batch_augmentation(
        self, shape: tuple[int, ...], *, one: Callable[[Sample], Sample] | None, batch: Callable[[Batch], Batch] | None
    ) -> BatchTransform | None:
        """Return a transform of whole batches equivalent to `one` for each sample, then `batch` for the batch.

        Args:
            shape: `input_shape` of the data.
            one: the training transform.
            batch: the `batch_transform`.

        Returns:
            None if there is no equivalent, or if it is not faster.
        """
        return None

    def decoding(self) -> Decode:
        """Return the decoder of files, also of those in shards and tables (picklable); by default, of .npy files."""
        return decode_array

    def as_item(self, value: Any) -> Any:
        """Return what a dataset would give for an input: a path is decoded, a sample dict stays as it is."""
        if isinstance(value, str | os.PathLike):
            value = self.decoding()(regular_file(os.path.expanduser(value)))
        return value if isinstance(value, dict) else {self.name: value}

    def evaluation_transform(self) -> Callable[[Sample], Sample] | None:
        """Return the evaluation transform of inputs that are not among the data (`jepa_lightning.data.inputs`)."""
        return self.transforms()[1]

    def estimated(self) -> dict[str, Any]:
        """Return settings that were estimated from the data, by name; a checkpoint keeps them, to use without data."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return the estimated settings, for a checkpoint."""
        return self.estimated()

    @property
    def for_evaluation(self) -> JEPADataModule:
        """Return the data that commands read when they open a run: these."""
        return self

    def prepared(self, dataset: Dataset[Any]) -> Dataset[Any]:
        """Wrap a dataset of undecoded records for `to_sample`; return any other unchanged."""
        if not isinstance(dataset, Records):
            return dataset
        return Decoded(dataset, name=self.name, decode=self.decoding(), texts=self.takes_texts)

    # Called by Lightning and the callbacks.

    def setup(self, stage: str | None = None) -> None:
        """Build the splits once, reading one sample of each."""
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
        parts.samples["train"].batched = self._augmentation(parts.samples["train"].dataset)

    # Properties of the data; these load them.

    @property
    def parts(self) -> Parts:
        """Return all parts of the data."""
        self.setup()
        assert self._parts is not None
        return self._parts

    @parts.setter
    def parts(self, parts: Parts) -> None:
        self._parts = parts

    @property
    def training_transform(self) -> Callable[[Sample], Sample] | None:
        """Return the transform of a raw training sample to its first view."""
        self.setup()
        return self._train_transform

    @property
    def viewing(self) -> ViewTransform | None:
        """Return `view_transform`, or with several views the modality's default; None: the training transform."""
        return self.view_transform or (self.default_views() if self.views > 1 else None)

    @property
    def label(self) -> str | None:
        """Return the name of the first, primary label of a sample; None if unlabelled."""
        return next(iter(self.parts.example["labels"])) if self.labelled else None

    @property
    def classes(self) -> list[str] | None:
        """Return the names of the classes, if the training data have them."""
        names = getattr(self.part("train").dataset, "classes", None)
        return [printable(name) for name in names] if names is not None and self.labelled else None

    @property
    def unreadable(self) -> dict[str, str]:
        """Return id and reason of every unreadable sample so far."""
        records = {} if self._parts is None else self._parts.records
        return {key: why for record in records.values() for key, why in record.reasons.items()}

    def _viewing(self, plain: Callable[[Sample], Sample] | None) -> Callable[[Sample], Sample] | None:
        """Return the transform of training samples, given the modality's own training transform."""
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
