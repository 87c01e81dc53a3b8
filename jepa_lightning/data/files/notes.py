"""What a user is told of a folder of files: in a line what was understood, in another what was left out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info

from jepa_lightning.data.files.file_list import FileList
from jepa_lightning.data.files.tree import Folder
from jepa_lightning.names.printable import printable

_log = logging.getLogger(__name__)


class Notes:
    """Gather what is in doubt about a folder of files, and log it.

    Args:
        kind: what the files are: "image".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.doubts: list[str] = []

    def add(self, doubt: str) -> None:
        """Note a doubt."""
        self.doubts.append(doubt)

    def leave_out(self, folders: Sequence[Folder], why: str) -> None:
        """Note folders that are left out, if there are any."""
        if folders:
            count = sum(folder.count for folder in folders)
            self.add(f"left out: {files(count)} in {listed([folder.name for folder in folders])}, {why}")

    def leave_out_strays(self, folder: Folder, beside: str = "class folders") -> None:
        """Note the files that lie in a folder beside its class folders, or beside others, if there are any."""
        if folder.files:
            where = f"beside the {beside} of {printable(folder.name)}" if folder.name else f"beside the {beside}"
            self.add(f"left out: {files(len(folder.files))} {where} ({listed(folder.files)})")

    def log(self, base: Path, tree: Folder, lists: dict[str, FileList], how: str) -> None:
        """Log what was understood, then what was left out.

        Args:
            base: the folder.
            tree: what is in it.
            lists: the files by split.
            how: they were split, to be put after their number.
        """
        total = sum(map(len, lists.values()))
        classes = lists["train"].classes
        labelled = sum(int((part.targets >= 0).sum()) for part in lists.values() if part.targets is not None)
        what = "without class folders" if not classes else f"in {len(classes)} class{'es' if len(classes) > 1 else ''}"
        if classes and labelled < total:
            what = f"{labelled:,} of them {what}"
        sizes = ", ".join(f"{split} {len(part):,}" for split, part in lists.items())
        where = printable(str(base))
        comma = "," if classes and labelled < total else ""
        how += f": {sizes}" if len(lists) > 1 else ""
        rank_zero_info(f"{where}: {total:,} {self.kind}{'s' if total > 1 else ''}{comma} {what}{how}")
        warn_of_unread(str(base), tree.unread(), tree.count)
        if self.doubts:
            _log.warning("%s: %s", where, "; ".join(dict.fromkeys(self.doubts)))


def warn_of_unread(base: str, unread: Counter[str], read: int) -> None:
    """Log how many files of a folder are left out by which ending, if any are.

    Args:
        base: the folder.
        unread: ending to the number of files with it.
        read: number of files that are read.
    """
    if unread:
        count = sum(unread.values())
        _log.warning(
            "%s: %s of %s files are left out, for their endings are not read: %s",
            printable(base), f"{count:,}", f"{count + read:,}", counted(unread),
        )  # fmt: skip


def counted(endings: Counter[str]) -> str:
    """Write out file name endings with their numbers."""
    return ", ".join(f"{ending} ({count:,})" for ending, count in endings.most_common(10))


def files(count: int) -> str:
    """Write out a number of files."""
    return f"{count:,} file{'s' if count != 1 else ''}"


def listed(names: Sequence[str]) -> str:
    """Write out the first five names and the number of the others."""
    few = [printable(name) for name in names[:5]]
    return ", ".join(few) + (f" and {len(names) - len(few):,} more" if len(names) > len(few) else "")
