"""WebDataset shards: tar files whose members of one name before the first dot are a sample."""

from __future__ import annotations

import json
import math
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jepa_lightning.data.errors import DataError
from jepa_lightning.data.files.file_list import nearest
from jepa_lightning.data.sources.records import Encoded, Record, Records, label_value
from jepa_lightning.data.streams.base import Failed, Stream
from jepa_lightning.printable import printable

_SIDE = ("cls", "json", "txt", "id", "key", "index")  # fields that are no input unless they are asked for
_DAMAGED = (OSError, EOFError, ValueError, tarfile.TarError)
_SHELL = re.compile(r"^pipe:")


class Fields:
    """Which files of a sample are its input and its labels.

    Args:
        input: ending of the input's file; several, the first that is there: "jpg;png". None: the first file that is
            not cls, json, txt, id, key or index.
        labels: endings of files that hold a number or a class's name as text, or `json.KEY` for an entry of the
            sample's JSON file. None: cls, where it is there.
        classes: names of the classes, where labels are names.
    """

    def __init__(self, *, input: str | None, labels: Sequence[str] | None, classes: Sequence[str] | None) -> None:
        self.input = None if input is None else [name.strip().lower().lstrip(".") for name in input.split(";")]
        self.labels = labels
        self.classes = classes

    def choose(self, fields: Sequence[str]) -> str:
        """The input's field among those of a sample.

        Raises:
            ValueError: it is not there.
        """
        if self.input is None:
            chosen = next((field for field in fields if field not in (*_SIDE, *(self.labels or ()))), None)
        else:
            chosen = next((field for field in self.input if field in fields), None)
        if chosen is None:
            wanted = "an input" if self.input is None else " or ".join(self.input)
            raise ValueError(f"expected a file {wanted} in the sample, found {', '.join(fields) or 'none'}")
        return chosen

    def labels_of(self, files: Mapping[str, bytes]) -> dict[str, Any]:
        """The labels among the files of a sample.

        Raises:
            ValueError: one is missing.
            DataError: one is neither a number nor a class.
        """
        names = [name for name in ("cls",) if name in files] if self.labels is None else self.labels
        found = {}
        for name in names:
            key = name.removeprefix("json.")
            if name in files:
                value: Any = files[name].decode()
            elif name.startswith("json.") and "json" in files:
                entries = json.loads(files["json"])
                if key not in entries:
                    raise ValueError(f"expected an entry {key} in the JSON file{nearest(key, entries)}")
                value = entries[key]
            else:
                raise ValueError(f"expected a file {name} in the sample, found {', '.join(files)}")
            label = "label" if name == "cls" else key
            found[label] = label_value(value, name=label, classes=self.classes)
        return found


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

    Example:
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
                    name = self.fields.choose(list(members))
                    found = self.fields.labels_of(side)
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
        """The shard's name and the sample's: train-000000.tar/0001."""
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


