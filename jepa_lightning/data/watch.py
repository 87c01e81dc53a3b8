"""Data workers that hang: they are killed, so that the run ends in place of waiting for ever."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_MARGIN = 2.0  # seconds after which a loader should have noticed by itself that its time is over


class Watch:
    """Kills the workers of a loader that does not hand over a batch in time.

    The loader's own timeout does not help where a worker is stopped that has announced a batch, and a program whose
    workers hang would wait for them when it ends.

    Args:
        timeout: seconds; 0: it watches nothing.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._deadline = math.inf
        self._workers: Sequence[Any] = ()
        self._over = threading.Event()
        self._fired = False
        self._started = timeout == 0

    def start(self) -> None:
        """Watch from now on."""
        if not self._started:
            self._started = True
            threading.Thread(target=self._run, daemon=True).start()

    @contextmanager
    def waiting(self, batches: Any) -> Iterator[None]:
        """Mark that a batch is waited for, as long as this is entered.

        Raises:
            RuntimeError: for too long.
        """
        self._workers = getattr(batches, "_workers", ())
        self._deadline = time.monotonic() + self.timeout + _MARGIN
        try:
            yield
        except Exception as error:
            timed_out = str(error).startswith("DataLoader timed out")
            if timed_out:
                self._kill()
            if self._fired and not timed_out:
                raise RuntimeError(f"DataLoader timed out after {self.timeout:g} seconds") from error
            raise
        finally:
            self._deadline = math.inf

    def stop(self) -> None:
        """Watch no longer."""
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(1.0):
            if time.monotonic() > self._deadline:
                self._fired = True
                self._kill()

    def _kill(self) -> None:
        for worker in self._workers:
            worker.kill()  # one that hangs heeds nothing milder
