"""What a command prints, to a reader who may leave."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class ClosableOutput:
    """A stream whose reader may leave: what is written then is lost, and nothing else happens.

    Args:
        stream: the one to write to.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, if anyone reads."""
        try:
            return int(self._stream.write(text) or 0)
        except BrokenPipeError:
            self._leave()
            return len(text)

    def flush(self) -> None:
        """Flush, if anyone reads."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._leave()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _leave(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)  # else Python complains once more when it exits
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


@contextmanager
def readers_may_leave() -> Iterator[None]:
    """Inside, what is printed to a closed pipe is lost without a word; training has its files."""
    before = sys.stdout
    if before is not None:
        sys.stdout = ClosableOutput(before)
    try:
        yield
    finally:
        if before is not None:
            sys.stdout.flush()
        sys.stdout = before
