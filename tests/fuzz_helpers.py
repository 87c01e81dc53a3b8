"""What the fuzz tests share: how many examples, damaged bytes, and bounds on time and memory.

Their default run is short and the same at every run. For a long one with other examples each time, set JEPA_FUZZ to a
factor, which multiplies the number of examples:

    JEPA_FUZZ=100 pytest tests/fuzz -x
"""

import faulthandler
import os
import resource
import signal
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

FACTOR = int(os.environ.get("JEPA_FUZZ", "1"))
_ROOM = 3 * 2**30  # bytes of address space beyond what the process has
_TEXT = b"these are words, and no numbers at all\n" * 8
_HUGE = (
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x7f\xff\xff\xff",
    b"\0\0\0\0",
    b"\0\0\0\0\0\1\0\0",
    b"\0\1\0\0\0\0\0\0",
)


class TooSlow(BaseException):
    """An example took too long. Not an Exception, so that no code takes it for a broken file."""


def fuzz(examples):
    """Settings of a fuzz test: so many examples in the default run."""
    return settings(
        max_examples=examples * FACTOR,
        derandomize=FACTOR == 1,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


@contextmanager
def bounded(seconds=10):
    """Inside, more than `seconds` of processor time are an error, and so are allocations of more than 3 GiB."""

    def late(number, frame):
        raise TooSlow(f"more than {seconds} s of processor time")

    limits = resource.getrlimit(resource.RLIMIT_AS)
    own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = signal.signal(signal.SIGPROF, late)
    faulthandler.dump_traceback_later(60 * seconds, exit=True, file=sys.__stderr__)  # for C code, which no signal ends
    signal.setitimer(signal.ITIMER_PROF, seconds)
    resource.setrlimit(resource.RLIMIT_AS, (own + _ROOM, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        faulthandler.cancel_dump_traceback_later()


@contextmanager
def folder():
    """An empty folder as a Path, for one example (pytest's own lasts for all of them)."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def short(error):
    """Whether an error is a few lines that say something."""
    text = str(error).strip()
    return 0 < len(text) < 3000 and len(text.splitlines()) <= 25


def must_be_ours(error):
    """Check that an error is one that we raise, in a few lines."""
    assert type(error).__name__ in ("ValueError", "DataError", "OSError"), repr(error)
    assert short(error), repr(error)


@st.composite
def damaged(draw, whole, *, others=()):
    """The bytes `whole` after something went wrong with them, most often in the header.

    Args:
        draw: hypothesis's.
        whole: of a file.
        others: bytes of files of other formats.
    """
    data = bytearray(whole)
    kinds = ["cut", "flip", "insert", "remove", "huge", "empty", "text", "twice", *(["other"] if others else [])]
    for kind in draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=3)):
        near = draw(st.sampled_from([32, 200, len(whole)]))
        place = draw(st.integers(0, max(0, min(near, len(data)) - 1)))
        if kind == "cut":
            del data[place:]
        elif kind == "flip":
            for step in draw(st.lists(st.integers(0, 64), min_size=1, max_size=6)):
                if place + step < len(data):
                    data[place + step] ^= draw(st.integers(1, 255))
        elif kind == "insert":
            data[place:place] = draw(st.binary(min_size=1, max_size=16))
        elif kind == "remove":
            del data[place : place + draw(st.integers(1, 64))]
        elif kind == "huge":
            value = draw(st.sampled_from(_HUGE))
            data[place : place + len(value)] = value
        elif kind == "twice":
            data += data[:2000]
        elif kind == "other":
            data = bytearray(draw(st.sampled_from(others)))
        else:
            data = bytearray(_TEXT if kind == "text" else b"")
    return bytes(data)
