"""Which part of a stored sample is its input, and which are its labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from jepa_lightning.data.errors import DataError
from jepa_lightning.names.nearest import did_you_mean


@dataclass(frozen=True)
class Fields:
    """Name the input and the labels among the fields of a sample: columns of a table, or files of a shard.

    Attributes:
        input: the input's column, or the ending of its file; several endings, the first that is there: "jpg;png".
            None: the first column of images, audio or videos, or the only one that is no label; the first file that
            is not cls, json, txt, id, key or index.
        labels: label columns, the primary one first, or endings of files that hold a number or a class's name as text,
            or `json.KEY` for an entry of the sample's JSON file. None: columns of classes, or label; the file cls.
        classes: names of the classes, by number, where a label is a text.
    """

    input: str | None = None
    labels: Sequence[str] | None = None
    classes: list[str] | None = None


def label_value(value: Any, *, name: str, classes: Sequence[str] | None) -> Any:
    """Turn a label into a number: a text is one, or names one of the classes.

    Raises:
        DataError: it is neither.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if classes is not None and text in classes:
        return list(classes).index(text)
    if re.fullmatch(r"[+-]?[0-9]+", text):  # not 1_1, which Python takes for 11
        return int(text)
    with suppress(ValueError):
        return float("" if "_" in text else text)
    if classes is not None:
        raise DataError(f"expected label {name!r} to be one of the classes, got {text!r}{did_you_mean(text, classes)}")
    raise DataError(
        f"expected label {name!r} to be a number, got {text!r}: list the names in dataset.classes, or leave it out of "
        "dataset.labels"
    )
