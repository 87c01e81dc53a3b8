"""Files listed in a CSV file, with labels in its columns."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_lightning.data.errors import DataError
from jepa_lightning.data.files.csv_labels import read_labels
from jepa_lightning.data.files.csv_rows import PATH_COLUMNS, Row, filled_cell, read_rows
from jepa_lightning.data.files.file_list import FileList
from jepa_lightning.data.files.split_names import SPLITS, plain_split_of, split_of
from jepa_lightning.names.nearest import did_you_mean
from jepa_lightning.names.printable import printable

LABEL_COLUMNS = ("label", "class")

_CHECKED = 3  # files that are looked for at the start; more would be slow on a network disk
_log = logging.getLogger(__name__)


@dataclass
class Column:
    """The inputs of one split in a table, with their labels.

    Attributes:
        cells: of the input's column.
        lines: where they stand.
        targets: class of each, or None.
        classes: names of the classes of `targets`, or None.
        labels: label columns by name.
        class_names: names of the classes, for each label column that holds classes.
    """

    cells: list[str]
    lines: list[int]
    targets: NDArray[np.int64] | None
    classes: list[str] | None
    labels: dict[str, NDArray[Any]]
    class_names: dict[str, list[str]]


def read_table(file: Path, *, root: Path, kind: str, labels: list[str] | None = None) -> dict[str, FileList]:
    """List the files that a CSV file names, by split. See `find_files` for the columns.

    Raises:
        DataError: what is wrong, with the line and the column.
    """
    found = read_column({"": file}, kind=kind, names=PATH_COLUMNS, labels=labels)
    _check_files(file, root, kind, list(found.values()))
    return {
        split: FileList(
            root,
            column.cells,
            name="",
            targets=column.targets,
            classes=column.classes,
            labels=column.labels,
            class_names=column.class_names,
        )
        for split, column in found.items()
    }


def read_column(
    files: Mapping[str, Path],
    *,
    kind: str,
    names: Sequence[str],
    labels: list[str] | None = None,
    header: list[str] | None = None,
    empty: bool = False,
) -> dict[str, Column]:
    """Read a column of inputs and the labels beside it, by split: "train", and "val" and "test" where they exist.

    Args:
        files: a table for each split; or one table under "", whose column `split` says which.
        kind: what the inputs are, for errors.
        names: of the column of inputs, in lower case; the first that is there.
        labels: label columns, the primary one first; None: label, or class.
        header: names of the columns, for tables whose first line is a row as any other.
        empty: whether an input may be empty.

    Raises:
        DataError: what is wrong, with the line and the column.
    """
    tables = {split: read_rows(file, names, names=header) for split, file in files.items()}
    file, columns = next(iter(files.values())), next(iter(tables.values()))[0]
    where = first_column(file, columns, names)
    for split, (others, _) in tables.items():
        if others != columns:
            raise DataError(
                f"expected the columns {', '.join(columns[:10])} in {files[split]}, as in {file}, got "
                f"{', '.join(others[:10])}: name them alike"
            )
    rows = [row for _, of_table in tables.values() for row in of_table]
    if not rows:
        raise DataError(f"expected {kind}s in {file}, got no line below the column names")
    cells = [row[1][where] if empty else filled_cell(file, row, columns, where) for row in rows]
    if "" in files:
        parts = np.array(splits_of(file, columns, rows))
    else:
        parts = np.repeat(list(tables), [len(of_table) for _, of_table in tables.values()])
    if "train" not in parts:
        raise DataError(
            f"expected training rows in {file}, got only {', '.join(sorted(set(parts)))}: write train in the column "
            "split, or leave the column out"
        )
    chosen = _label_columns(file, columns, labels, exclude=where)
    values: dict[str, NDArray[Any]] = {}
    class_names: dict[str, list[str]] = {}
    for at in chosen:
        values[columns[at]], found = read_labels(file, columns, rows, at)
        if found is not None:
            class_names[columns[at]] = found
    primary = columns[chosen[0]] if chosen else None
    return {
        split: Column(
            cells=[cells[i] for i in kept],
            lines=[rows[i][0] for i in kept],
            targets=values[primary][kept] if primary in class_names else None,
            classes=class_names.get(primary or ""),
            labels={name: column[kept] for name, column in values.items()},
            class_names=class_names,
        )
        for split in ("train", "val", "test")
        if len(kept := np.flatnonzero(parts == split))
    }


def first_column(file: Path, header: list[str], names: Sequence[str]) -> int:
    """Find the column of the first of these names, in lower case, that there is.

    Raises:
        DataError: there is none of them.
    """
    for wanted in names:
        for at, name in enumerate(header):
            if name.lower() == wanted:
                return at
    raise DataError(
        f"expected in {file} a first line of column names with one of {', '.join(names)}, got "
        f"{', '.join(header[:10])}: name the columns"
    )


def named_column(file: Path, header: list[str], name: str, *, what: str, setting: str) -> int:
    """Find the column of exactly this name, which a setting gave.

    Raises:
        DataError: there is none; the message names what it is and the setting.
    """
    if name in header:
        return header.index(name)
    raise DataError(
        f"expected the {what} {name!r} in {file}{did_you_mean(name, header)}, got the columns "
        f"{', '.join(header[:10])}: check {setting}"
    )


def splits_of(file: Path, header: list[str], rows: list[Row]) -> list[str]:
    """Read the column `split` of each row: train, val or test; all train where there is no such column.

    Raises:
        DataError: a cell holds something else.
    """
    at = next((i for i, name in enumerate(header) if name.lower() == "split"), None)
    if at is None:
        _name_splits(file, header, rows)
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


def _name_splits(file: Path, header: list[str], rows: list[Row]) -> None:
    """Warn of a column of another name that holds nothing but names of splits, with some for training."""
    for at, name in enumerate(header):
        if split_of(rows[0][1][at]) is not None:
            values = sorted({row[1][at] for row in rows})
            splits = {None if (found := split_of(value)) is None else found[0] for value in values}
            if len(splits) > 1 and "train" in splits and None not in splits:
                _log.warning(
                    "%s: all rows are training data, although column %s holds names of splits (%s): call it split to "
                    "use it, with train, val and test",
                    file, name, ", ".join(printable(value) for value in values[:5]),
                )  # fmt: skip


def _label_columns(file: Path, header: list[str], labels: list[str] | None, *, exclude: int) -> list[int]:
    if labels is not None:
        return [named_column(file, header, name, what="label column", setting="data.labels") for name in labels]
    lower = [name.lower() for name in header]
    found = [lower.index(name) for name in LABEL_COLUMNS if name in lower][:1]
    others = [name for at, name in enumerate(header) if at != exclude and lower[at] != "split"]
    if not found and others:
        _log.warning(
            "%s has no column called label or class, so its files are unlabelled: set data.labels to use %s",
            file, ", ".join(others[:10]),
        )  # fmt: skip
    return found


def _check_files(file: Path, root: Path, kind: str, found: list[Column]) -> None:
    places = sorted((line, path) for column in found for line, path in zip(column.lines, column.cells, strict=True))
    if not any(os.path.isfile(os.path.join(root, path)) for _, path in places[:_CHECKED]):
        line, path = places[0]
        raise DataError(
            f"expected the {kind}s of {file}, but line {line} names {os.path.join(root, path)}, where "
            f"there is no file (nor for the next ones): relative paths start from {root}; name another folder or "
            "correct the paths"
        )
