"""Texts for training: class folders, tables, lines, any torch dataset, or a generated set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from torch.utils.data import ConcatDataset, Dataset

from jepa_lightning.data import DataError, FileDataModule, Sample
from jepa_lightning.data.shared import FileSettings, Unpack
from jepa_lightning.data.sources.records import Decode
from modalities.text.files import GivenTexts, TextFiles, find_texts, lines_of
from modalities.text.generated import GeneratedText
from modalities.text.reading import decode
from modalities.text.transforms import Passage, TextViews


class TextData(FileDataModule):
    """Batches of texts: `text`, a list of B strings; `labels`; `id`. The model's tokenizer makes tokens of them.

    `root` is a folder of .txt files, with or without class folders (`FileDataModule`), each one text; a folder of
    tables train.csv, val.csv and test.csv; a table; or a .txt file with one text a line. A table is a .csv or .tsv
    file, or JSON lines (.jsonl, .ndjson, .json), with a column of texts (text, sentence, content, question, review,
    caption, document, body or title) and label columns as in `jepa_lightning.data.find_files`. A `dataset` gives
    strings, (string, label), or dicts with `text`; of `HuggingFace` the input is a column of strings, of `Shards`
    `dataset.input: txt`.

    Training texts longer than `characters` are cut at a random word, others at the start. Tables are kept in memory.
    Empty texts, and files that are not text, are unreadable samples: counted, named, and replaced.

    Args:
        val_csv: a table of the validation split; with it or `test_csv`, all rows of `csv` are training data.
        test_csv: likewise of the test split.
        text: the table's column of texts; None: the first of those named above.
        columns: names of the tables' columns, for files whose first line is a row as any other.
        unlabelled: .txt files of one text a line, which are added to the training data, without labels.
        characters: longest passage; None: what the model's tokenizer takes, at four characters a token (one, of bytes).
        samples: number of generated training texts (an eighth as many for validation).
        **shared: root, csv (a table), labels, dataset, val_dataset and test_dataset (`FileDataModule`); batch_size,
            num_workers, seed and so on (`JEPADataModule`).

    Raises:
        DataError: arguments that do not fit each other or the data.

    Examples:
        >>> from modalities.text import TextData
        >>> data = TextData(samples=64, batch_size=16, characters=400, num_workers=0)
        >>> batch = next(iter(data.train_dataloader()))
        >>> len(batch["text"]), sorted(batch["labels"])
        (16, ['agreement', 'sentiment', 'topic'])
    """

    name = "text"
    takes_texts: ClassVar[bool] = True

    def __init__(
        self,
        *,
        val_csv: str | None = None,
        test_csv: str | None = None,
        text: str | None = None,
        columns: list[str] | None = None,
        unlabelled: list[str] | None = None,
        characters: int | None = None,
        samples: int = 4000,
        **shared: Unpack[FileSettings],
    ) -> None:
        super().__init__(samples=samples, **shared)
        self.only_for_files(val_csv=val_csv, test_csv=test_csv, text=text, columns=columns, unlabelled=unlabelled)
        self.val_csv = val_csv
        self.test_csv = test_csv
        self.text = text
        self.columns = columns
        self.unlabelled = unlabelled or []
        self.characters = characters

    def wrap(self, dataset: Dataset[Any]) -> Dataset[Any]:
        """Wrap anyone's dataset."""
        return GivenTexts(dataset)

    def decoding(self) -> Decode:
        """Decode UTF-8 (or what a byte order mark says)."""
        return decode

    def as_item(self, value: Any) -> Any:
        """Return what a dataset would give for an input: a string is the text itself, a `Path` that of a file."""
        return {self.name: value} if isinstance(value, str) else super().as_item(value)

    def load_files(self) -> dict[str, Dataset[Any]]:
        """Load the texts in folders, tables or lines, by split."""
        found = find_texts(
            self.root,
            csv=self.csv,
            val_csv=self.val_csv,
            test_csv=self.test_csv,
            labels=self.labels,
            text=self.text,
            columns=self.columns,
        )
        self.in_memory = not any(isinstance(texts, TextFiles) for texts in found.values())
        if self.unlabelled:
            found["train"] = Joined([found["train"], *(lines_of(file, targets=True) for file in self.unlabelled)])
        return found

    def generate(self) -> dict[str, Dataset[Any]]:
        """Generate texts of a small grammar; see `GeneratedText`."""
        counts = {"train": self.samples, "val": self.samples // 8}
        return {split: GeneratedText(count, seed=self.seed, split=split) for split, count in counts.items()}

    def transforms(self) -> tuple[Callable[[Sample], Sample], Callable[[Sample], Sample]]:
        """Cut long texts at random for training; at the start for evaluation."""
        characters = int(self.or_model("characters", self.characters))
        if characters < 1:
            raise DataError(f"expected characters of at least 1, got {characters}")
        return Passage(characters, random=True), Passage(characters)

    def default_views(self) -> TextViews:
        """Take a random passage, and leave out some of its words."""
        return TextViews()


class Joined(ConcatDataset[Any]):
    """Labelled texts, and others behind them that have the class -1, "no label"."""

    def __init__(self, parts: list[Any]) -> None:
        super().__init__(parts)
        self.classes = parts[0].classes
        known = parts[0].targets
        rest = [part.targets for part in parts[1:]]
        self.targets = None if known is None else np.concatenate([known, *rest])

    def sample_id(self, index: int) -> str:
        """Name text `index` as its own part does."""
        part = int(np.searchsorted(self.cumulative_sizes, index, side="right"))
        before = self.cumulative_sizes[part - 1] if part else 0
        return str(self.datasets[part].sample_id(index - before))  # type: ignore[attr-defined]
