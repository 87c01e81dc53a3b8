"""A label column of a CSV file: classes, or numbers."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_lightning.data.errors import DataError
from jepa_lightning.data.files.csv_rows import Row, filled_cell
from jepa_lightning.names.printable import printable

_MISSING = {  # as pandas has it
    *("", "NA", "N/A", "n/a", "<NA>", "#NA", "#N/A", "#N/A N/A", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None"),
    *("1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
}
_LARGEST = float(np.finfo(np.float32).max)
_WHOLE = re.compile(r"0|-?[1-9][0-9]*")
_DIGITS = re.compile(r"[+-]?[0-9]+")
_POINT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(inf|Inf|infinity|Infinity)")
_COMMA = re.compile(r"[+-]?([0-9]*|[0-9]{1,3}(\.[0-9]{3})+),[0-9]+([eE][+-]?[0-9]+)?|[+-]?[0-9]+")
_MANY = 20  # classes, from which on a column may be one of measured values
_log = logging.getLogger(__name__)


def read_labels(file: Path, header: list[str], rows: list[Row], at: int) -> tuple[NDArray[Any], list[str] | None]:
    """Read the values of a label column and, for classes, their names. An empty cell is no label: -1, or NaN.

    Raises:
        DataError: a number is not finite, or can be read in two ways.
    """
    cells = [row[1][at] for row in rows]
    numeric = _numbers(file, header[at], rows, cells)
    missing = {"", *(_MISSING if numeric is not None else ())}
    known = [cell not in missing for cell in cells]
    if not any(known):
        filled_cell(file, rows[0], header, at)
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
        if is_known and abs(value or 0.0) > _LARGEST:
            raise DataError(
                f"expected a finite number, at most {_LARGEST:.3g}, in line {row[0]}, column {header[at]}, of {file}, "
                f"got {row[1][at]}: give one or remove the line"
            )
    levels = {value for value, is_known in zip(numeric, known, strict=True) if is_known}
    few = len(levels) < _MANY and 4 * len(levels) <= sum(known)
    if few and all(float(value or 0.0).is_integer() for value in levels):
        _log.warning(
            "%s, column %s: read as measured values, of which there are %d (%s); write whole numbers (1, not 1.0) "
            "where they are classes",
            file, header[at], len(levels), ", ".join(f"{value:g}" for value in sorted(levels)[:5]),  # type: ignore[type-var]
        )  # fmt: skip
    return np.array([math.nan if value is None else value for value in numeric], dtype=np.float32), None


def class_numbers(values: Sequence[int | None]) -> tuple[NDArray[np.int64], list[str]]:
    """Number classes from 0 without gaps, -1 for None, and give the whole numbers that they were as their names.

    -1 means "no label", as in torchvision, where it is the only negative number beside two others or more. Else
    negative numbers are classes as any: of -1 and 1 there are two.
    """
    found = sorted({value for value in values if value is not None})
    if found[:1] == [-1] and len(found) > 2:
        found = found[1:]
    number = {value: index for index, value in enumerate(found)}
    return np.array([-1 if v is None else number.get(v, -1) for v in values], dtype=np.int64), [str(v) for v in found]


def _numbers(file: Path, name: str, rows: list[Row], cells: list[str]) -> list[int | float | None] | None:
    """Read a column's cells as numbers, None for those that are missing; None where they are no numbers, but text.

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


def _doubt(file: Path, name: str, rows: list[Row], cells: list[str], names: list[str]) -> None:
    """Warn where a column of classes is perhaps one of numbers."""
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
