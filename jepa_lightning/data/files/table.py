"""Files listed in a CSV file, with labels in its columns."""

from __future__ import annotations

import csv
import io
import logging
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_lightning.data.errors import DataError
from jepa_lightning.data.files.file_list import FileList, nearest
from jepa_lightning.data.files.split_names import SPLITS, plain_split_of
from jepa_lightning.printable import printable

PATH_COLUMNS = ("path", "file", "filename", "video", "audio", "image")
LABEL_COLUMNS = ("label", "class")

_DELIMITERS = ",;\t|"
_MISSING = {"", "NA", "N/A", "n/a", "<NA>", "#N/A", "NaN", "nan", "-nan", "NULL", "null", "None"}  # as pandas has it
_WHOLE = re.compile(r"0|-?[1-9][0-9]*")
_DIGITS = re.compile(r"[+-]?[0-9]+")
_POINT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(inf|Inf|infinity|Infinity)")
_COMMA = re.compile(r"[+-]?([0-9]*|[0-9]{1,3}(\.[0-9]{3})+),[0-9]+([eE][+-]?[0-9]+)?|[+-]?[0-9]+")
_MANY = 20  # classes, from which on a column may be one of measured values

_CHECKED = 3  # files that are looked for at the start; more would be slow on a network disk
_log = logging.getLogger(__name__)
_Row = tuple[int, list[str]]  # line number, cells


def read_table(file: Path, *, root: Path, kind: str, labels: list[str] | None = None) -> dict[str, FileList]:
    """The files that a CSV file lists, by split. See `find_files` for the columns.

    Raises:
        DataError: what is wrong, with the line and the column.
    """
    header, rows = _rows(file)
    lower = [name.lower() for name in header]
    where = next((lower.index(name) for name in PATH_COLUMNS if name in lower), None)
    if where is None:
        raise DataError(
            f"expected in {file} a first line of column names with one of {', '.join(PATH_COLUMNS)}, got "
            f"{', '.join(header[:10])}: name the columns"
        )
    if not rows:
        raise DataError(f"expected {kind}s in {file}, got no line below the column names")
    paths = [_cell(file, row, header, where) for row in rows]
    parts = np.array(_splits(file, header, rows))
    if "train" not in parts:
        raise DataError(
            f"expected training rows in {file}, got only {', '.join(sorted(set(parts)))}: write train in the column "
            "split, or leave the column out"
        )
    chosen = _label_columns(file, header, labels, exclude=where)
    columns: dict[str, NDArray[Any]] = {}
    class_names: dict[str, list[str]] = {}
    for at in chosen:
        columns[header[at]], names = _column(file, header, rows, at)
        if names is not None:
            class_names[header[at]] = names
    primary = header[chosen[0]] if chosen else None
    _check_files(file, root, kind, rows, paths)
    sets = {}
    for split in ("train", "val", "test"):
        kept = np.flatnonzero(parts == split)
        if len(kept):
            sets[split] = FileList(
                root,
                [paths[i] for i in kept],
                name="",
                targets=columns[primary][kept] if primary in class_names else None,
                classes=class_names.get(primary or ""),
                labels={name: column[kept] for name, column in columns.items()},
                class_names=class_names,
            )
    return sets


def _rows(file: Path) -> tuple[list[str], list[_Row]]:
    text = _text(file)
    best: tuple[tuple[int, int, int], str, list[_Row]] | None = None
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
    """The file as text: UTF-8, or UTF-16 where it begins so; bytes that are neither are kept, as in names of files."""
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


def _cell(file: Path, row: _Row, header: list[str], at: int) -> str:
    if not row[1][at]:
        raise DataError(
            f"expected a value in line {row[0]}, column {header[at]}, of {file}, got an empty cell: fill it or remove "
            "the line"
        )
    return row[1][at]


def _splits(file: Path, header: list[str], rows: list[_Row]) -> list[str]:
    at = next((i for i, name in enumerate(header) if name.lower() == "split"), None)
    if at is None:
        return ["train"] * len(rows)
    found = []
    for row in rows:
        value = _cell(file, row, header, at)
        split = plain_split_of(value)
        if split is None:
            raise DataError(
                f"expected train, val or test in line {row[0]}, column {header[at]}, of {file}, got "
                f"{value!r}{nearest(value.lower(), SPLITS)}"
            )
        found.append(split)
    return found


def _label_columns(file: Path, header: list[str], labels: list[str] | None, *, exclude: int) -> list[int]:
    if labels is not None:
        for name in labels:
            if name not in header:
                raise DataError(
                    f"expected the label column {name!r} in {file}{nearest(name, header)}, got the columns "
                    f"{', '.join(header)}: check data.labels"
                )
        return [header.index(name) for name in labels]
    lower = [name.lower() for name in header]
    found = [lower.index(name) for name in LABEL_COLUMNS if name in lower][:1]
    others = [name for at, name in enumerate(header) if at != exclude and lower[at] != "split"]
    if not found and others:
        _log.warning(
            "%s has no column called label or class, so its files are unlabelled: set data.labels to use %s",
            file, ", ".join(others[:10]),
        )  # fmt: skip
    return found


