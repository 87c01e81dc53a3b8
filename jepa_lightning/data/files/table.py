"""Files listed in a CSV file, with labels in its columns."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_lightning.data.errors import DataError
from jepa_lightning.data.files.csv_labels import read_labels
from jepa_lightning.data.files.csv_rows import PATH_COLUMNS, Row, filled_cell, read_rows
from jepa_lightning.data.files.file_list import FileList
from jepa_lightning.data.files.split_names import SPLITS, plain_split_of
from jepa_lightning.names.nearest import did_you_mean

LABEL_COLUMNS = ("label", "class")

_CHECKED = 3  # files that are looked for at the start; more would be slow on a network disk
_log = logging.getLogger(__name__)


def read_table(file: Path, *, root: Path, kind: str, labels: list[str] | None = None) -> dict[str, FileList]:
    """List the files that a CSV file names, by split. See `find_files` for the columns.

    Raises:
        DataError: what is wrong, with the line and the column.
    """
    header, rows = read_rows(file)
    lower = [name.lower() for name in header]
    where = next((lower.index(name) for name in PATH_COLUMNS if name in lower), None)
    if where is None:
        raise DataError(
            f"expected in {file} a first line of column names with one of {', '.join(PATH_COLUMNS)}, got "
            f"{', '.join(header[:10])}: name the columns"
        )
    if not rows:
        raise DataError(f"expected {kind}s in {file}, got no line below the column names")
    paths = [filled_cell(file, row, header, where) for row in rows]
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
        columns[header[at]], names = read_labels(file, header, rows, at)
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


def _splits(file: Path, header: list[str], rows: list[Row]) -> list[str]:
    at = next((i for i, name in enumerate(header) if name.lower() == "split"), None)
    if at is None:
        return ["train"] * len(rows)
    found = []
    for row in rows:
        value = filled_cell(file, row, header, at)
        split = plain_split_of(value)
        if split is None:
            raise DataError(
                f"expected train, val or test in line {row[0]}, column {header[at]}, of {file}, got "
                f"{value!r}{did_you_mean(value.lower(), SPLITS)}"
            )
        found.append(split)
    return found


def _label_columns(file: Path, header: list[str], labels: list[str] | None, *, exclude: int) -> list[int]:
    if labels is not None:
        for name in labels:
            if name not in header:
                raise DataError(
                    f"expected the label column {name!r} in {file}{did_you_mean(name, header)}, got the columns "
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


def _check_files(file: Path, root: Path, kind: str, rows: list[Row], paths: list[str]) -> None:
    if not any(os.path.isfile(os.path.join(root, path)) for path in paths[:_CHECKED]):
        raise DataError(
            f"expected the {kind}s of {file}, but line {rows[0][0]} names {os.path.join(root, paths[0])}, where "
            f"there is no file (nor for the next ones): relative paths start from {root}; name another folder or "
            "correct the paths"
        )
