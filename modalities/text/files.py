"""Text data sets: files of class folders, tables, files of lines, and anyone's torch dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from jepa_lightning.data import DataError, FileSet, find_files
from jepa_lightning.data.files.json_lines import JSON_LINES
from jepa_lightning.data.files.split_names import plain_split_of
from jepa_lightning.data.files.table import Column, read_column
from jepa_lightning.data.sources.given import WrappedDataset
from jepa_lightning.names.nearest import did_you_mean
from jepa_lightning.names.printable import printable
from modalities.text.reading import EXTENSIONS, read_lines, read_text

TABLES = (".csv", ".tsv", ".tab", *JSON_LINES)
"""File name endings of tables."""

TEXT_COLUMNS = ("text", "sentence", "content", "question", "review", "caption", "document", "body", "title")
"""Names of a table's column of texts; the first that is there."""


class TextFiles(FileSet):
    """The text files of one split, each one text, as dicts: `text` and `labels`."""

    key = "text"

    def value(self, index: int) -> str:
        """Read text `index`.

        Raises:
            OSError, ValueError: it cannot be read, or there is nothing in it.
        """
        return _filled(read_text(self.files.path(index)))


class Texts(Dataset[dict[str, Any]]):
    """Texts in memory, one behind the other, as dicts: `text` and `labels`.

    An empty one is an unreadable sample.

    Args:
        texts: the texts.
        name: of the file that they are from.
        lines: where each stands; None: from 1 on.
        targets: class of each, or None.
        classes: names of the classes, or None.
        labels: label columns by name, (N,) each.
    """

    def __init__(
        self,
        texts: Sequence[str],
        *,
        name: str,
        lines: Sequence[int] | None = None,
        targets: NDArray[np.int64] | None = None,
        classes: list[str] | None = None,
        labels: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        # Bytes in one array, not a list of strings: reference counts would copy a list into every worker.
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        self._ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._lines = np.arange(1, len(encoded) + 1) if lines is None else np.array(lines, dtype=np.int64)
        self.name = name
        self.targets = targets
        self.classes = classes
        self._columns = dict(labels or {})

    def __len__(self) -> int:
        return len(self._ends)

    def sample_id(self, index: int) -> str:
        """Name text `index` by its file and line: reviews.csv:12."""
        return printable(f"{self.name}:{self._lines[index]}")

    def __getitem__(self, index: int) -> dict[str, Any]:
        start = int(self._ends[index - 1]) if index else 0
        text = self._bytes[start : int(self._ends[index])].tobytes().decode("utf-8", "surrogatepass")
        return {"text": _filled(text), "labels": {name: column[index] for name, column in self._columns.items()}}


class GivenTexts(WrappedDataset):
    """Anyone's dataset: what it gives for a text is a string, or bytes in UTF-8."""

    def __getitem__(self, index: int) -> Any:
        item = self.dataset[index]
        if isinstance(item, tuple | list) and 1 <= len(item) <= 2:
            item = dict(zip(("text", "label"), item, strict=False))
        elif not isinstance(item, tuple | list | dict):
            item = {"text": item}
        if not isinstance(item, dict) or "text" not in item:
            return item  # the data module says what is wrong with it
        text = item["text"]
        text = text.decode() if isinstance(text, bytes) else text
        if not isinstance(text, str):
            raise DataError(
                f"expected texts as strings from the dataset, got {type(text).__name__}: have it return a string, "
                "(string, label) or a dict with 'text'"
            )
        return {**item, "text": _filled(text)}


def find_texts(
    root: str | None,
    *,
    csv: str | None = None,
    val_csv: str | None = None,
    test_csv: str | None = None,
    labels: list[str] | None = None,
    text: str | None = None,
    columns: list[str] | None = None,
) -> dict[str, Dataset[Any]]:
    """Find texts and their labels by split: "train", and "val" and "test" where they exist.

    Args:
        root: a folder of text files (as `jepa_lightning.data.find_files` reads it), or of tables train.csv, val.csv and
            test.csv (or other endings of tables, and other names of splits); or a table; or a .txt file of one text a
            line, unlabelled.
        csv: a table: .csv or .tsv, or JSON lines (.jsonl, .ndjson, .json).
        val_csv: the validation split's table; with it or `test_csv`, all of `csv` is training data.
        test_csv: likewise of the test split.
        labels: label columns of the table, the primary one first; None: label, or class.
        text: the table's column of texts; None: the first of `TEXT_COLUMNS`.
        columns: names of the table's columns, where its first line is a row as any other.

    Raises:
        DataError: there is nothing of the kind, or it cannot be read.
    """
    files: dict[str, Path] = {}
    if csv is not None:
        files = {"": Path(csv).expanduser()}
    elif root is not None:
        at = Path(root).expanduser()
        if at.is_dir():
            files = _tables(at)
        elif at.suffix.lower() in TABLES:
            files = {"": at}
        elif at.suffix.lower() in EXTENSIONS:
            return {"train": lines_of(at)}
    if not files:
        for name, value in {"val_csv": val_csv, "test_csv": test_csv, "text": text, "columns": columns}.items():
            if value is not None:
                raise DataError(f"expected {name} only beside a table, got none: set data.csv, or leave {name} out")
        found = find_files(root, kind="text", extensions=EXTENSIONS, labels=labels)
        return {split: TextFiles(of_split) for split, of_split in found.items()}
    given = {split: Path(path).expanduser() for split, path in (("val", val_csv), ("test", test_csv)) if path}
    if given:
        files = {"train": files.get("", files.get("train", Path(str(csv)))), **given}
    for path in files.values():
        if not path.is_file():
            near = did_you_mean(path.name, [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else [])
            raise DataError(f"expected a table, but there is no file {path}{near}: check data.csv")
    if text is not None and columns is not None and text not in columns:
        raise DataError(f"expected text to be one of columns, got {text}{did_you_mean(text, columns)}")
    names = TEXT_COLUMNS if text is None else (text.lower(),)
    settings: dict[str, Any] = {"kind": "text", "names": names, "labels": labels, "header": columns, "empty": True}
    splits = read_column(files, **settings)
    return {split: _texts(column, files.get(split, files.get("")) or Path()) for split, column in splits.items()}


def lines_of(file: str | Path, *, targets: bool = False) -> Texts:
    """Read a file of one text a line; empty lines are left out.

    Args:
        file: the file.
        targets: give each the class -1, "no label".

    Raises:
        DataError: it cannot be read, or holds nothing.
    """
    path = Path(file).expanduser()
    try:
        lines = [(number, line) for number, line in enumerate(read_lines(path), start=1) if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"expected a file of one text a line, cannot read {path}: {error}") from error
    if not lines:
        raise DataError(f"expected a file of one text a line, got the empty file {path}")
    return Texts(
        [line for _, line in lines],
        name=path.name,
        lines=[number for number, _ in lines],
        targets=np.full(len(lines), -1) if targets else None,
    )


def _tables(folder: Path) -> dict[str, Path]:
    """The tables of splits in a folder, by split; none where it holds no train.csv or the like."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        split = plain_split_of(path.stem) if path.suffix.lower() in TABLES and path.is_file() else None
        if split is not None:
            if split in found:
                raise DataError(f"expected one table of the split {split} in {folder}, got {found[split].name} and "
                                f"{path.name}: remove one, or name them by data.csv, val_csv and test_csv")  # fmt: skip
            found[split] = path
    return found if "train" in found else {}


def _texts(column: Column, file: Path) -> Texts:
    return Texts(
        column.cells,
        name=file.name,
        lines=column.lines,
        targets=column.targets,
        classes=column.classes,
        labels=column.labels,
    )


def _filled(text: str) -> str:
    if not text.strip():
        raise ValueError("the text is empty")
    return text
