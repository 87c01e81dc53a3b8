"""Files listed in a CSV file, with labels in its columns."""

from __future__ import annotations

import csv
import logging
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_lightning.data.errors import DataError
from jepa_lightning.data.file_list import FileList, nearest
from jepa_lightning.data.split_names import SPLITS, plain_split_of

PATH_COLUMNS = ("path", "file", "filename", "video", "audio", "image")
LABEL_COLUMNS = ("label", "class")

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
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:  # Excel writes a byte order mark
            first = opened.readline()
            opened.seek(0)
            # A semicolon where the decimal point is a comma; a comma unless there are more of another.
            delimiter = max(",;\t", key=first.count)
            reader = csv.reader(opened, delimiter=delimiter, skipinitialspace=True)
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"expected a CSV file in UTF-8, cannot read {file}: {error}") from error
    lines = [(number, cells) for number, cells in lines if any(cells)]
    if not lines:
        raise DataError(f"expected a CSV file with a line of column names, got the empty file {file}")
    header = lines[0][1]
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
    """Values of a label column and, for classes, their names."""
    cells = [_cell(file, row, header, at) for row in rows]
    numbers = [_number(cell) for cell in cells]
    if all(isinstance(number, int) for number in numbers):
        values = np.array(numbers, dtype=np.int64)
        known, inverse = np.unique(values, return_inverse=True)
        names = [str(number) for number in known if number >= 0]
        # Numbered from 0 without gaps, whatever they were; -1 means "no label", as in torchvision.
        return np.maximum(inverse - int((known < 0).sum()), -1), names
    if any(number is None for number in numbers):
        known_names, inverse = np.unique(np.array(cells), return_inverse=True)
        return inverse.astype(np.int64), [str(name) for name in known_names]
    for row, number in zip(rows, numbers, strict=True):
        if not math.isfinite(number or 0.0):
            raise DataError(
                f"expected a finite number in line {row[0]}, column {header[at]}, of {file}, got {row[1][at]}: "
                "give one or remove the line"
            )
    return np.array(numbers, dtype=np.float32), None


def _number(cell: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return None


def _check_files(file: Path, root: Path, kind: str, rows: list[_Row], paths: list[str]) -> None:
    if not any(os.path.isfile(os.path.join(root, path)) for path in paths[:_CHECKED]):
        raise DataError(
            f"expected the {kind}s of {file}, but line {rows[0][0]} names {os.path.join(root, paths[0])}, where "
            f"there is no file (nor for the next ones): relative paths start from {root}; name another folder or "
            "correct the paths"
        )
