"""A folder and what lies below it, looked through once."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

_OF_SYSTEMS = {"@eadir", "lost+found", "$recycle.bin", "system volume information"}
_BESIDE_DATA = {
    *("", ".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".md", ".rst", ".yaml", ".yml", ".html", ".htm", ".pdf"),
    *(".log", ".ini", ".cfg", ".toml", ".py", ".ipynb", ".sh", ".m", ".mat", ".pkl", ".pt", ".pth", ".db", ".lst"),
    *(".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".sha256", ".md5", ".names", ".data", ".seg", ".bib", ".doc"),
}


@dataclass
class Folder:
    """A folder.

    Attributes:
        path: of it.
        name: the last part of `path`.
        files: names of the files in it that are read, sorted.
        others: how many other files there are in it, by their endings in lower case.
        folders: in it, sorted by name.
        count: files that are read, in it and below it.
    """

    path: str
    name: str
    files: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    folders: list[Folder] = field(default_factory=list)
    count: int = 0

    def paths(self, start: str = "") -> Iterator[str]:
        """Of the files that are read, in it and below it, each after `start`."""
        yield from (os.path.join(start, name) for name in self.files)
        for folder in self.folders:
            yield from folder.paths(os.path.join(start, folder.name))

    def sorted_paths(self, start: str = "") -> list[str]:
        """The same, sorted."""
        return sorted(self.paths(start))

    @property
    def filled(self) -> list[Folder]:
        """The folders in it that hold files that are read, at any depth."""
        return [folder for folder in self.folders if folder.count]

    @property
    def empty(self) -> bool:
        """Whether there is no file at all in it and below it."""
        return not self.files and not self.others and all(folder.empty for folder in self.folders)

    def unread(self) -> Counter[str]:
        """Files in it and below it that could have been data and are not read, by ending; notes and lists are not."""
        found = Counter({ending: count for ending, count in self.others.items() if ending not in _BESIDE_DATA})
        for folder in self.folders:
            found += folder.unread()
        return found


def read_tree(base: str, fits: Callable[[str, str], bool]) -> tuple[Folder, list[str]]:
    """What lies in and below `base`, and in words what was not looked into.

    Each folder is read once, by its device and inode number: under its own name if it has one below `base`, or else
    under that of the first link to it. A link to a folder that it lies in is not followed. Hidden files and folders
    (`.x`, `__x`) are left out, and so is what is neither a file nor a folder.

    Args:
        base: a folder.
        fits: whether a file is read, by its folder and its name.
    """
    root = Folder(base, os.path.basename(os.path.normpath(base)))
    seen = {_identity(base)}
    waiting, links = deque([root]), deque[tuple[Folder, str]]()
    order, above, said = [root], {id(root): None}, []
    while waiting or links:
        if not waiting:
            parent, name = links.popleft()
            path = os.path.join(parent.path, name)
            if _identity(path) in seen or _lies_in(parent.path, path):
                said.append(f"left out: the link {os.path.relpath(path, base)}, to a folder that is read already")
                continue
            _add(parent, name, path, seen, waiting, order, above)
            continue
        folder = waiting.popleft()
        try:
            entries = sorted(os.scandir(folder.path), key=lambda entry: entry.name)
        except OSError as error:
            said.append(f"left out: {os.path.relpath(folder.path, base)}, which cannot be read ({error.strerror})")
            continue
        for entry in entries:
            if entry.name.startswith((".", "__")):
                continue
            if entry.is_dir():
                if entry.name.lower() in _OF_SYSTEMS:
                    continue
                if entry.is_symlink():
                    links.append((folder, entry.name))
                else:
                    _add(folder, entry.name, entry.path, seen, waiting, order, above)
            elif entry.is_file() or entry.is_symlink():  # a link that leads nowhere is a file that cannot be read
                if fits(folder.path, entry.name):
                    folder.files.append(entry.name)
                else:
                    folder.others[os.path.splitext(entry.name)[1].lower()] += 1
    for folder in reversed(order):
        folder.folders.sort(key=lambda inner: inner.name)
        folder.count += len(folder.files)
        parent_of = above[id(folder)]
        if parent_of is not None:
            parent_of.count += folder.count
    return root, said


def _add(
    parent: Folder,
    name: str,
    path: str,
    seen: set[tuple[int, int]],
    waiting: deque[Folder],
    order: list[Folder],
    above: dict[int, Folder | None],
) -> None:
    identity = _identity(path)
    if identity in seen:  # the same folder, mounted twice
        return
    seen.add(identity)
    child = Folder(path, name)
    parent.folders.append(child)
    waiting.append(child)
    order.append(child)
    above[id(child)] = parent


def _identity(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return -1, hash(path)
    return found.st_dev, found.st_ino


def _lies_in(folder: str, link: str) -> bool:
    target = os.path.join(os.path.realpath(link), "")
    return os.path.join(os.path.realpath(folder), "").startswith(target)
