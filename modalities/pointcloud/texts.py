"""Clouds in text files, as LiDAR and 3D programmes write them."""

from __future__ import annotations

import re
from itertools import islice

import numpy as np
from numpy.typing import NDArray

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?|[+-]?[0-9]+")
_LOOKED_AT = 50  # lines that tell how numbers are written


def read_text(path: str) -> NDArray[np.float64]:
    """The numbers in a file, a line a point, (n, columns).

    Between them lie blanks, tabs, commas, semicolons or |; with blanks or semicolons, the decimal sign may be a comma.
    Left out are a byte order mark, comments (#, //), a first line of names (x,y,z) and the line with the number of
    points that .pts files begin with.

    Raises:
        OSError: there are no points, or another number of them than the file says.
        ValueError: a line holds something else than numbers, or another number of them.
    """
    with open(path, encoding="utf-8-sig") as file:
        lines = [line for raw in file if (line := raw.split("#")[0].split("//")[0].strip(" \t\r\n\0"))]
    lines = _plain(lines)
    if lines and not any(_NUMBER.fullmatch(word) for word in lines[0].split()):
        del lines[0]  # names of the columns
    if not lines:
        raise OSError("there are no points in it")
    said = lines[0].split()
    if len(said) == 1 and said[0].isdigit() and (len(lines) == 1 or len(lines[1].split()) >= 3):
        del lines[0]
        if int(said[0]) != len(lines):
            raise OSError(f"it says that it holds {said[0]} points, and {len(lines)} are there: it is cut, or damaged")
    return np.loadtxt(lines, ndmin=2)


def _plain(lines: list[str]) -> list[str]:
    """The lines with blanks between numbers and decimal points in them."""
    some = list(islice(lines, _LOOKED_AT))
    separator = next((sign for sign in ";|\t" if any(sign in line for line in some)), None)
    if separator is not None:
        cells = [[cell.strip() for cell in line.strip(separator).split(separator)] for line in some]
    else:
        cells = [re.sub(r",\s+", " ", line).split() for line in some]
    rows = [row for row in cells if any(_DECIMAL_COMMA.fullmatch(cell) or _NUMBER.fullmatch(cell) for cell in row)]
    points = [row for row in rows if len(row) > 1]  # without the number of points
    decimal = (
        any("," in cell for row in points for cell in row)
        and all(len(row) >= 3 for row in points)
        and all(_DECIMAL_COMMA.fullmatch(cell) for row in points for cell in row if cell)
    )
    table = str.maketrans({",": "." if decimal else " ", ";": " ", "|": " ", "\t": " "})
    if decimal and separator is None:
        return [re.sub(r",\s+", " ", line).translate(table) for line in lines]
    return [line.translate(table) for line in lines]
