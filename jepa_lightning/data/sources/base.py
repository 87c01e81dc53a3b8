"""Where a modality's samples come from: its files, anyone's dataset, or a generated set when neither is named."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import Dataset, IterableDataset

from jepa_lightning.data.errors import DataError
from jepa_lightning.data.module import JEPADataModule


class SourcedDataModule(JEPADataModule, ABC):
    """A data module that takes a dataset, or reads what lies at a root, or generates its samples.

    A modality implements `load_files`, `generate` and `transforms`, and perhaps `wrap`. One whose files may also be
    listed in a CSV file is a `FileDataModule`.

    Args:
        root: where the files are, as the modality's docstring says. None, with no dataset: the generated set.
        dataset: training data in place of files: any torch dataset that gives the modality's input, with or without a
            label, in the form that the modality's docstring names; or `Shards`, `HuggingFace` or a stream
            (`ShardStream`, `HuggingFaceStream`, any IterableDataset), of which nothing is held out for validation.
        val_dataset: validation data; None holds out `val_fraction` of the training data.
        test_dataset: test data.
        samples: number of generated training samples, at least 16.
        **shared: what all data modules take (`JEPADataModule`): batch_size, num_workers, pin_memory, drop_last,
            seed (which also draws the generated set), val_fraction, probe_samples, max_unreadable, epoch_samples,
            views, view_transform.

    Raises:
        DataError: arguments that do not fit each other.
    """

    def __init__(
        self,
        *,
        root: str | None = None,
        dataset: Dataset | None = None,
        val_dataset: Dataset | None = None,
        test_dataset: Dataset | None = None,
        samples: int,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.root = root
        self.dataset = dataset
        self.val_dataset = val_dataset
        self.test_dataset = test_dataset
        self.samples = samples
        self.without_dataset(root=root)
        if dataset is None and (val_dataset is not None or test_dataset is not None):
            given = "val_dataset" if val_dataset is not None else "test_dataset"
            raise DataError(f"expected a dataset beside {given}, got none: set dataset too, or leave {given} out")
        if samples < 16:
            raise DataError(f"expected at least 16 generated samples, got {samples}: raise samples")

    def load(self) -> dict[str, Dataset[Any]]:
        """Load the data sets by split, from the one source that is given."""
        if self.dataset is not None:
            given = {"train": self.dataset, "val": self.val_dataset, "test": self.test_dataset}
            return {
                split: dataset if isinstance(dataset, IterableDataset) else self.prepared(dataset)
                for split, dataset in given.items()
                if dataset is not None
            }
        if self.has_files:
            return self.load_files()
        self.in_memory = True
        rank_zero_info(f"generating {self.samples:,} samples with seed {self.seed} (your own: data.root, ...)")
        return self.generate()

    @property
    def has_files(self) -> bool:
        """Whether the samples are files that the settings name."""
        return self.root is not None

    def prepared(self, dataset: Dataset[Any]) -> Dataset[Any]:
        """Decode and wrap a dataset that was given, where it must be."""
        return self.wrap(super().prepared(dataset))

    # What a modality supplies.

    @abstractmethod
    def load_files(self) -> dict[str, Dataset[Any]]:
        """Load the data sets at `root` by split; called where `has_files`. Sets `in_memory` if it keeps them there."""

    @abstractmethod
    def generate(self) -> dict[str, Dataset[Any]]:
        """Generate data sets by split, "train" with `samples` of them, in memory, drawn by `seed`."""

    def generate_pairs(self) -> dict[str, Dataset[Any]] | None:
        """Generate data sets whose samples hold another modality, too, for `PairedData`; None: there are none."""
        return None

    def wrap(self, dataset: Dataset[Any]) -> Dataset[Any]:
        """Wrap a dataset that was given, so that the modality's transforms take its samples; by default, do nothing."""
        return dataset

    # Checks for constructors.

    def without_dataset(self, **settings: Any) -> None:
        """Check that settings which name files are None where a dataset is given.

        Raises:
            DataError: one is not; it is named.
        """
        for name, value in settings.items():
            if value is not None and self.dataset is not None:
                raise DataError(f"expected {name} or dataset, got both: leave one out, or set it to null")

    def only_for_files(self, **settings: Any) -> None:
        """Check that settings which say how files are read are None where there are none.

        Raises:
            DataError: one is not; it is named.
        """
        for name, value in settings.items():
            if value is not None and not self.has_files:
                raise DataError(f"expected {name} only for files, got no files: set data.root, or leave {name} out")


class FileDataModule(SourcedDataModule):
    """A data module whose files lie in folders or are listed in a CSV file; see `jepa_lightning.data.find_files`.

    Args:
        root: a folder of files: `root/train/CLASS/*` (with `val` and `test` beside `train`, or not), `root/CLASS/*`, or
            without class folders for unlabelled files; or where the relative paths of `csv` start; or a CSV file; or
            what else the modality's docstring names. None, with neither csv nor dataset: the generated set.
        csv: a CSV file with the column path (or file, or filename), and perhaps label columns and `split` (train, val
            or test). Relative paths in it start from `root`, or without one from its own folder.
        labels: label columns of the CSV file, the primary one first; None: label, or class. Of an archive of arrays
            (`ArchiveSamples`) likewise; None: all.
        **shared: what `SourcedDataModule` and `JEPADataModule` take.

    Raises:
        DataError: arguments that do not fit each other.
    """

    def __init__(
        self, *, root: str | None = None, csv: str | None = None, labels: list[str] | None = None, **shared: Any
    ) -> None:
        super().__init__(root=root, **shared)
        self.csv = csv
        self.labels = labels
        self.without_dataset(csv=csv)
        self.only_for_files(labels=labels)

    @property
    def has_files(self) -> bool:
        """Whether the samples are files that the settings name."""
        return super().has_files or self.csv is not None
