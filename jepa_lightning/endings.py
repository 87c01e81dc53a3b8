"""How a run ends that does not reach its end: a line or two and an exit code, in place of a traceback."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from lightning.pytorch.utilities.exceptions import SIGTERMException

from jepa_lightning.interruption import CTRL_C, REQUEUE, Fault, Interrupted
from jepa_lightning.printable import printable

FAULT = 1  # exit code

_GO_ON = "The last checkpoint is whole: --auto_resume true goes on from it."
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_WRITING = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def ended_well(program: str) -> Iterator[None]:
    """Inside, signals, faults of the machine and of the numbers end in a few lines and an exit code that fits.

    75 after SIGTERM or SIGUSR1, 130 after Ctrl-C, 1 after a fault. JEPA_TRACEBACK=1 shows where a fault came from.
    """
    try:
        yield
    except Interrupted as stop:
        _end(program, str(stop), stop.code)
    except SIGTERMException:
        _end(program, str(Interrupted(signal.SIGTERM)), REQUEUE)
    except KeyboardInterrupt:
        _end(program, str(Interrupted(signal.SIGINT)), CTRL_C)
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):  # Lightning has turned it into exit code 1
            _end(program, str(Interrupted(signal.SIGINT)), CTRL_C)
        raise
    except (Fault, OSError, RuntimeError) as error:
        message = explain(error)
        if message is None or os.environ.get("JEPA_TRACEBACK"):
            raise
        _end(program, f"error: {message}\n(JEPA_TRACEBACK=1 shows where)", FAULT)


def explain(error: BaseException) -> str | None:
    """What a fault means and what to do, or None where it is none of those that are known."""
    if isinstance(error, Fault):
        return str(error)
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return f"no room left to write{_where(error)} ({error.strerror}). Free some, or raise the quota. {_GO_ON}"
    if isinstance(error, OSError) and error.errno in _NO_WRITING:
        return (
            f"may not write or read{_where(error)} ({error.strerror}). Set trainer.default_root_dir to a folder that "
            f"may be written, or mend its permissions. {_GO_ON}"
        )
    if isinstance(error, RuntimeError) and re.search(r"out of memory|can't allocate memory", str(error), re.IGNORECASE):
        first = str(error).strip().splitlines()[0]
        return (
            f"{first}\nThe model and a batch do not fit: lower data.batch_size (and raise "
            "trainer.accumulate_grad_batches as much), set model.checkpoint_activations or trainer.precision "
            "bf16-mixed, or make the model smaller."
        )
    if re.search(r"DataLoader worker \(pid\(?s?\)? ?[^)]*\) .*(killed|exited)", str(error)):
        first = str(error).strip().splitlines()[0]
        return (
            f"{first}\nA data worker died, most likely for want of memory: lower data.num_workers or data.batch_size. "
            f"In a container, shared memory may be too small (docker run --shm-size 8g). {_GO_ON}"
        )
    return None


def _where(error: OSError) -> str:
    return f" {error.filename}" if error.filename else ""


def _end(program: str, message: str, code: int) -> NoReturn:
    sys.stderr.write(f"{program}: {printable(message, lines=True)}\n")
    sys.stderr.flush()
    sys.exit(code)
