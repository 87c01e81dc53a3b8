"""WebDataset shards as a stream: tar files whose members of one name before the first dot are a sample."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jepa_lightning.data.errors import DataError
from jepa_lightning.data.sources.fields import Fields
from jepa_lightning.data.sources.records import Encoded, Record
from jepa_lightning.data.sources.tar_files import choose_input, expand, read_labels
from jepa_lightning.data.streams.base import Stream, UnreadableRecord


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

    Examples:
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

    def read(self, shard: int) -> Iterator[Record | UnreadableRecord]:
        """Read the records of a shard. A damaged shard ends early, and is named."""
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
            yield UnreadableRecord(name, f"the shard ends early: {type(error).__name__}: {str(error) or 'truncated'}")

    def _record(self, sample: dict[str, Any], shard: str) -> Record | UnreadableRecord:
        key = sample["__key__"]
        files = {field: data for field, data in sample.items() if not field.startswith("__")}
        try:
            field = choose_input(list(files), self.fields)
            labels = read_labels(files, self.fields)
        except DataError:
            raise
        except ValueError as error:
            return UnreadableRecord(f"{shard}/{key}", f"ValueError: {error}")
        return Record(Encoded(f"{key}.{field}", files[field]), labels, f"{shard}/{key}")


def _open(url: str) -> Any:
    if "://" not in url:
        return open(url, "rb")
    import fsspec

    return fsspec.open(url, "rb", block_size=2**22).open()
