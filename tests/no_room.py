"""A full disk, by a real limit on the size of files in its place."""

import resource
from contextlib import contextmanager


@contextmanager
def no_room(size):
    """Inside, no file grows beyond `size` bytes; nor does pytest's own output, so keep it short."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
