"""Finding files and their labels: class folders, or a CSV file. The same for images, videos and audio."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jepa_lightning.data.errors import DataError
from jepa_lightning.data.files.file_list import FileList
from jepa_lightning.data.files.folders import FolderReader
from jepa_lightning.data.files.table import read_table
from jepa_lightning.names.nearest import nearest_names

__all__ = ["FileList", "find_files"]


def find_files(
    root: str | None,
    *,
    kind: str,
    extensions: tuple[str, ...],
    csv: str | None = None,
    labels: list[str] | None = None,
    is_sample: Callable[[str], bool] | None = None,
) -> dict[str, FileList]:
    """Find the files under a folder, or listed in a CSV file, by split: "train", and "val" and "test" where they exist.

    Folders: `root/train/CLASS/*`, with `val` and `test` beside it where they exist; `root/CLASS/*`;
    `root/CLASS/train/*` and `root/CLASS/test/*`; each also without class folders, then unlabelled. A class's files may
    lie in subfolders. A single folder in place of several is looked into. Splits have other names, too: Training,
    Testing, train2017, valid, validation, dev, eval, seg_train beside seg_test, several folders of one split; or they
    are lists of files (train.txt, testing_list.txt) beside the data. Folders are no classes where they are parts
    (batch_001, fold1, 2024-05-31), masks or labels beside a folder of images, or `_background_noise_`, or where most
    files lie beside them; a few files beside class folders are left out. A split without class folders beside one with
    them has the class -1, "no label". Hidden files and folders are left out; each folder is read once, whatever links
    lead to it. What was understood is logged in a line, and what was left out, with the endings that are not read, in
    another.

    CSV: the first line names the columns; cells lie between commas, semicolons, tabs or |, perhaps in "quotation
    marks"; the text is UTF-8 or UTF-16. Paths stand in the first found of path, file, filename, video, audio, image (in
    any case). A column `split` says train, val or test (or the folders' other names); without it all is training data.
    Labels are the columns that `labels` names, the first being the primary one; without `labels` the column `label`, or
    else `class`, and no other. A column of text or of whole numbers holds classes, numbered from 0 in sorted order over
    all splits (01 and 1_1 are text); any other column of numbers, also with decimal commas, is continuous, float32
    (write 3.0, not 3). An empty cell is "no label": -1, or NaN; among numbers so are NA, NaN and null. So is -1, where
    it is the only negative number beside at least two others, as in torchvision; of -1 and 1 there are two classes.
    Only the first few files are looked for here; one that is missing later is an unreadable one.

    Args:
        root: a folder; or a CSV file, whose relative paths then start from its own folder.
        kind: what the files are, for errors: "image", "video".
        extensions: file name endings that count in folders, in lower case with the dot.
        csv: a CSV file whose relative paths start from `root` (None: from the CSV file's folder).
        labels: the CSV file's label columns.
        is_sample: of files in folders, whether one with such an ending is data, by its path; None: each is.

    Raises:
        DataError: no such folder or file, no files in it, splits whose classes do not fit, or a CSV file that is not
            as described.
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
    return FolderReader(kind, extensions, is_sample).read(base)


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


def _nearest(missing: Path, *, files: bool = False) -> str:
    parent = missing.absolute().parent
    if not parent.is_dir():
        return ""
    known = [entry.name for entry in parent.iterdir() if (entry.is_file() if files else entry.is_dir())]
    near = nearest_names(missing.name, known)
    return f" (there is {missing.parent / near[0]})" if near else ""
