"""Folders of files: which folders are splits, and which files are left out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from jepa_lightning.data.errors import DataError
from jepa_lightning.data.files.class_folders import ClassFolders, Part, divide
from jepa_lightning.data.files.file_list import FileList
from jepa_lightning.data.files.notes import Notes, counted, files, listed
from jepa_lightning.data.files.split_lists import find_lists
from jepa_lightning.data.files.split_names import ORDER, group_by_split, plain_split_of
from jepa_lightning.data.files.tree import Folder, read_tree
from jepa_lightning.names.printable import printable


class FolderReader:
    """Find out which files of a folder are data, their splits and their classes.

    Args:
        kind: what the files are, for messages: "image".
        extensions: file name endings that are read, in lower case with the dot.
        is_sample: whether a file of such an ending (its path) is data; None: each is.
    """

    def __init__(self, kind: str, extensions: tuple[str, ...], is_sample: Callable[[str], bool] | None = None) -> None:
        self.kind = kind
        self.extensions = extensions
        self.is_sample = is_sample
        self.notes = Notes(kind)
        self.classes = ClassFolders(kind, self.notes)

    def read(self, base: Path) -> dict[str, FileList]:
        """List the files by split. What was understood is logged in a line, and what is left out in another.

        Raises:
            DataError: there are no files, or splits do not fit each other.
        """
        self.notes.doubts.clear()
        tree, said = read_tree(str(base), self._fits)
        if not tree.count:
            raise DataError(f"expected {self.kind}s in {self._deepest(tree)}: {self._endings(tree)}")
        self.notes.doubts += said
        top = tree
        while True:
            inner = self.classes.data_folders(top)
            splits = self._splits(top, inner)
            if splits or top.files or len(inner) != 1:
                break
            top = inner[0]
        how = ""
        if splits:
            self.notes.leave_out_strays(top, "folders of the splits")
            found = self._by_folder(top, splits)
            if not all(len(part) == 1 and part[0].name.lower() in ORDER for part in splits.values()) or top is not tree:
                names = {split: ", ".join(folder.name for folder in part) for split, part in splits.items()}
                how = f"; split by folder ({'; '.join(f'{split}: {which}' for split, which in names.items())})"
            else:
                how = "; split by folder"
        else:
            found = {"train": self.classes.part([tree], known=None)}
            whole = found["train"]
            divided = self._within_classes(whole)
            if divided is None:
                divided, how = self._by_lists(whole, tree)
            else:
                how = "; split by the folders in each class"
            found = divided
        lists = self._as_lists(found)
        self.notes.log(base, tree, lists, how)
        return lists

    # Which files.

    def _fits(self, folder: str, name: str) -> bool:
        if not name.lower().endswith(self.extensions):
            return False
        return self.is_sample is None or self.is_sample(os.path.join(folder, name))

    def _deepest(self, tree: Folder) -> str:
        """Name the innermost folder of a chain of single ones, and what is in it."""
        while len(tree.folders) == 1 and not tree.others:
            tree = tree.folders[0]
        return f"{tree.path}, got {'an empty one' if tree.empty else f'no {self.kind} in it'}"

    def _endings(self, tree: Folder) -> str:
        read = f"files that are read end in {', '.join(self.extensions)}"
        unread = tree.unread()
        return f"{read}; there are {counted(unread)}" if unread else read

    # Splits.

    def _splits(self, folder: Folder, inner: Sequence[Folder]) -> dict[str, list[Folder]]:
        """Find the folders of each split; none where the folders are no splits."""
        named = [(one.name, one) for one in folder.folders if one in inner or plain_split_of(one.name) is not None]
        found = group_by_split(named)
        found = {split: kept for split, part in found.items() if (kept := [one for one in part if one.count])}
        others = [one for one in inner if not any(one in part for part in found.values())]
        if "train" in found:
            lone = len(found) == 1 and others and any(one.files for one in found["train"])
            if lone:  # the class train, beside bus and car
                return self._as_classes(found)
            self.notes.leave_out(others, "which are no splits")
            return found
        if found and not others and len(found) > 1:
            raise DataError(
                f"expected a folder of training data in {folder.path}, got only "
                f"{listed([one.name for part in found.values() for one in part])}: name it train, or name one of "
                "these folders as data.root"
            )
        held = {split: part for split, part in found.items() if part and not any(one.files for one in part)}
        if not held or len(others) < 2:
            return self._as_classes(found)
        # Class folders beside val or test, which hold class folders, too.
        names = {one.name for one in others}
        if any({inner.name for inner in one.filled} - names for part in held.values() for one in part):
            return self._as_classes(found)
        return {"train": [Folder(folder.path, folder.name, folders=others, count=sum(f.count for f in others))], **held}

    def _as_classes(self, found: dict[str, list[Folder]]) -> dict[str, list[Folder]]:
        names = [one.name for part in found.values() for one in part]
        if names:
            self.notes.add(f"taken as classes, not as splits: {listed(names)}")
        return {}

    def _by_folder(self, top: Folder, splits: dict[str, list[Folder]]) -> dict[str, Part]:
        found = {"train": self.classes.part(splits["train"], known=None, top=top)}
        known = set(found["train"].classes or ()) - {""}
        for split in ORDER[1:]:
            if split in splits:
                found[split] = self.classes.part(splits[split], known=known, top=top)
        for part in found.values():
            below = os.path.relpath(part.root.path, top.path)
            part.name = "" if below == os.curdir else below
        return found

    def _within_classes(self, found: Part) -> dict[str, Part] | None:
        """Split class folders by the folders train and test in each of them."""
        if found.classes is None:
            return None
        parts = [path.split(os.sep) for path in found.paths]
        splits = [(plain_split_of(part[1]) or "") if len(part) > 2 else "" for part in parts]
        counts = Counter(splits)
        if not counts["train"] or not (counts["val"] or counts["test"]) or counts[""] > 0.5 * len(splits):
            return None
        if counts[""]:
            left = [path for path, split in zip(found.paths, splits, strict=True) if not split]
            self.notes.add(f"left out: {files(len(left))} in no folder of a split, such as {printable(left[0])}")
        return divide(found, splits)

    def _by_lists(self, found: Part, tree: Folder) -> tuple[dict[str, Part], str]:
        """Split by lists of files (train.txt), where there are any."""
        above = [tree.path, found.root.path]
        beside = [one.path for one in tree.folders if not one.count]
        beside += [one.path for one in found.root.folders if not one.count]
        lists = find_lists(dict.fromkeys([*above, *beside]), found.paths)
        if lists is None:
            return {"train": found}, ""
        left = lists.splits.count("")
        if left:
            self.notes.add(f"left out: {files(left)} that {listed(lists.names)} do not name")
        return divide(found, lists.splits), f"; split by the lists {listed(lists.names)}"

    # What comes of it.

    def _as_lists(self, found: dict[str, Part]) -> dict[str, FileList]:
        names = sorted({name for part in found.values() for name in part.classes or () if name})
        if names and all(part.classes is None for part in found.values()):
            names = []
        number = {name: index for index, name in enumerate(names)} | {"": -1}
        lists = {}
        for split, part in found.items():
            targets = None
            if names:
                targets = [-1] * len(part.paths) if part.classes is None else [number[name] for name in part.classes]
            classes = [printable(name) for name in names] if names else None
            lists[split] = FileList(part.root.path, part.paths, name=part.name, targets=targets, classes=classes)
        return lists
