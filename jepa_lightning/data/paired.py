"""Data of several modalities: an image and its caption in one sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from torch.utils.data import Dataset, IterableDataset

from jepa_lightning.data.batch import Sample, to_sample
from jepa_lightning.data.errors import DataError
from jepa_lightning.data.loaders import SPLITS
from jepa_lightning.data.module import JEPADataModule
from jepa_lightning.data.shared import FileSettings, Unpack
from jepa_lightning.data.sources.base import FileDataModule, SourcedDataModule
from jepa_lightning.data.split import known_targets
from jepa_lightning.modality import Batch, Modality


class PairedData(FileDataModule):
    """Batches of several modalities of the same samples, each read and transformed by its own data module.

    Samples come from one of these:

    - `csv`: a table with a column of paths and one of texts, such as `path,caption`. Each modality reads its own
      column: files that of paths (see `jepa_lightning.data.find_files`), texts that of texts (see `TextData`). Relative
      paths start from `root`, or else from the table's folder. `split` and label columns as usual.
    - `dataset` (and val_dataset, test_dataset): any torch dataset whose samples are dicts with the input of each
      modality under its key (`image`, `text`, `waveform`, ...), and perhaps `labels`.
    - Each modality's own `csv`, `root` or `dataset` in `modalities`: tables, folders, `Shards`, `HuggingFace`, which
      are paired in their order and must be of one length.
    - None of these: generated pairs, of a modality that has them (images have captions).

    A sample of which one modality cannot be read, or whose caption is empty, is an unreadable sample: counted, named,
    and replaced. Augmentation is each modality's own: one that contradicts a caption (a flip, where it says left) is
    to be switched off there.

    Args:
        modalities: data module of each modality by name, in the model's order and under the model's names.
        samples: number of generated training samples (an eighth as many for validation).
        **shared: root, csv, labels, dataset, val_dataset and test_dataset (`FileDataModule`); batch_size, num_workers,
            seed and so on (`JEPADataModule`). Those of the single modalities are not used.

    Raises:
        DataError: arguments that do not fit each other or the data.

    Examples:
        >>> from jepa_lightning.data import PairedData
        >>> from modalities.image import ImageData
        >>> from modalities.text import TextData
        >>> parts = {"image": ImageData(image_size=32, channels=3), "text": TextData(characters=200)}
        >>> data = PairedData(modalities=parts, samples=64, batch_size=4, num_workers=0)
        >>> batch = next(iter(data.train_dataloader()))
        >>> batch["image"].shape, len(batch["text"]), sorted(batch["labels"])
        (torch.Size([4, 3, 32, 32]), 4, ['position', 'shape', 'size', 'stripes'])
    """

    def __init__(
        self, *, modalities: dict[str, JEPADataModule], samples: int = 4000, **shared: Unpack[FileSettings]
    ) -> None:
        if len(modalities) < 2:
            raise DataError(f"expected data of at least two modalities, got {list(modalities)}")
        keys = [part.name for part in modalities.values()]
        if len(set(keys)) < len(keys):
            raise DataError(f"expected modalities with a key each in a batch, got {keys}")
        self.name = keys[0]
        super().__init__(samples=samples, **shared)
        self.modalities = dict(modalities)
        own = [name for name, part in modalities.items() if _has_source(part)]
        if own and (self.has_files or self.dataset is not None):
            raise DataError(f"expected one source of samples, got data's own and one in modalities.{own[0]}: leave out")
        if own and len(own) < len(modalities):
            missing = next(name for name in modalities if name not in own)
            raise DataError(f"expected a source of each modality, got one of {own[0]} and none of {missing}: set both")
        if self.root is not None and self.csv is None:
            raise DataError(
                "expected a table of paths and captions, got a root alone: set data.csv (root is where its paths start)"
            )
        self.paired = bool(own)

    @property
    def has_files(self) -> bool:
        """Whether the samples are those of a table."""
        return self.csv is not None or self.root is not None

    def bind(self, modality: Modality) -> Self:
        """Take sizes that are not set from a model's modalities; see `ModelSizedData.bind`."""
        super().bind(modality)
        self._bind_parts()
        return self

    def _bind_parts(self) -> None:
        """Bind each data module to the modality of its name.

        Raises:
            DataError: the model has other modalities.
        """
        if self.modality is None:
            return
        known = getattr(self.modality, "modalities", None)
        if not isinstance(known, dict) or list(known) != list(self.modalities):
            got = list(known) if isinstance(known, dict) else [self.modality.name]
            raise DataError(
                f"expected data of the model's modalities {got}, in this order, got {list(self.modalities)}: name "
                "them alike in model.modality and in data"
            )
        for name, part in self.modalities.items():
            part.bind(known[name])

    def load(self) -> dict[str, Dataset[Any]]:
        """Load the data sets of all modalities, and pair them by split."""
        self._bind_parts()
        if self.paired:
            return self._pair({name: part.load() for name, part in self.modalities.items()})
        if self.dataset is not None:
            given = dict(zip(SPLITS, (self.dataset, self.val_dataset, self.test_dataset), strict=True))
            return self._apart({split: dataset for split, dataset in given.items() if dataset is not None})
        return super().load()

    def load_files(self) -> dict[str, Dataset[Any]]:
        """Let each modality read its column of the table."""
        found = {}
        for number, (name, part) in enumerate(self.modalities.items()):
            if not isinstance(part, FileDataModule):
                raise DataError(f"expected a dataset, since {type(part).__name__} reads no table: set data.dataset")
            part.root, part.csv = self.root, self.csv
            part.labels = [] if number and self.labels is None else self.labels
            found[name] = part.load()
        return self._pair(found)

    def generate(self) -> dict[str, Dataset[Any]]:
        """Generate pairs by the first modality that can."""
        for part in self.modalities.values():
            if isinstance(part, SourcedDataModule):
                part.samples, part.seed = self.samples, self.seed
                found = part.generate_pairs()
                if found is not None:
                    return self._apart(found)
        raise DataError(
            f"expected csv or dataset, since no pairs of {' and '.join(self.modalities)} can be generated: set data.csv"
        )

    def prepared(self, dataset: Dataset[Any]) -> Dataset[Any]:
        """Let each modality decode and wrap its entries of a dataset."""
        if isinstance(dataset, Pairs):
            return dataset
        parts = self.modalities.values()
        last = _Last(dataset, times=len(parts))
        return Pairs([part.prepared(Entry(last, part.name)) for part in parts], keys=[part.name for part in parts])

    def _apart(self, sets: Mapping[str, Dataset[Any]]) -> dict[str, Dataset[Any]]:
        """Hand each modality its entries of data sets whose samples hold all."""
        for split, dataset in sets.items():
            if isinstance(dataset, IterableDataset):
                raise DataError(f"expected a dataset with a length as {split} data of pairs, got a stream")
        found: dict[str, dict[str, Dataset[Any]]] = {}
        last = {split: _Last(dataset, times=len(self.modalities)) for split, dataset in sets.items()}
        for name, part in self.modalities.items():
            if not isinstance(part, SourcedDataModule):
                raise DataError(f"expected a SourcedDataModule as data of {name}, got {type(part).__name__}")
            entries = {split: Entry(dataset, part.name) for split, dataset in last.items()}
            part.dataset, part.val_dataset, part.test_dataset = (entries.get(split) for split in SPLITS)
            found[name] = part.load()
        return self._pair(found)

    def _pair(self, found: Mapping[str, Mapping[str, Dataset[Any]]]) -> dict[str, Dataset[Any]]:
        first = next(iter(found))
        self.in_memory = all(part.in_memory for part in self.modalities.values())
        for name, sets in found.items():
            sizes = [{split: len(of) for split, of in which.items()} for which in (found[first], sets)]  # type: ignore[arg-type]
            if sizes[0] != sizes[1]:
                raise DataError(
                    f"expected as many samples of {name} as of {first}, got {sizes[1]} and {sizes[0]}: they are paired "
                    "in their order"
                )
        keys = [part.name for part in self.modalities.values()]
        return {split: Pairs([sets[split] for sets in found.values()], keys=keys) for split in found[first]}

    # What is done to samples: what each modality does, in turn.

    def transforms(self) -> tuple[Callable[[Sample], Sample], Callable[[Sample], Sample]]:
        """Transform each modality by its own transforms, for training and for evaluation."""
        self._bind_parts()
        both = [part.transforms() for part in self.modalities.values()]
        return InTurn([one for one, _ in both]), InTurn([other for _, other in both])

    def batch_transform(self) -> Callable[[Batch], Batch]:
        """Transform batches as each modality does."""
        return InTurn([part.batch_transform() for part in self.modalities.values()])

    def as_item(self, value: Any) -> Any:
        """Read an input that is not among the data: a dict with the input of each modality under its key."""
        keys = [part.name for part in self.modalities.values()]
        if not isinstance(value, dict) or any(key not in value for key in keys):
            got = sorted(map(str, value)) if isinstance(value, dict) else type(value).__name__
            raise DataError(f"expected a dict with {' and '.join(keys)}, got {got}")
        self._bind_parts()
        read = {part.name: part.as_item(value[part.name]) for part in self.modalities.values()}
        return {**value, **{key: item[key] for key, item in read.items()}}


