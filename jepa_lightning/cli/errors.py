"""How a command ends that does not reach its end: a few lines and an exit code, in place of a traceback."""

from __future__ import annotations

import errno
import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import torch.distributed as dist
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from jepa_lightning.cli.output import readers_may_leave
from jepa_lightning.config.messages import no_metric, shorten
from jepa_lightning.data.errors import DataError
from jepa_lightning.names.printable import printable
from jepa_lightning.run.interruption import Fault
from jepa_lightning.run.signals import CTRL_C, REQUEUE, Interrupted

FAULT, MISTAKE = 1, 2  # exit codes
TRACEBACK = "JEPA_TRACEBACK"
MEANT = (  # warnings about what is meant to be so, or is not the user's to change
    r"Found \d+ module\(s\) in eval mode",  # an EMA target
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # within Lightning
    r"Checkpoint directory .* exists and is not empty",  # a resumed run
)
TIPS = ("installing [litlogger]", "installing [litmodels]", "`weights_only` was not set")  # of Lightning
_TIPSTERS = (
    *("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"),
    "lightning.pytorch.trainer.connectors.checkpoint_connector",
)

_SHOWS = f"\n({TRACEBACK}=1 shows where)"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_WRITING = (errno.EROFS, errno.EACCES, errno.EPERM)
_WRONG_NAME = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)
_OUTPUT = {"jepa-fit": "trainer.default_root_dir"}  # the others have --out


@contextmanager
def short_errors(program: str) -> Iterator[None]:
    """Inside, mistakes, signals and faults of the machine and of the numbers end in a few lines and an exit code.

    2 after a mistake in what was typed or in the data, 1 after a fault, 75 after SIGTERM or SIGUSR1, 130 after Ctrl-C.
    JEPA_TRACEBACK=1 shows where a mistake or a fault came from. What reads the output may leave (`| head -1`).
    """
    for meant in MEANT:
        warnings.filterwarnings("ignore", message=meant)
    for name in _TIPSTERS:
        logging.getLogger(name).addFilter(_no_tip)
    with readers_may_leave():
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
        except Exception as error:
            fault = explain(error, program)
            said = fault or mistake(error)
            if said is None or os.environ.get(TRACEBACK):
                raise
            notes = [str(note) for note in getattr(error, "__notes__", ())]
            _end(program, "error: " + "\n".join([said, *notes]) + _SHOWS, FAULT if fault else MISTAKE)


def _no_tip(record: logging.LogRecord) -> bool:
    return not any(tip in record.getMessage() for tip in TIPS)


def fail(message: str, *, program: str = "jepa-fit") -> NoReturn:
    """Say what was wrong with what was typed, and exit with code 2."""
    _end(program, f"error: {message.strip()}", MISTAKE)


def mistake(error: BaseException) -> str | None:
    """What the user got wrong, or None where the error is none of the user's."""
    if isinstance(error, DataError) and "Original Traceback" not in str(error):
        return str(error)  # as long as it is: it lists what is broken
    if isinstance(error, OSError) and error.errno in _WRONG_NAME and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    if isinstance(error, ImportError) and str(error).startswith("Requirement "):  # Lightning's, of a package
        return str(error)
    if isinstance(error, RuntimeError) and no_metric(str(error)) is None:
        return None
    if isinstance(
        error, ValueError | FileNotFoundError | NotADirectoryError | MisconfigurationException | RuntimeError
    ):
        return shorten(str(error))
    return None


def explain(error: BaseException, program: str = "jepa-fit") -> str | None:
    """What a fault means and what to do, or None where it is none of those that are known."""
    text = str(error).strip()
    first = text.splitlines()[0] if text else ""
    if isinstance(error, Fault):
        return text
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return f"no room left to write{_where(error)} ({error.strerror}). Free some, or raise the quota."
    if isinstance(error, OSError) and error.errno in _NO_WRITING:
        output = _OUTPUT.get(program, "--out")
        return (
            f"may not write or read{_where(error)} ({error.strerror}). Set {output} to a folder that may be written, "
            "or mend its permissions."
        )
    if not isinstance(error, RuntimeError):
        return None
    if re.search(r"out of memory|can't allocate memory", text, re.IGNORECASE):
        return f"{first}\n{_SMALLER.get(program, _SMALLER_BATCH)}"
    if re.search(r"DataLoader worker \(pid\(?s?\)? ?[^)]*\) .*(killed|exited)", text):
        return (
            f"{first}\nA data worker died, most likely for want of memory: lower data.num_workers or data.batch_size. "
            "In a container, shared memory may be too small (docker run --shm-size 8g)."
        )
    if text.startswith("DataLoader timed out"):
        return (
            f"{first}\nA data worker hangs (a network disk?), or reads longer than data.timeout allows: raise it, or "
            "set data.num_workers to 0 to see where. In a container, shared memory may be too small (docker run "
            "--shm-size 8g)."
        )
    if isinstance(error, _DISTRIBUTED) or re.search(r"\bgloo/|\bNCCL\b", text):
        return (
            f"another process has ended or does not answer ({_last_sentence(first)}): its own message says why. Where "
            "there is none, it hangs, or its machine cannot be reached."
        )
    return None


_SMALLER_BATCH = "The model and a batch do not fit: lower --data.batch_size."
_SMALLER = {
    "jepa-fit": "The model and a batch do not fit: lower data.batch_size (and raise trainer.accumulate_grad_batches as "
    "much), set model.checkpoint_activations or trainer.precision bf16-mixed, or make the model smaller."
}
_DISTRIBUTED: tuple[type, ...] = (dist.DistError,) if hasattr(dist, "DistError") else ()


def _where(error: OSError) -> str:
    return f" {error.filename}" if error.filename else " a file"  # TensorBoard's, which it does not name


def _last_sentence(line: str) -> str:
    """Of an error of gloo's, what it says behind the places in its source."""
    return line.rpartition("] ")[2][:200] or "no reason given"


def _end(program: str, message: str, code: int) -> NoReturn:
    sys.stderr.write(f"{program}: {printable(message, lines=True)}\n")
    sys.stderr.flush()
    sys.exit(code)
