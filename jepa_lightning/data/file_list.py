"""Files with their labels: what a folder or a CSV file turns into."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from unicodedata import category

import numpy as np
from numpy.typing import NDArray

_ESCAPED = ("Cc", "Cs", "Zl", "Zp")  # control characters, halves of characters, ends of lines


class FileList:
    """The files of one split, with what is known about each. Not a data set: reading is the modality's business.

    Args:
        root: the folder that relative paths start from.
        paths: paths of the files, below `root` or absolute.
        name: what `sample_id` puts before a relative path; the last part of `root` by default, "" for nothing.
        targets: class of each file, or None; where there are label columns, those of the first if it holds classes.
        classes: names of the classes of `targets`, or None.
        labels: label columns by name, (N,) int64 (classes) or float32 (continuous) each; empty for class folders.
        class_names: names of the classes, for each label column that holds classes.
    """

    def __init__(
        self,
        root: str | Path,
        paths: Iterable[str],
        *,
        name: str | None = None,
        targets: Sequence[int] | NDArray[np.int64] | None = None,
        classes: list[str] | None = None,
        labels: dict[str, NDArray[Any]] | None = None,
        class_names: dict[str, list[str]] | None = None,
    ) -> None:
        self.root = str(root)
        self.name = Path(root).name if name is None else name
        self.targets = None if targets is None else np.asarray(targets, dtype=np.int64)
        self.classes = classes
        self.labels = labels or {}
        self.class_names = class_names or {}
        # Bytes in one array, not a list of strings: reference counts would copy a list into every worker.
        self._paths = np.array([os.fsencode(path) for path in paths])

    def __len__(self) -> int:
        return len(self._paths)

    def path(self, index: int) -> str:
        """Full path of file `index`."""
        return os.path.join(self.root, self.relative(index))

    def relative(self, index: int) -> str:
        """Path of file `index` below `root`, or absolute, as it was given."""
        return os.fsdecode(self._paths[index])

    def sample_id(self, index: int) -> str:
        """Path of file `index`, from the folder that holds `root` on, or as the CSV file has it; see `printable`."""
        return printable(os.path.join(self.name, self.relative(index)))

    def labels_of(self, index: int) -> dict[str, Any]:
        """Labels of file `index` by name: the columns of a CSV file, or "label" for a class folder; perhaps none."""
        if self.labels:
            return {name: column[index] for name, column in self.labels.items()}
        return {} if self.targets is None else {"label": self.targets[index]}


def printable(name: str) -> str:
    """A file's name as text: bytes that are not UTF-8, and control characters, as escapes (caf\\xe9.png)."""
    if name.isprintable():
        return name
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c.encode("unicode_escape").decode() if category(c) in _ESCAPED else c for c in text)


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that `name` was perhaps meant to be, as " (did you mean x?)"; "" where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""
