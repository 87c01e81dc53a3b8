"""Files that cannot be written: whoever writes them, the error says which file, and why."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


def os_error(error: BaseException | None) -> OSError | None:
    """The operating system's error behind another; None where there is none."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error
        number = re.search(r"\bos error (\d+)|\[Errno (\d+)\]", str(error), re.IGNORECASE)
        if number:
            code = int(number[1] or number[2])
            return OSError(code, os.strerror(code))
        error = error.__cause__ or error.__context__
    return None
