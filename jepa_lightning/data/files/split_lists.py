"""Lists of the files of a split that lie beside the data: modelnet40_train.txt, testing_list.txt, meta/test.txt."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jepa_lightning.data.files.split_names import ORDER, SPLITS, split_of

_LARGEST = 2**28  # bytes of a list
_MATCHING = 0.9  # of its lines that must name a file


@dataclass(frozen=True)
class Lists:
    """The files of each split, as some lists say.

    Attributes:
        names: of the lists.
        splits: of each of the files, "" for one that is in none.
    """

    names: list[str]
    splits: list[str]


def find_lists(folders: Iterable[str], paths: Sequence[str]) -> Lists | None:
    """Find the lists in some folders that name files among `paths`; None where there are none.

    A list has a split in its name and ends in .txt, .lst or .json. It holds a file a line, or is a JSON array of them:
    a path, with or without ending and with or without the folders above, and perhaps something after a blank. Of
    several groups of lists (modelnet10_*, modelnet40_*) the one that names the most files is taken. Files that no list
    names are training data where there is no list of these.

    Args:
        folders: to look in, not below.
        paths: of the files, relative to one folder.
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    for folder in folders:
        for name in sorted(os.listdir(folder)):
            stem, ending = os.path.splitext(name)
            says = split_of(stem)
            if ending.lower() not in (".txt", ".lst", ".json") or says is None or name.startswith("."):
                continue
            key = os.path.join(folder, re.sub("|".join(sorted(SPLITS, key=len, reverse=True)), "*", stem.lower()))
            groups.setdefault(key, []).append((says[0], os.path.join(folder, name)))
    if not groups:
        return None
    known = _Known(paths)
    best: tuple[int, Lists] | None = None
    for group in groups.values():
        found = _read_group(group, known, len(paths))
        size = 0 if found is None else sum(map(bool, found.splits))
        if found is not None and (best is None or size > best[0]):
            best = size, found
    return None if best is None else best[1]


def _read_group(group: list[tuple[str, str]], known: _Known, count: int) -> Lists | None:
    named: dict[str, set[int]] = {}
    names = []
    for split, path in group:
        entries = _entries(path)
        numbers = [number for number in map(known.number, entries) if number is not None]
        if not numbers or len(numbers) < _MATCHING * len(entries):
            continue
        named.setdefault(split, set()).update(numbers)
        names.append(os.path.basename(path))
    if not named or (set(named) == {"train"} and len(named["train"]) == count):
        return None
    splits = ["" if "train" in named else "train"] * count
    for split in ORDER:  # a file of two lists is not trained on
        for number in named.get(split, ()):
            splits[number] = split
    return Lists(names, splits) if "train" in splits and len(set(splits) - {""}) > 1 else None


class _Known:
    """Finds a file by what a list calls it."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._by_name: dict[str, int | None] = {}
        for number, path in enumerate(paths):
            parts = path.replace(os.sep, "/").split("/")
            stem = os.path.splitext(parts[-1])[0]
            keys = {"/".join([*parts[-depth:-1], last]) for depth in range(1, len(parts) + 1)
                    for last in (parts[-1], stem)}  # fmt: skip
            for key in keys:
                self._by_name[key] = None if key in self._by_name else number  # a name of two files names none

    def number(self, entry: str) -> int | None:
        for text in (entry, re.split(r"[\s,;]", entry, maxsplit=1)[0]):
            parts = [part for part in text.strip().replace("\\", "/").split("/") if part not in ("", ".")]
            for start in range(len(parts)):
                found = self._by_name.get("/".join(parts[start:]))
                if found is not None:
                    return found
        return None


def _entries(path: str) -> list[str]:
    try:
        if not os.path.isfile(path) or os.path.getsize(path) > _LARGEST:
            return []
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            if not path.lower().endswith(".json"):
                return [line.strip() for line in file if line.strip()]
            found = json.load(file)
    except (OSError, ValueError, RecursionError):
        return []
    return [entry for entry in found if isinstance(entry, str)] if isinstance(found, list) else []
