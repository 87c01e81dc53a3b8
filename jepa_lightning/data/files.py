"""Finding files and their labels: class folders, or a CSV file. The same for images, videos and sounds."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from pathlib import Path

from jepa_lightning.data.errors import DataError
from jepa_lightning.data.file_list import FileList
from jepa_lightning.data.file_table import SPLITS, read_table
from jepa_lightning.printable import printable

__all__ = ["FileList", "find_files"]


def find_files(
    root: str | None,
    *,
    kind: str,
    extensions: tuple[str, ...],
    csv: str | None = None,
    labels: list[str] | None = None,
) -> dict[str, FileList]:
    """The files under a folder, or listed in a CSV file, by split: "train", and "val" and "test" where they exist.

    Folders: `root/train/CLASS/*`, with `val` (or `validation`, `valid`) and `test` beside it where they exist;
    `root/CLASS/*`; either without class folders, then unlabelled. A class's files may lie in subfolders. A single
    folder in place of several classes is looked into. Hidden files and folders are left out.

    CSV: the first line names the columns. Paths stand in the first found of path, file, filename, video, audio, image
    (in any case). A column `split` says train, val or test (or the folders' other names); without it all is training
    data. Labels are the columns that `labels` names, the first being the primary one; without `labels` the column
    `label`, or else `class`, and no other. A column of text or of whole numbers holds classes, numbered from 0 in
    sorted order over all splits (a negative number is "no label"); any other column of numbers is continuous, float32
    (write 3.0, not 3). Only the first few files are looked for here; one that is missing later is an unreadable one.

    Args:
        root: a folder; or a CSV file, whose relative paths then start from its own folder.
        kind: what the files are, for errors: "image", "video".
        extensions: file name endings that count in folders, in lower case with the dot.
        csv: a CSV file whose relative paths start from `root` (None: from the CSV file's folder).
        labels: the CSV file's label columns.

    Raises:
        DataError: no such folder or file, no files in it, empty class folders, splits whose classes do not fit, or a
            CSV file that is not as described.
    """
    if csv is None and root is not None and root.lower().endswith(".csv"):
        root, csv = None, root
    if csv is not None:
        return _from_table(csv, root, kind, labels)
    if root is None:
        raise DataError(f"expected a folder of {kind}s or a CSV file, got neither: set data.root")
    base = Path(root).expanduser()
    if not base.is_dir():
        if base.exists():
            raise DataError(f"expected a folder of {kind}s, got the file {root}: name the folder that holds it")
        raise DataError(f"expected a folder of {kind}s, but there is no folder {root}{_nearest(base)}: check data.root")
    if labels is not None:
        raise DataError(f"expected labels only beside a CSV file, got the folder {root}: its classes are its folders")
    scan = _Scan(kind, extensions)
    names = {SPLITS[entry.name.lower()]: entry for entry in _folders(base) if entry.name.lower() in SPLITS}
    if "train" not in names:
        return {"train": scan(base)}
    sets = {"train": scan(names["train"])}
    for split in ("val", "test"):
        if split in names:
            sets[split] = scan(names[split], sets["train"].classes)
    return sets


def _from_table(csv: str, root: str | None, kind: str, labels: list[str] | None) -> dict[str, FileList]:
    file = Path(csv).expanduser()
    if not file.is_file():
        raise DataError(f"expected a CSV file, but there is no file {csv}{_nearest(file, files=True)}")
    base = file.parent if root is None else Path(root).expanduser()
    if not base.is_dir():
        raise DataError(
            f"expected the folder that the paths in {csv} start from, but there is no folder {root}{_nearest(base)}: "
            "check data.root"
        )
    return read_table(file, root=base, kind=kind, labels=labels)


class _Scan:
    """Looks through one split's folder for files of one kind."""

    def __init__(self, kind: str, extensions: tuple[str, ...]) -> None:
        self.kind = kind
        self.extensions = extensions

    def __call__(self, folder: Path, known: list[str] | None = None) -> FileList:
        flat = any(self._fits(entry.name) for entry in os.scandir(folder) if entry.is_file())
        inner = _folders(folder)
        if not flat and len(inner) == 1 and not known:
            return self(inner[0])
        read = f"files that are read end in {', '.join(self.extensions)}"
        if flat or not inner:
            paths = sorted(self._walk(folder, folder))
            if not paths:
                what = "an empty one" if not any(folder.iterdir()) else f"no {self.kind} in it"
                raise DataError(f"expected {self.kind}s in {folder}, got {what}: {read}")
            return FileList(folder, paths)
        by_class = {entry.name: sorted(self._walk(entry, folder)) for entry in inner}
        empty = [name for name, paths in by_class.items() if not paths]
        if empty:
            raise DataError(
                f"expected {self.kind}s in every class folder of {folder}, got none in {_names(empty)}: "
                f"remove these folders or fill them; {read}"
            )
        if known and not set(by_class) <= set(known):
            extra = sorted(set(by_class) - set(known))
            raise DataError(
                f"expected in {folder} the class folders of the training data, got also {_names(extra)}: "
                "rename or remove them"
            )
        classes = known or sorted(by_class)
        paths = [path for name in sorted(by_class) for path in by_class[name]]
        targets = [classes.index(name) for name in sorted(by_class) for _ in by_class[name]]
        return FileList(folder, paths, targets=targets, classes=classes)

    def _fits(self, name: str) -> bool:
        return name.lower().endswith(self.extensions) and not name.startswith(".")

    def _walk(self, folder: Path, base: Path) -> Iterator[str]:
        for where, folders, files in os.walk(folder, followlinks=True):
            folders[:] = [name for name in folders if not name.startswith((".", "__"))]
            yield from (os.path.relpath(os.path.join(where, name), base) for name in files if self._fits(name))


def _names(names: list[str]) -> str:
    return ", ".join(map(printable, names[:10]))


def _folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__")))


def _nearest(missing: Path, *, files: bool = False) -> str:
    parent = missing.absolute().parent
    if not parent.is_dir():
        return ""
    known = (
        [entry.name for entry in parent.iterdir() if entry.is_file()] if files else [f.name for f in _folders(parent)]
    )
    near = difflib.get_close_matches(missing.name, known, n=1)
    return f" (there is {missing.parent / near[0]})" if near else ""