def _column(file: Path, header: list[str], rows: list[_Row], at: int) -> tuple[NDArray[Any], list[str] | None]:
    """Values of a label column and, for classes, their names. A cell that is empty has no label: -1, or NaN."""
    cells = [row[1][at] for row in rows]
    numeric = _numbers(file, header[at], rows, cells)
    missing = {"", *(_MISSING if numeric is not None else ())}
    known = [cell not in missing for cell in cells]
    if not any(known):
        _cell(file, rows[0], header, at)
        raise DataError(
            f"expected a finite number in line {rows[0][0]}, column {header[at]}, of {file}, got {cells[0]}: "
            "give one or remove the line"
        )
    if not all(known):
        _log.info("%s, column %s: %d of %d rows have no label", file, header[at], known.count(False), len(known))
    if numeric is None:
        names = sorted({cell for cell, is_known in zip(cells, known, strict=True) if is_known})
        number = {name: index for index, name in enumerate(names)}
        values = np.array(
            [number.get(cell, -1) if is_known else -1 for cell, is_known in zip(cells, known, strict=True)]
        )
        _doubt(file, header[at], rows, cells, names)
        return values.astype(np.int64), [printable(name) for name in names]
    if all(isinstance(value, int) for value, is_known in zip(numeric, known, strict=True) if is_known):
        values, names = class_numbers([value if k else None for value, k in zip(numeric, known, strict=True)])  # type: ignore[misc]
        none = sum(value == -1 for value in numeric)
        if none and "-1" not in names:
            _log.warning(
                "%s, column %s: %d of %d rows have the label -1, which means none beside labels from 0 on",
                file, header[at], none, len(rows),
            )  # fmt: skip
        _doubt(file, header[at], rows, cells, names)
        return values, names
    for row, value, is_known in zip(rows, numeric, known, strict=True):
        if is_known and not math.isfinite(value or 0.0):
            raise DataError(
                f"expected a finite number in line {row[0]}, column {header[at]}, of {file}, got {row[1][at]}: "
                "give one or remove the line"
            )
    return np.array([math.nan if value is None else value for value in numeric], dtype=np.float32), None


def class_numbers(values: Sequence[int | None]) -> tuple[NDArray[np.int64], list[str]]:
    """Classes numbered from 0 without gaps, -1 for None, and their names, which are the whole numbers that they were.

    -1 means "no label", as in torchvision, where it is the only negative number beside two others or more. Else
    negative numbers are classes as any: of -1 and 1 there are two.
    """
    found = sorted({value for value in values if value is not None})
    if found[:1] == [-1] and len(found) > 2:
        found = found[1:]
    number = {value: index for index, value in enumerate(found)}
    return np.array([-1 if v is None else number.get(v, -1) for v in values], dtype=np.int64), [str(v) for v in found]


def _numbers(file: Path, name: str, rows: list[_Row], cells: list[str]) -> list[int | float | None] | None:
    """A column's cells as numbers, None for those that are missing; None where they are no numbers, but text.

    Whole numbers are ints if each is written as Python writes it (not 01, 1_1 or +1); a mixture of both is floats.
    """
    known = [cell for cell in cells if cell not in _MISSING]
    if not known:
        return None if all(cell == "" for cell in cells) else [None] * len(cells)
    if all(_WHOLE.fullmatch(cell) for cell in known):
        return [None if cell in _MISSING else int(cell) for cell in cells]
    if all(_DIGITS.fullmatch(cell) for cell in known):
        return None  # 01 and 1 are different names
    points = [bool(_POINT.fullmatch(cell)) for cell in known]
    if all(points):
        return [None if cell in _MISSING else float(cell) for cell in cells]
    commas = [bool(_COMMA.fullmatch(cell)) for cell in known]
    if all(commas):
        if all(re.fullmatch(r"[+-]?[0-9]{1,3},[0-9]{3}|[0-9]+", cell) for cell in known):
            raise DataError(
                f"expected numbers that can be read in one way in column {name} of {file}, got {known[0]}, which may "
                "be a thousand or a decimal comma: write them with a decimal point, or without a comma"
            )
        _log.info("%s, column %s: read with decimal commas", file, name)
        return [None if c in _MISSING else float(c.replace(".", "").replace(",", ".")) for c in cells]
    if all(map(any, zip(points, commas, strict=True))):
        both = [next(cell for cell, a in zip(known, kind, strict=True) if not a) for kind in (commas, points)]
        raise DataError(
            f"expected one decimal sign in column {name} of {file}, got {both[0]} and {both[1]}: write all "
            "numbers alike"
        )
    return None


def _doubt(file: Path, name: str, rows: list[_Row], cells: list[str], names: list[str]) -> None:
    """Say it where a column is perhaps none of classes."""
    numbers = sum(bool(_POINT.fullmatch(cell) or _COMMA.fullmatch(cell)) for cell in cells)
    words = next(
        (i for i, c in enumerate(cells) if c not in _MISSING and not (_POINT.fullmatch(c) or _COMMA.fullmatch(c))), None
    )
    if words is not None and numbers > len(cells) / 2 and any("." in cell or "," in cell for cell in cells):
        _log.warning(
            "%s, column %s: read as %d classes, since %r in line %d is no number",
            file,
            name,
            len(names),
            cells[words],
            rows[words][0],
        )
    elif len(names) >= _MANY and len(names) > len(cells) / 2:
        _log.warning(
            "%s, column %s: %d classes in %d rows; write numbers with a point (3.0) where they are measured values",
            file, name, len(names), len(cells),
        )  # fmt: skip


def _check_files(file: Path, root: Path, kind: str, rows: list[_Row], paths: list[str]) -> None:
    if not any(os.path.isfile(os.path.join(root, path)) for path in paths[:_CHECKED]):
        raise DataError(
            f"expected the {kind}s of {file}, but line {rows[0][0]} names {os.path.join(root, paths[0])}, where "
            f"there is no file (nor for the next ones): relative paths start from {root}; name another folder or "
            "correct the paths"
        )
