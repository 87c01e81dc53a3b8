"""Files with their labels: what a folder or a CSV file turns into."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_lightning.names.printable import printable


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
        """Give the full path of file `index`."""
        return os.path.join(self.root, self.relative(index))

    def relative(self, index: int) -> str:
        """Give the path of file `index` below `root`, or absolute, as it was given."""
        return os.fsdecode(self._paths[index])

    def regular(self, index: int) -> str:
        """Check file `index`, which is to be opened, and give its full path.

        Raises:
            OSError: it is a pipe, a socket or a device, at which reading could wait for ever or never end.
        """
        return regular_file(self.path(index))

    def sample_id(self, index: int) -> str:
        """Name file `index` by its path, from the folder that holds `root` on, or as in the CSV file (`printable`)."""
        return printable(os.path.join(self.name, self.relative(index)))

    def labels_of(self, index: int) -> dict[str, Any]:
        """Give the labels of file `index`: columns of a CSV file, or "label" for a class folder; perhaps none."""
        if self.labels:
            return {name: column[index] for name, column in self.labels.items()}
        return {} if self.targets is None else {"label": self.targets[index]}


def regular_file(path: str) -> str:
    """Check that a file is regular, and return its path; one that is not there passes, for opening it says so.

    Raises:
        OSError: it is a pipe, a socket, a device or a folder; it was not opened.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return path
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
        raise OSError(f"expected a regular file, got {kinds.get(stat.S_IFMT(mode), 'a device')}, which was not opened")
    return path
