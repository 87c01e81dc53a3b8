"""The cells of a file of JSON lines: one object a line, its keys are the columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jepa_lightning.data.errors import DataError
from jepa_lightning.names.printable import printable

JSON_LINES = (".jsonl", ".ndjson", ".json")
Row = tuple[int, list[str]]
"""Line number and cells."""


def read_json_lines(file: Path, text: str) -> tuple[list[str], list[Row]]:
    """Read the names of the columns, and the rows, as `read_rows` reads those of a CSV file.

    A key that a line lacks, and null, are an empty cell; numbers, true and false are written as JSON writes them; a
    list or an object is kept as JSON. A file that is one list of objects is read likewise, its numbers being those of
    the objects.

    Args:
        file: for messages.
        text: what is in it.

    Raises:
        DataError: a line is no JSON object, or there is none.
    """
    found = list(_objects(file, text))
    if not found:
        raise DataError(f"expected lines of JSON objects, got the empty file {file}")
    header = list(dict.fromkeys(key for _, entry in found for key in entry))
    return [printable(key) for key in header], [
        (number, [_cell(entry.get(key)) for key in header]) for number, entry in found
    ]


def _objects(file: Path, text: str) -> list[tuple[int, dict[str, Any]]]:
    if text.lstrip().startswith("["):
        try:
            entries = list(enumerate(json.loads(text), start=1))
        except ValueError as error:
            raise DataError(f"expected a list of JSON objects in {file}: {error}") from None
    else:
        entries = []
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                try:
                    entries.append((number, json.loads(line)))
                except (ValueError, RecursionError) as error:
                    raise DataError(f"expected a JSON object in line {number} of {file}: {error}") from None
    for number, entry in entries:
        if not isinstance(entry, dict):
            kind = type(entry).__name__
            raise DataError(f'expected a JSON object such as {{"text": ...}} in line {number} of {file}, got a {kind}')
    return entries


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value.strip() if isinstance(value, str) else json.dumps(value)
