"""What a folder of files means: which folders are splits, which are classes, and which files are left out."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info

from jepa_lightning.data.errors import DataError
from jepa_lightning.data.files.file_list import FileList
from jepa_lightning.data.files.split_lists import find_lists
from jepa_lightning.data.files.split_names import ORDER, group_by_split, plain_split_of
from jepa_lightning.data.files.tree import Folder, read_tree
from jepa_lightning.printable import printable

_log = logging.getLogger(__name__)

_PARTS = re.compile(  # a folder of these names is a part of the data, and no class
    r"(batch|part|chunk|shard|fold|subset|block|section|volume|vol|disc|disk|cd|dir|folder|group|split|set|bucket|"
    r"images?|imgs?|videos?|clips?|audio|sounds?|wavs?|files?|data|photos?|pictures?|samples?|clouds?)[ _-]*\d+"
    r"|\d{4}-\d\d(-\d\d)?",
    re.IGNORECASE,
)
_SAMPLES = {"image", "images", "img", "imgs", "jpegimages", "rgb", "photos", "scans"}
_TRUTH = {
    *("mask", "masks", "label", "labels", "annotation", "annotations", "segmentation", "segmentations", "gt"),
    *("groundtruth", "ground_truth", "segmentationclass", "segmentationobject", "seg", "labelstr", "depth", "depths"),
}  # fmt: skip
_CLASSES_OF_THAT_FORM = {"_silence_", "_unknown_"}


@dataclass
class _Found:
    """The files of one split: their paths below `root`, and for each the name of its class ("" for none) or None."""

    root: Folder
    name: str
    paths: list[str]
    classes: list[str] | None


class Meaning:
    """Looks through a folder.

    Args:
        kind: what the files are, for messages: "image".
        extensions: file name endings that are read, in lower case with the dot.
        is_sample: whether a file of such an ending (its path) is data; None: each is.
    """

    def __init__(self, kind: str, extensions: tuple[str, ...], is_sample: Callable[[str], bool] | None = None) -> None:
        self.kind = kind
        self.extensions = extensions
        self.is_sample = is_sample
        self.doubts: list[str] = []

    def __call__(self, base: Path) -> dict[str, FileList]:
        """The files by split. What was understood is logged in a line, and what is left out in another.

        Raises:
            DataError: there are no files, a class folder is empty, or splits do not fit each other.
        """
        self.doubts = []
        tree, said = read_tree(str(base), self._fits)
        if not tree.count:
            raise DataError(f"expected {self.kind}s in {self._deepest(tree)}: {self._endings(tree)}")
        self.doubts += said
        top = tree
        while True:
            inner = self._data_folders(top)
            splits = self._splits(top, inner)
            if splits or top.files or len(inner) != 1:
                break
            top = inner[0]
        how = ""
        if splits:
            found = self._by_folder(top, splits)
            if not all(len(part) == 1 and part[0].name.lower() in ORDER for part in splits.values()) or top is not tree:
                names = {split: ", ".join(folder.name for folder in part) for split, part in splits.items()}
                how = f"; split by folder ({'; '.join(f'{split}: {which}' for split, which in names.items())})"
            else:
                how = "; split by folder"
        else:
            found = {"train": self._part([tree], known=None)}
            whole = found["train"]
            divided = self._within_classes(whole)
            if divided is None:
                divided, how = self._by_lists(whole, tree)
            else:
                how = "; split by the folders in each class"
            found = divided
        lists = self._as_lists(found)
        self._say(base, tree, lists, how)
        return lists

    # Which files.

    def _fits(self, folder: str, name: str) -> bool:
        if not name.lower().endswith(self.extensions):
            return False
        return self.is_sample is None or self.is_sample(os.path.join(folder, name))

    def _deepest(self, tree: Folder) -> str:
        """The innermost folder of a chain of single ones, and what is in it."""
        while len(tree.folders) == 1 and not tree.others:
            tree = tree.folders[0]
        return f"{tree.path}, got {'an empty one' if tree.empty else f'no {self.kind} in it'}"

    def _endings(self, tree: Folder) -> str:
        read = f"files that are read end in {', '.join(self.extensions)}"
        unread = tree.unread()
        return f"{read}; there are {_counted(unread)}" if unread else read

    def _data_folders(self, folder: Folder) -> list[Folder]:
        """The folders in it that hold data: without those of masks beside images, and those of noise."""
        inner = folder.filled
        if any(one.name.lower() in _SAMPLES for one in inner):
            truth = [one for one in inner if one.name.lower() in _TRUTH]
            self._doubt_of(truth, "which lie beside a folder of inputs")
            inner = [one for one in inner if one not in truth]
        noise = [
            one for one in inner if re.fullmatch("_.+_", one.name) and one.name.lower() not in _CLASSES_OF_THAT_FORM
        ]
        if len(inner) > len(noise):
            self._doubt_of(noise, "whose names say that they are no classes")
            inner = [one for one in inner if one not in noise]
        return inner

    def _doubt_of(self, folders: Sequence[Folder], why: str) -> None:
        if folders:
            files = sum(folder.count for folder in folders)
            doubt = f"left out: {_files(files)} in {_listed([folder.name for folder in folders])}, {why}"
            self.doubts.append(doubt)

    # Splits.

    def _splits(self, folder: Folder, inner: Sequence[Folder]) -> dict[str, list[Folder]]:
        """The folders of each split; empty where the folders are none."""
        named = [(one.name, one) for one in folder.folders if one in inner or plain_split_of(one.name) is not None]
        found = group_by_split(named)
        found = {split: kept for split, part in found.items() if (kept := [one for one in part if one.count])}
        others = [one for one in inner if not any(one in part for part in found.values())]
        if "train" in found:
            lone = len(found) == 1 and others and any(one.files for one in found["train"])
            if lone:  # the class train, beside bus and car
                return self._classes_all_the_same(found)
            self._doubt_of(others, "which are no splits")
            return found
        if found and not others and len(found) > 1:
            raise DataError(
                f"expected a folder of training data in {folder.path}, got only "
                f"{_listed([one.name for part in found.values() for one in part])}: name it train, or name one of "
                "these folders as data.root"
            )
        held = {split: part for split, part in found.items() if part and not any(one.files for one in part)}
        if not held or len(others) < 2:
            return self._classes_all_the_same(found)
        # Class folders beside val or test, which hold class folders, too.
        names = {one.name for one in others}
        if any({inner.name for inner in one.filled} - names for part in held.values() for one in part):
            return self._classes_all_the_same(found)
        return {"train": [Folder(folder.path, folder.name, folders=others, count=sum(f.count for f in others))], **held}

    def _classes_all_the_same(self, found: dict[str, list[Folder]]) -> dict[str, list[Folder]]:
        names = [one.name for part in found.values() for one in part]
        if names:
            self.doubts.append(f"taken as classes, not as splits: {_listed(names)}")
        return {}

    def _by_folder(self, top: Folder, splits: dict[str, list[Folder]]) -> dict[str, _Found]:
        found = {"train": self._part(splits["train"], known=None, top=top)}
        known = set(found["train"].classes or ()) - {""}
        for split in ORDER[1:]:
            if split in splits:
                found[split] = self._part(splits[split], known=known, top=top)
        for part in found.values():
            below = os.path.relpath(part.root.path, top.path)
            part.name = "" if below == os.curdir else below
        return found

    def _within_classes(self, found: _Found) -> dict[str, _Found] | None:
        """Class folders whose files lie below them in train/* and test/*, by these."""
        if found.classes is None:
            return None
        parts = [path.split(os.sep) for path in found.paths]
        splits = [(plain_split_of(part[1]) or "") if len(part) > 2 else "" for part in parts]
        counts = Counter(splits)
        if not counts["train"] or not (counts["val"] or counts["test"]) or counts[""] > 0.5 * len(splits):
            return None
        if counts[""]:
            left = [path for path, split in zip(found.paths, splits, strict=True) if not split]
            self.doubts.append(f"left out: {_files(len(left))} in no folder of a split, such as {printable(left[0])}")
        return _divide(found, splits)

    def _by_lists(self, found: _Found, tree: Folder) -> tuple[dict[str, _Found], str]:
        """By lists of the files of each split, where there are any."""
        above = [tree.path, found.root.path]
        beside = [one.path for one in tree.folders if not one.count]
        beside += [one.path for one in found.root.folders if not one.count]
        lists = find_lists(dict.fromkeys([*above, *beside]), found.paths)
        if lists is None:
            return {"train": found}, ""
        left = lists.splits.count("")
        if left:
            self.doubts.append(f"left out: {_files(left)} that {_listed(lists.names)} do not name")
        return _divide(found, lists.splits), f"; split by the lists {_listed(lists.names)}"

    # Classes.

    def _part(self, folders: Sequence[Folder], *, known: set[str] | None, top: Folder | None = None) -> _Found:
        """The files of one split, which lie in one folder or in several."""
        if len(folders) == 1:
            return self._one(folders[0], known=known)
        base = top or folders[0]
        found = [self._one(folder, known=known) for folder in folders]
        paths = [
            os.path.relpath(os.path.join(part.root.path, path), base.path) for part in found for path in part.paths
        ]
        classes = None
        if any(part.classes is not None for part in found):
            classes = [name for part in found for name in (part.classes or [""] * len(part.paths))]
        return _Found(base, base.name, paths, classes)

    def _one(self, folder: Folder, *, known: set[str] | None) -> _Found:
        inner = self._data_folders(folder)
        strays, inside = len(folder.files), sum(one.count for one in inner)
        if len(inner) == 1 and not (known and inner[0].name in known):
            deeper = self._one(inner[0], known=known) if strays < inside else None
            if deeper is not None and (not strays or deeper.classes is not None):
                self._doubt_of_strays(folder)
                return deeper
        if strays >= inside or not inner or (len(inner) == 1 and strays and not known):
            if len(inner) > 1:
                names = _listed([one.name for one in inner])
                self.doubts.append(f"not taken as classes, for most files lie beside them: {names}")
            return _Found(folder, folder.name, folder.sorted_paths(), None)
        if all(_PARTS.fullmatch(one.name) for one in inner) and not (known and {one.name for one in inner} <= known):
            self.doubts.append(f"taken as parts of the data, not as classes: {_listed([one.name for one in inner])}")
            self._doubt_of_strays(folder)
            return self._part(inner, known=known, top=folder)
        self._check_classes(folder, inner, known)
        self._doubt_of_strays(folder)
        paths = [(path, one.name) for one in inner for path in one.sorted_paths(one.name)]
        return _Found(folder, folder.name, [path for path, _ in paths], [name for _, name in paths])

    def _doubt_of_strays(self, folder: Folder) -> None:
        if folder.files:
            self.doubts.append(
                f"left out: {_files(len(folder.files))} beside the class folders ({_listed(folder.files)})"
            )

    def _check_classes(self, folder: Folder, inner: Sequence[Folder], known: set[str] | None) -> None:
        where = printable(folder.path)
        without = [one for one in folder.folders if not one.count and (one.empty or one.unread())]
        if without and known is None:
            unread = sum((one.unread() for one in without), Counter[str]())
            there = f" (there are {_counted(unread)})" if unread else ""
            raise DataError(
                f"expected {self.kind}s in every class folder of {where}, got none in "
                f"{_listed([one.name for one in without])}{there}: remove these folders or fill them; files that are "
                f"read end in {', '.join(self.extensions)}"
            )
        extra = sorted({one.name for one in inner} - known) if known else []
        if extra:
            raise DataError(
                f"expected in {where} the class folders of the training data, got also {_listed(extra)}: rename or "
                "remove them"
            )

    # What comes of it.

    def _as_lists(self, found: dict[str, _Found]) -> dict[str, FileList]:
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

    def _say(self, base: Path, tree: Folder, lists: dict[str, FileList], how: str) -> None:
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
        unread = tree.unread()
        if unread:
            count = sum(unread.values())
            _log.warning(
                "%s: %s of %s files are left out, for their endings are not read: %s",
                where, f"{count:,}", f"{count + tree.count:,}", _counted(unread),
            )  # fmt: skip
        if self.doubts:
            _log.warning("%s: %s", where, "; ".join(dict.fromkeys(self.doubts)))


def _divide(found: _Found, splits: Sequence[str]) -> dict[str, _Found]:
    result = {}
    for split in ORDER:
        chosen = [number for number, its in enumerate(splits) if its == split]
        if chosen:
            classes = None if found.classes is None else [found.classes[number] for number in chosen]
            result[split] = _Found(found.root, found.name, [found.paths[number] for number in chosen], classes)
    return result


def _counted(endings: Counter[str]) -> str:
    return ", ".join(f"{ending} ({count:,})" for ending, count in endings.most_common(10))


def _files(count: int) -> str:
    return f"{count:,} file{'s' if count != 1 else ''}"


def _listed(names: Sequence[str]) -> str:
    few = [printable(name) for name in names[:5]]
    return ", ".join(few) + (f" and {len(names) - len(few):,} more" if len(names) > len(few) else "")
