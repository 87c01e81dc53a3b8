"""Writing files: as a whole or not at all, as JSON without NaN; where one cannot be written, the error says which."""

from __future__ import annotations

import math
import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

UNFINISHED = ".unfinished"  # ends the name of a file or folder that is being written


@contextmanager
def named(path: str | Path) -> Iterator[None]:
    """Inside, a failure to write is an OSError that names `path`.

    Python leaves the name out where a file is open already, and torch and safetensors make other errors of a full disk.
    """
    try:
        yield
    except Exception as error:
        cause = os_error(error)
        if cause is None or (cause is error and cause.filename is not None):
            raise
        raise OSError(cause.errno, cause.strerror, str(path)) from error


@contextmanager
def replacing(
    path: Path, *, unique: bool = False, move: Callable[[Path, Path], object] | None = None
) -> Iterator[Path]:
    """Give a path beside `path` to write to, and move it there at the end: what was there stays until then.

    Args:
        path: of the file.
        unique: give each writer a path of its own, for files that several processes write at once.
        move: how the finished file takes its place; None: by `os.replace`.

    Raises:
        OSError: it could not be written; nothing is left of it.
    """
    beside = unfinished(path, mark=f".{uuid.uuid4().hex}" if unique else "")
    try:
        with named(path):
            yield beside
            (move or os.replace)(beside, path)
    except BaseException:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def unfinished(path: Path, *, mark: str = "") -> Path:
    """Name where a file is written before it becomes `path`."""
    return path.with_name(f".{path.name}{mark}{UNFINISHED}")


def plain(value: Any, *, digits: int | None = None) -> Any:
    """Turn a value into what JSON knows: NaN and infinity, which it does not know, are null.

    Args:
        value: numbers, texts, arrays, and mappings and sequences of them; of anything else, its text.
        digits: significant digits of floats; None: all.
    """
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return value if digits is None else float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        return {str(key): plain(item, digits=digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, digits=digits) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist(), digits=digits)
    return value if isinstance(value, str | int | bool) or value is None else str(value)


def os_error(error: BaseException | None) -> OSError | None:
    """Find the operating system's error behind another; None where there is none."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error
        number = re.search(r"\bos error (\d+)|\[Errno (\d+)\]", str(error), re.IGNORECASE)
        if number:
            code = int(number[1] or number[2])
            return OSError(code, os.strerror(code))
        error = error.__cause__ or error.__context__
    return None