class ShardStream(Stream):
    """The samples of tar files, each read from its beginning to its end: on disk or far away, compressed or not.

    Args:
        urls: paths or URLs of tar files; braces stand for numbers ("train-{000000..000099}.tar"), "::" joins several.
            What fsspec can open is read: http and https, and s3, gs, hf and others with their fsspec packages.
        input: which file of a sample is its input (`Fields`).
        labels: which files are its labels, the primary one first (`Fields`).
        classes: names of the classes, by number.
        shuffle_buffer: undecoded samples that wait in each worker; a random one comes next.

    Raises:
        DataError: webdataset is not installed, a file on disk is missing, or the URL names a shell command.

    Example:
        >>> import io, tarfile
        >>> from jepa_lightning.data import ShardStream
        >>> with tarfile.open("train-0.tar.gz", "w:gz") as tar:
        ...     for name in ("0.jpg", "0.cls", "1.jpg", "1.cls"):
        ...         info = tarfile.TarInfo(name)
        ...         info.size = 1
        ...         tar.addfile(info, io.BytesIO(name[:1].encode()))
        >>> stream = ShardStream("train-{0..0}.tar.gz", shuffle_buffer=1)
        >>> [record.labels for record in stream]
        [{'label': 0}, {'label': 1}]
    """

    def __init__(
        self,
        urls: str | list[str],
        *,
        input: str | None = None,
        labels: list[str] | None = None,
        classes: list[str] | None = None,
        shuffle_buffer: int = 1000,
    ) -> None:
        super().__init__(shuffle_buffer=shuffle_buffer)
        self.fields = Fields(input=input, labels=labels, classes=classes)
        self.classes = classes
        self.urls = expand(urls)

    @property
    def shards(self) -> int:
        """How many tar files there are."""
        return len(self.urls)

    def read(self, shard: int) -> Iterator[Record | Failed]:
        """The records of a shard. A damaged shard ends early, and is named."""
        from webdataset.tariterators import group_by_keys, tar_file_iterator

        url = self.urls[shard]
        name = url.rstrip("/").rpartition("/")[2]
        try:
            with _open(url) as file:
                members = ({**member, "__url__": url} for member in tar_file_iterator(file))
                for sample in group_by_keys(members):
                    yield self._record(sample, name)
        except DataError:
            raise
        except Exception as error:  # what remote file systems raise is their own business
            yield Failed(name, f"the shard ends early: {type(error).__name__}: {str(error) or 'truncated'}")

    def _record(self, sample: dict[str, Any], shard: str) -> Record | Failed:
        key = sample["__key__"]
        files = {field: data for field, data in sample.items() if not field.startswith("__")}
        try:
            field = self.fields.choose(list(files))
            labels = self.fields.labels_of(files)
        except DataError:
            raise
        except ValueError as error:
            return Failed(f"{shard}/{key}", f"ValueError: {error}")
        return Record(Encoded(f"{key}.{field}", files[field]), labels, f"{shard}/{key}")


def expand(urls: str | list[str]) -> list[str]:
    """The paths and URLs that a pattern, or a list of patterns, stands for.

    Raises:
        DataError: webdataset is not installed, a file on disk is missing, or a URL names a shell command.
    """
    try:
        from webdataset.shardlists import expand_urls
    except ImportError as error:
        raise DataError(f'shards need webdataset: pip install "jepa-lightning[shards]" ({error})') from error
    found = [url for pattern in ([urls] if isinstance(urls, str) else urls) for url in expand_urls(pattern)]
    if not found:
        raise DataError("expected urls of tar files, got none: set dataset.urls")
    paths = []
    for url in found:
        if _SHELL.match(url):  # a stored configuration must not run commands
            raise DataError(f"expected a path or a URL, got the shell command {url!r}: name the file's own URL")
        path = url.removeprefix("file://") if url.startswith("file://") else url
        if "://" not in path:
            path = str(Path(path).expanduser())
            if not Path(path).is_file():
                raise DataError(f"expected a tar file {url}, but there is none: check dataset.urls")
        paths.append(path)
    return paths


def _open(url: str) -> Any:
    if "://" not in url:
        return open(url, "rb")
    import fsspec

    return fsspec.open(url, "rb", block_size=2**22).open()


def _contents(path: str, fields: Fields) -> Iterator[tuple[str, dict[str, tuple[int, int]], dict[str, bytes]]]:
    """Key, place and size of each file, and the small files with labels, of each sample of an uncompressed tar file."""
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
                if field.lower() in _labels_among(fields):
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


def _labels_among(fields: Fields) -> set[str]:
    return {"json" if name.startswith("json.") else name for name in fields.labels or ()} or {"cls"}


def _targets(labels: list[dict[str, Any]], primary: str | None) -> np.ndarray | None:
    """Class of each sample, -1 where it is not known; None where the primary label is no class."""
    values = [label.get(primary) for label in labels] if primary is not None else []
    if not values or any(not isinstance(value, int | None) for value in values):
        return None
    return np.array([-1 if value is None else value for value in values], dtype=np.int64)
