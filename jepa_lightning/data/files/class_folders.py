"""Which folders are classes, and which are parts of the data, masks or noise."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from jepa_lightning.data.errors import DataError
from jepa_lightning.data.files.notes import Notes, listed
from jepa_lightning.data.files.split_names import ORDER
from jepa_lightning.data.files.tree import Folder
from jepa_lightning.names.printable import printable

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
class Part:
    """Hold the files of one split: their paths below `root`, and for each the name of its class ("" for none)."""

    root: Folder
    name: str
    paths: list[str]
    classes: list[str] | None


class ClassFolders:
    """Find the class of each file in the folders of a split.

    Args:
        kind: what the files are, for messages: "image".
        notes: take what is left out.
    """

    def __init__(self, kind: str, notes: Notes) -> None:
        self.kind = kind
        self.notes = notes

    def data_folders(self, folder: Folder) -> list[Folder]:
        """List the folders in it that hold data: without those of masks beside images, and those of noise."""
        inner = folder.filled
        if any(one.name.lower() in _SAMPLES for one in inner):
            truth = [one for one in inner if one.name.lower() in _TRUTH]
            self.notes.leave_out(truth, "which lie beside a folder of inputs")
            inner = [one for one in inner if one not in truth]
        noise = [
            one for one in inner if re.fullmatch("_.+_", one.name) and one.name.lower() not in _CLASSES_OF_THAT_FORM
        ]
        if len(inner) > len(noise):
            self.notes.leave_out(noise, "whose names say that they are no classes")
            inner = [one for one in inner if one not in noise]
        return inner

    def part(self, folders: Sequence[Folder], *, known: set[str] | None, top: Folder | None = None) -> Part:
        """Gather the files of one split, which lie in one folder or in several.

        Raises:
            DataError: a class folder is none of `known`, the training data's.
        """
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
        return Part(base, base.name, paths, classes)

    def _one(self, folder: Folder, *, known: set[str] | None) -> Part:
        inner = self.data_folders(folder)
        strays, inside = len(folder.files), sum(one.count for one in inner)
        if len(inner) == 1 and not (known and inner[0].name in known):
            deeper = self._one(inner[0], known=known) if strays < inside else None
            if deeper is not None and (not strays or deeper.classes is not None):
                self.notes.leave_out_strays(folder)
                return deeper
        if strays >= inside or not inner or (len(inner) == 1 and strays and not known):
            if len(inner) > 1:
                names = listed([one.name for one in inner])
                self.notes.add(f"not taken as classes, for most files lie beside them: {names}")
            kept = sorted([*folder.files, *(path for one in inner for path in one.paths(one.name))])
            return Part(folder, folder.name, kept, None)
        if all(_PARTS.fullmatch(one.name) for one in inner) and not (known and {one.name for one in inner} <= known):
            self.notes.add(f"taken as parts of the data, not as classes: {listed([one.name for one in inner])}")
            self.notes.leave_out_strays(folder)
            return self.part(inner, known=known, top=folder)
        self._check_classes(folder, inner, known)
        self.notes.leave_out_strays(folder)
        paths = [(path, one.name) for one in inner for path in one.sorted_paths(one.name)]
        return Part(folder, folder.name, [path for path, _ in paths], [name for _, name in paths])

    def _check_classes(self, folder: Folder, inner: Sequence[Folder], known: set[str] | None) -> None:
        where = printable(folder.path)
        without = [one.name for one in folder.folders if not one.count and (one.empty or one.unread())]
        if without:
            what = "class folder" if len(without) == 1 else "class folders"
            self.notes.add(
                f"left out: the {what} {listed(without)} in {printable(folder.name)}, without a readable {self.kind}"
            )
        extra = sorted({one.name for one in inner} - known) if known else []
        if extra:
            raise DataError(
                f"expected in {where} the class folders of the training data, got also {listed(extra)}: rename or "
                "remove them"
            )


def divide(found: Part, splits: Sequence[str]) -> dict[str, Part]:
    """Divide files into splits, of which `splits` names each file's."""
    result = {}
    for split in ORDER:
        chosen = [number for number, its in enumerate(splits) if its == split]
        if chosen:
            classes = None if found.classes is None else [found.classes[number] for number in chosen]
            result[split] = Part(found.root, found.name, [found.paths[number] for number in chosen], classes)
    return result
