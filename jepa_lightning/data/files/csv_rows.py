"""The cells of a CSV file, whatever stands between them and however it is encoded."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jepa_lightning.data.errors import DataError
from jepa_lightning.data.files.json_lines import JSON_LINES, Row, read_json_lines
from jepa_lightning.names.printable import printable

PATH_COLUMNS = ("path", "file", "filename", "video", "audio", "image")
_DELIMITERS = ",;\t|"
_log = logging.getLogger(__name__)


def read_rows(
    file: Path, columns: Sequence[str] = PATH_COLUMNS, *, names: list[str] | None = None
) -> tuple[list[str], list[Row]]:
    """Read the names of the columns, and the rows below them.

    Cells lie between commas, semicolons, tabs or |, perhaps in quotation marks; between tabs, a quotation mark that
    does not belong to a pair is a character as any other. Files of JSON lines (.jsonl, .ndjson, .json) are read, too.

    Args:
        file: the file.
        columns: names, in lower case, one of which is expected: they tell what stands between cells.
        names: of the columns, for a file whose first line is a row as any other.

    Raises:
        DataError: the file cannot be read, is empty, or its rows have other numbers of cells.
    """
    text = _text(file)
    if file.suffix.lower() in JSON_LINES:
        return read_json_lines(file, text)
    best: tuple[tuple[int, int, int], str, _Cut] | None = None
    reason: csv.Error | None = None
    for rank, delimiter in enumerate(_DELIMITERS):
        try:
            cut = _parse(text, delimiter)
        except csv.Error as error:
            reason = error
            continue
        if delimiter == "\t" and '"' in text:  # where one opens a cell and is never closed, it swallows what follows
            plain = _parse(text, delimiter, quoting=csv.QUOTE_NONE).rows
            if len(plain) > len(cut.rows) and {len(cells) for _, cells in plain} == {len(plain[0][1])}:
                doubt = "they enclose line breaks, but are read as characters, so that each line is a row"
                if cut.doubt or cut.unclosed:
                    doubt = ""
                cut = _Cut(plain, doubt)
        if cut.rows:
            header = names or cut.rows[0][1]
            fitting = all(len(cells) == len(header) for _, cells in cut.rows)
            named = bool(names) or any(name.lower() in columns for name in header)
            score = (named + (named and fitting), len(header) if names is None else 0, -rank)
            if best is None or score > best[0]:
                best = score, delimiter, cut
    if best is None:
        if reason is not None:
            raise DataError(f"expected a CSV file in UTF-8, cannot read {file}: {reason}") from reason
        raise DataError(f"expected a CSV file with a line of column names, got the empty file {file}")
    _, delimiter, cut = best
    if cut.unclosed:
        raise DataError(
            f"expected quotation marks in pairs in {file}, got one in line {cut.unclosed} that is never closed: close "
            "it, or write the cell in quotation marks and the one within it twice"
        )
    if cut.doubt:
        _log.warning("%s: quotation marks in doubt: %s", file, cut.doubt)
    lines = cut.rows
    header = [printable(name) for name in names or lines.pop(0)[1]]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"expected different column names in {file}, got {twice[0]!r} twice: rename one")
    for number, cells in lines:
        if len(cells) != len(header):
            like = "as there are names of columns" if names else "as in its first line"
            raise DataError(
                f"expected {len(header)} cells in line {number} of {file}, {like}, got {len(cells)}: "
                f"a cell with a {delimiter!r} in it needs quotation marks"
            )
    return header, lines


@dataclass
class _Cut:
    """The lines of a text that are not empty, cut into cells.

    Attributes:
        rows: the lines.
        doubt: what is odd about quotation marks, and how they were read.
        unclosed: the line of a quotation mark that is never closed; 0 for none.
    """

    rows: list[Row]
    doubt: str = ""
    unclosed: int = 0


def _parse(text: str, delimiter: str, *, quoting: int = csv.QUOTE_MINIMAL) -> _Cut:
    """Cut a text into lines and cells.

    Raises:
        csv.Error: the module csv gives up.
    """
    limit = csv.field_size_limit(2**31 - 1)  # of a cell: a text may be longer than its 131072; for the whole process
    found = _Cut([])
    try:
        for strict in (True, False):
            lines = io.StringIO(text, newline="")
            reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, quoting=quoting, strict=strict)  # type: ignore[arg-type]
            found.rows, last = [], 0
            try:
                for cells in reader:
                    last = reader.line_num
                    cells = [cell.strip() for cell in cells]
                    if any(cells):
                        found.rows.append((last, cells))
                break
            except csv.Error as error:
                if not strict:
                    raise
                if "end of data" in str(error):
                    found.unclosed = last + 1
                else:
                    found.doubt = (
                        f"one within a quoted cell of line {reader.line_num} is not doubled, so it ends the cell"
                    )
    finally:
        csv.field_size_limit(limit)
    return found


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
