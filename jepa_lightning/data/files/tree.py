"""A folder and what lies below it, looked through once."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from jepa_lightning.names.printable import printable

_OF_SYSTEMS = {
    *("__macosx", "__pycache__", ".git", ".dvc", ".cache", ".ipynb_checkpoints", ".trash", ".trashes", ".thumbnails"),
    *(".spotlight-v100", ".fseventsd", ".appledouble", ".idea", ".vscode", ".venv"),
    *("@eadir", "lost+found", "$recycle.bin", "system volume information"),
}  # fmt: skip
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
        """Give the paths of the files that are read, in it and below it, each after `start`."""
        yield from (os.path.join(start, name) for name in self.files)
        for folder in self.folders:
            yield from folder.paths(os.path.join(start, folder.name))

    def sorted_paths(self, start: str = "") -> list[str]:
        """Give the same paths, sorted."""
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
        """Count by ending the files in and below it that could be data and are not read; notes and lists are not."""
        found = that_could_be_data(self.others)
        for folder in self.folders:
            found += folder.unread()
        return found


def that_could_be_data(endings: Counter[str]) -> Counter[str]:
    """Leave out of counted file name endings those of notes and lists, which lie beside data."""
    return Counter({ending: count for ending, count in endings.items() if ending not in _BESIDE_DATA})


def read_tree(base: str, fits: Callable[[str, str], bool]) -> tuple[Folder, list[str]]:
    """Read what lies in and below `base`, and in words what was not looked into.

    Each folder is read once, by its device and inode number: under its own name if it has one below `base`, or else
    under that of the first link to it. A link to a folder that it lies in is not followed. Hidden files and folders
    (`.x`, `__x`) are left out, and so is what is neither a file nor a folder. Hidden folders are named, except for
    those that systems make.

    Args:
        base: a folder.
        fits: whether a file is read, by its folder and its name.
    """
    reader = _Reader(base, fits)
    return reader.root, reader.said


class _Reader:
    """See `read_tree`."""

    def __init__(self, base: str, fits: Callable[[str, str], bool]) -> None:
        self.fits = fits
        self.root = Folder(base, os.path.basename(os.path.normpath(base)))
        self.said: list[str] = []
        self.seen = {_identity(base)}
        self.hidden: list[str] = []
        self.waiting = deque([self.root])
        self.links: deque[tuple[Folder, str]] = deque()
        self.above: list[tuple[Folder, Folder | None]] = [(self.root, None)]
        while self.waiting or self.links:
            if self.waiting:
                self.read(self.waiting.popleft())
                continue
            parent, name = self.links.popleft()  # after all folders have been read under their own names
            path = os.path.join(parent.path, name)
            if _identity(path) in self.seen or _lies_in(parent.path, path):
                self.said.append(f"left out: the link {self._name(path)}, to a folder that is read already")
            else:
                self.add(parent, name, path)
        if self.hidden:
            more = f" and {len(self.hidden) - 5} more" if len(self.hidden) > 5 else ""
            self.said.append(f"left out: {', '.join(self.hidden[:5])}{more}, which are hidden")
        for folder, parent_of in reversed(self.above):
            folder.folders.sort(key=lambda inner: inner.name)
            folder.count += len(folder.files)
            if parent_of is not None:
                parent_of.count += folder.count

    def read(self, folder: Folder) -> None:
        try:
            entries = sorted(os.scandir(folder.path), key=lambda entry: entry.name)
        except OSError as error:
            self.said.append(f"left out: {self._name(folder.path)}, which cannot be read ({error.strerror})")
            return
        for entry in entries:
            if entry.name.startswith((".", "__")):
                if entry.name.lower() not in _OF_SYSTEMS and _is(entry.is_dir):
                    self.hidden.append(self._name(entry.path))
                continue
            if _is(entry.is_dir):
                if entry.is_symlink():
                    self.links.append((folder, entry.name))
                elif entry.name.lower() not in _OF_SYSTEMS:
                    self.add(folder, entry.name, entry.path)
            elif self.fits(folder.path, entry.name):  # a pipe or a link to nothing, too: it is named when it is read
                folder.files.append(entry.name)
            else:
                folder.others[os.path.splitext(entry.name)[1].lower()] += 1

    def add(self, parent: Folder, name: str, path: str) -> None:
        identity = _identity(path)
        if identity in self.seen:  # the same folder, mounted twice
            return
        self.seen.add(identity)
        child = Folder(path, name)
        parent.folders.append(child)
        self.waiting.append(child)
        self.above.append((child, parent))

    def _name(self, path: str) -> str:
        return printable(os.path.relpath(path, self.root.path))


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link to itself
        return False


def _identity(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return -1, hash(path)
    return found.st_dev, found.st_ino


def _lies_in(folder: str, link: str) -> bool:
    target = os.path.join(os.path.realpath(link), "")
    return os.path.join(os.path.realpath(folder), "").startswith(target)
