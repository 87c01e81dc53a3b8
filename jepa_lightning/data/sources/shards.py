"""WebDataset shards in any order: tar files whose members of one name before the first dot are a sample."""

from __future__ import annotations

import math
import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jepa_lightning.data.errors import DataError
from jepa_lightning.data.sources.fields import Fields
from jepa_lightning.data.sources.records import Encoded, Record, Records
from jepa_lightning.data.sources.tar_files import choose_input, expand, label_members, read_labels
from jepa_lightning.names.printable import printable

_DAMAGED = (OSError, EOFError, ValueError, tarfile.TarError)


class Shards(Records):
    """The samples of tar files on this machine's disks, in any order, as any dataset: with a length and indices.

    The files' tables of contents and their labels are read once, at the start. For data far away, and where reading
    from a disk at random places is slow, `ShardStream` reads the same shards from their beginning to their end.

    Args:
        urls: paths of tar files; braces stand for numbers ("train-{000000..000099}.tar"), "::" joins several.
        input: which file of a sample is its input (`Fields`).
        labels: which files are its labels, the primary one first (`Fields`).
        classes: names of the classes, by number.

    Raises:
        DataError: webdataset is not installed; a file is missing, damaged or compressed; there are no samples.

    Examples:
        >>> import io, tarfile
        >>> from jepa_lightning.data import Shards
        >>> with tarfile.open("train-0.tar", "w") as tar:
        ...     for name in ("0.jpg", "0.cls", "1.jpg", "1.cls"):
        ...         info = tarfile.TarInfo(name)
        ...         info.size = 1
        ...         tar.addfile(info, io.BytesIO(name[:1].encode()))
        >>> shards = Shards("train-{0..0}.tar")
        >>> len(shards), shards[1].labels, shards[1].input.name
        (2, {'label': 1}, '1.jpg')
    """

    def __init__(
        self,
        urls: str | list[str],
        *,
        input: str | None = None,
        labels: list[str] | None = None,
        classes: list[str] | None = None,
    ) -> None:
        self.fields = Fields(input=input, labels=labels, classes=classes)
        self.classes = classes
        self.paths = expand(urls)
        far = next((path for path in self.paths if "://" in path), None)
        if far is not None:
            raise DataError(f"expected shards on this machine's disks, got {far}: take ShardStream in place of Shards")
        self._files: dict[int, BinaryIO] = {}
        self._process = os.getpid()
        keys: list[bytes] = []
        names: list[bytes] = []
        spans: list[tuple[int, int, int]] = []
        self._labels: list[dict[str, Any]] = []
        self.unreadable: dict[int, str] = {}
        for shard, path in enumerate(self.paths):
            for key, members, side in _contents(path, self.fields):
                keys.append(os.fsencode(key))
                found: dict[str, Any] = {}
                name = ""
                try:
                    name = choose_input(list(members), self.fields)
                    found = read_labels(side, self.fields)
                except DataError:
                    raise
                except ValueError as error:
                    self.unreadable[len(keys) - 1] = f"ValueError: {error}"
                names.append(name.encode())
                spans.append((shard, *members.get(name, (0, 0))))
                self._labels.append(found)
        if not keys:
            raise DataError(f"expected samples in {urls}, found none: check that the files are WebDataset shards")
        # Arrays, not lists of strings: reference counts would copy a list into every worker.
        self._keys, self._names, self._spans = np.array(keys), np.array(names), np.array(spans)
        primary = next((next(iter(labels)) for labels in self._labels if labels), None)
        self.targets = _targets(self._labels, primary)
        self._labels = [] if primary is None else self._labels
        example = next((value for labels in self._labels for value in labels.values()), None)
        self._without = {} if primary is None else {primary: math.nan if isinstance(example, float) else -1}

    def __len__(self) -> int:
        return len(self._keys)

    def sample_id(self, index: int) -> str:
        """Name sample `index` by the shard's name and its own: train-000000.tar/0001."""
        return printable(f"{Path(self.paths[self._spans[index][0]]).name}/{os.fsdecode(self._keys[index])}")

    def __getitem__(self, index: int) -> Record:
        if index in self.unreadable:
            raise ValueError(self.unreadable[index].partition(": ")[2])
        shard, start, size = self._spans[index].tolist()
        if self._process != os.getpid():  # a worker must not share a file's position with others
            self._files, self._process = {}, os.getpid()
        if shard not in self._files:
            if len(self._files) >= 64:
                self._files.pop(next(iter(self._files))).close()
            self._files[shard] = open(self.paths[shard], "rb")  # noqa: SIM115
        data = os.pread(self._files[shard].fileno(), size, start)
        if len(data) < size:
            raise OSError("the shard is truncated")
        name = f"{os.fsdecode(self._keys[index])}.{self._names[index].decode()}"
        labels = (self._labels[index] or self._without) if self._labels else {}
        return Record(Encoded(name, data), labels, self.sample_id(index))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}


def _contents(path: str, fields: Fields) -> Iterator[tuple[str, dict[str, tuple[int, int]], dict[str, bytes]]]:
    """Find key, place and size of each file, and the small files with labels, of each sample of a plain tar file."""
    from webdataset.tariterators import base_plus_ext

    key: str | None = None
    members: dict[str, tuple[int, int]] = {}
    side: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                prefix, field = base_plus_ext(member.name)
                if not member.isreg() or prefix is None or re.match("__[^/]*__(/|$)", member.name):
                    continue
                if prefix != key:
                    if key is not None:
                        yield key, members, side
                    key, members, side = prefix, {}, {}
                members[field.lower()] = (member.offset_data, member.size)
                if field.lower() in label_members(fields):
                    file = tar.extractfile(member)
                    side[field.lower()] = b"" if file is None else file.read()
                tar.members = []  # type: ignore[attr-defined]  # which it would keep
    except _DAMAGED as error:
        with suppress(tarfile.TarError, OSError, EOFError), tarfile.open(path, "r:*"):
            if key is None:
                raise DataError(
                    f"expected plain tar files, got {path}, which is compressed: take ShardStream"
                ) from None
        raise DataError(f"expected a whole tar file, got {path}: {error}: repair it, or take ShardStream") from error
    if key is not None:
        yield key, members, side


def _targets(labels: list[dict[str, Any]], primary: str | None) -> np.ndarray | None:
    """Find the class of each sample, -1 where it is not known; None where the primary label is no class."""
    values = [label.get(primary) for label in labels] if primary is not None else []
    if not values or any(not isinstance(value, int | None) for value in values):
        return None
    return np.array([-1 if value is None else value for value in values], dtype=np.int64)
