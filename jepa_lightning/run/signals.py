"""What a signal does to a command: exit codes, and what is said. Imports nothing heavy: `jepa-fit` starts with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from types import FrameType

REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: "try again later"
CTRL_C = 130  # 128 + SIGINT, as in shells
STOPPING = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]


class Interrupted(BaseException):
    """A signal has ended the run. Not an Exception, so that error handlers do not catch it.

    Args:
        signum: the signal.
        saved: the checkpoint that holds the run's state; None if it was stopped immediately.
    """

    def __init__(self, signum: int, saved: str | None = None) -> None:
        super().__init__(signum, saved)
        self.signum = signum
        self.saved = saved

    @property
    def code(self) -> int:
        """Return the exit code: 75 asks a scheduler to start the command again, 130 is for Ctrl-C."""
        return CTRL_C if self.signum == signal.SIGINT else REQUEUE

    def __str__(self) -> str:
        name = signal.Signals(self.signum).name
        if self.saved is None:
            return f"stopped at once by {name}; the last checkpoint is as it was"
        return f"stopped by {name}; saved {self.saved}: resume with --auto_resume true, or --ckpt_path last"


class NotBegun(Interrupted):
    """A signal has ended the program before training began."""

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.signum).name}: training had not begun; start it again"


@contextmanager
def exits_before_training(program: str, *, requeue: bool = False) -> Iterator[None]:
    """Let SIGTERM and SIGUSR1 end the process at once, with the code that asks for another start.

    For the seconds in which the program is imported: an exception in the midst of an import may be caught there.

    Args:
        program: name of the command.
        requeue: whether SIGUSR1 requeues a SLURM job.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        if requeue and asks_to_requeue(signum):
            requeue_slurm()
        sys.stderr.write(f"{program}: {NotBegun(signum)}\n")
        sys.stderr.flush()
        os._exit(REQUEUE)

    before = {signum: signal.signal(signum, stop) for signum in STOPPING}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def asks_for_resume(words: Sequence[str]) -> bool:
    """Whether command-line words say `--auto_resume true`."""
    return "--auto_resume=true" in words or ("--auto_resume", "true") in pairwise(words)


def asks_to_requeue(signum: int) -> bool:
    """Whether a signal asks the first process of a job to put it into the queue again."""
    return signum == getattr(signal, "SIGUSR1", None) and os.environ.get("SLURM_PROCID", "0") == "0"


def requeue_slurm() -> None:
    """Put this SLURM job into the queue again, as Lightning would."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if array else os.environ.get("SLURM_JOB_ID")
    if job is not None:
        subprocess.run(["scontrol", "requeue", job], check=False)
