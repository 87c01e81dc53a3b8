"""The cells of a CSV file, whatever stands between them and however it is encoded."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path

from jepa_lightning.data.errors import DataError
from jepa_lightning.names.printable import printable

PATH_COLUMNS = ("path", "file", "filename", "video", "audio", "image")
Row = tuple[int, list[str]]
"""Line number and cells."""

_DELIMITERS = ",;\t|"
_log = logging.getLogger(__name__)


def read_rows(file: Path) -> tuple[list[str], list[Row]]:
    """Read the names of the columns, and the rows below them.

    Raises:
        DataError: the file cannot be read, is empty, or its rows have other numbers of cells.
    """
    text = _text(file)
    best: tuple[tuple[int, int, int], str, list[Row]] | None = None
    reason: csv.Error | None = None
    for rank, delimiter in enumerate(_DELIMITERS):
        try:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
        except csv.Error as error:
            reason = error
            continue
        lines = [(number, cells) for number, cells in lines if any(cells)]
        if lines:
            header = lines[0][1]
            fitting = sum(len(cells) == len(header) for _, cells in lines) == len(lines)
            named = any(name.lower() in PATH_COLUMNS for name in header)
            score = (named + (named and fitting), len(header), -rank)
            if best is None or score > best[0]:
                best = score, delimiter, lines
    if best is None:
        if reason is not None:
            raise DataError(f"expected a CSV file in UTF-8, cannot read {file}: {reason}") from reason
        raise DataError(f"expected a CSV file with a line of column names, got the empty file {file}")
    _, delimiter, lines = best
    header = [printable(name) for name in lines[0][1]]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"expected different column names in {file}, got {twice[0]!r} twice: rename one")
    for number, cells in lines[1:]:
        if len(cells) != len(header):
            raise DataError(
                f"expected {len(header)} cells in line {number} of {file}, as in its first line, got {len(cells)}: "
                f"a cell with a {delimiter!r} in it needs quotation marks"
            )
    return header, lines[1:]


def _text(file: Path) -> str:
    """Read the file as UTF-8, or UTF-16 where it begins so; bytes that are neither are kept, as in names of files."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"expected a CSV file in UTF-8, cannot read {file}: {error}") from error
    try:
        # Excel writes a byte order mark.
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        if b"\0" in data:
            raise DataError(f"expected a CSV file in UTF-8, cannot read {file}: {error}") from error
        _log.warning("%s is not in UTF-8 (%s): its bytes are taken as they are", file, error)
        return data.decode("utf-8", "surrogateescape")


def filled_cell(file: Path, row: Row, header: list[str], at: int) -> str:
    """Take a cell that must not be empty.

    Raises:
        DataError: it is.
    """
    if not row[1][at]:
        raise DataError(
            f"expected a value in line {row[0]}, column {header[at]}, of {file}, got an empty cell: fill it or remove "
            "the line"
        )
    return row[1][at]
