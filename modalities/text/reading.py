"""Texts from files and bytes, in any Unicode encoding that says so."""

from __future__ import annotations

from pathlib import Path

from jepa_lightning.data import Encoded
from jepa_lightning.data.files.file_list import regular_file

EXTENSIONS = (".txt", ".text", ".md")
"""File name endings of texts in folders."""

LARGEST = 2**28  # bytes of a file that is one text
_MARKS = ((b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


def decode(file: str | Encoded) -> str:
    """Decode a file, or the bytes of a text in a shard or a table.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no text.
    """
    return to_text(file.data) if isinstance(file, Encoded) else read_text(file)


def to_text(data: bytes) -> str:
    """Decode UTF-8, or UTF-16 and UTF-32 where a byte order mark says so; a byte that is none is taken as Latin-1.

    Raises:
        ValueError: it is binary data.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8-sig")
    if encoding == "utf-8-sig" and b"\0" in data[:4096]:
        raise ValueError("expected a text, got binary data")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        if encoding != "utf-8-sig":
            raise
        return data.decode("latin-1")


def read_text(path: str) -> str:
    """Read a file that is one text.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no text, or larger than 256 MiB.
    """
    path = regular_file(path)
    with open(path, "rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(
            f"expected a text of at most {LARGEST} bytes in a file: write one text a line, in one .txt file"
        )
    return to_text(data)


def read_lines(path: Path) -> list[str]:
    """Read a file of one text a line.

    Raises:
        OSError, ValueError: as `read_text`, without a limit.
    """
    return to_text(Path(regular_file(str(path))).read_bytes()).splitlines()


def without_surrogates(text: str) -> str:
    """Replace by question marks what UTF-8 cannot write: halves of characters, and bytes that were no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text
