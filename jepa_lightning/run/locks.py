"""One process at a time writes into a folder or a file."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jepa_lightning.run.writing import named

try:
    import fcntl
except ImportError:  # not on Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # file systems that have none


class Lock:
    """A lock file that one process holds, which is removed at the end.

    It is a lock of the process (POSIX): a kill gives it back at once, whatever workers are left, and it holds for
    machines that share a file system.

    Args:
        path: the lock file; it holds the process's number and its machine.
        refusal: begins the message where another process has it.
    """

    def __init__(self, path: Path, refusal: str) -> None:
        self.path = path
        self.refusal = refusal
        self._file: int | None = None
        self._made: list[Path] = []  # folders, the innermost first

    def acquire(self) -> None:
        """Take it. The folder is made, and what cannot be written there shows before the work.

        Raises:
            ValueError: another process holds it.
            OSError: nothing can be written there.
        """
        self._made = [folder for folder in self.path.parents if not folder.exists()]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = _open(self.path, self.refusal)
        with named(self.path):
            os.truncate(self._file, 0)
            os.pwrite(self._file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)

    def release(self) -> None:
        """Give it back, if it is held."""
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            self.path.unlink()
            for folder in self._made:
                folder.rmdir()  # unless there is something in it now
        os.close(self._file)
        self._file = None


@contextmanager
def locked(path: Path, refusal: str) -> Iterator[None]:
    """Inside, this process alone holds the lock file `path`; see `Lock`."""
    lock = Lock(path, refusal)
    try:
        lock.acquire()
        yield
    finally:
        lock.release()


@contextmanager
def waiting(path: Path) -> Iterator[None]:
    """Inside, this process alone holds the lock file `path`, which stays; it waits for whoever holds it before.

    Raises:
        OSError: the file cannot be made. Where the file system has no locks, nothing is waited for.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if fcntl is not None:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
        yield
    finally:
        os.close(file)


def _open(path: Path, refusal: str) -> int:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if fcntl is not None:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(file, 200, 0).decode(errors="replace")
            os.close(file)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise ValueError(
                    f"{refusal} there ({holder or 'another process'}): wait for it, stop it, or name another place"
                ) from None
            if error.errno not in _NO_LOCKS:
                raise
            return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if os.fstat(file).st_nlink:  # else whoever held it has just removed it
            return file
        os.close(file)