class Pairs(Dataset[Sample]):
    """Data sets of one length, whose samples with the same number belong together.

    Args:
        sets: of each modality.
        keys: of each input.
    """

    def __init__(self, sets: Sequence[Dataset[Any]], *, keys: Sequence[str]) -> None:
        self.sets = list(sets)
        self.keys = list(keys)
        self.targets = known_targets(self.sets[0])
        self.classes = getattr(self.sets[0], "classes", None)
        self.files = getattr(self.sets[0], "files", None)
        named = getattr(self.sets[0], "sample_id", None)
        if named is not None:
            self.sample_id = named

    def __len__(self) -> int:
        return len(self.sets[0])  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Sample:
        pair: Sample = {"labels": {}}
        for key, part in zip(self.keys, self.sets, strict=True):
            sample = to_sample(part[index], name=key, sample_id=str(index))
            pair[key] = sample[key]
            pair["labels"] = sample["labels"] | pair["labels"]
        return pair


class Entry(Dataset[Sample]):
    """One modality's input of samples that hold several, with the labels.

    Args:
        dataset: gives dicts.
        key: of the input.

    Raises:
        DataError: when read: a sample without it.
    """

    def __init__(self, dataset: _Last, key: str) -> None:
        self.dataset = dataset
        self.key = key
        self.targets = known_targets(dataset.dataset)
        self.classes = getattr(dataset.dataset, "classes", None)
        named = getattr(dataset.dataset, "sample_id", None)
        if named is not None:
            self.sample_id = named

    def __len__(self) -> int:
        return len(self.dataset.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Sample:
        item = self.dataset[index]
        if not isinstance(item, dict) or self.key not in item:
            got = sorted(map(str, item)) if isinstance(item, dict) else type(item).__name__
            raise DataError(f"expected samples of pairs as dicts with {self.key!r}, got {got}: have the dataset return "
                            "the input of each modality under its key")  # fmt: skip
        labels = item.get("labels", item.get("label"))
        return {self.key: item[self.key]} | ({} if labels is None else {"labels": labels})


class _Last:
    """A dataset whose last sample is kept until each of so many modalities has asked for it."""

    def __init__(self, dataset: Dataset[Any], *, times: int) -> None:
        self.dataset = dataset
        self.times = times
        self._kept: tuple[int, Any] | None = None
        self._asked = 0

    def __getitem__(self, index: int) -> Any:
        if self._kept is None or self._kept[0] != index or self._asked == self.times:
            self._kept = None  # reading may fail
            self._kept, self._asked = (index, self.dataset[index]), 0
        self._asked += 1
        return self._kept[1]


class InTurn:
    """Apply functions one after the other; None among them does nothing.

    Args:
        steps: from a sample, or a batch, to one.
    """

    def __init__(self, steps: Sequence[Callable[[Any], Any] | None]) -> None:
        self.steps = [step for step in steps if step is not None]

    def __call__(self, value: Any) -> Any:
        """Return what the last one makes of it."""
        for step in self.steps:
            value = step(value)
        return value


def _has_source(part: JEPADataModule) -> bool:
    return isinstance(part, SourcedDataModule) and (part.has_files or part.dataset is not None)
