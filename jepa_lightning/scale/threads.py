"""How many CPU threads work uses that is too small for several."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

_SMALL = 5_000_000


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it torch uses a single CPU thread in the calling thread.

    For many small operations, such as drawing masks: from 32,768 elements on torch splits an operation over OpenMP's
    threads, and where other processes keep the cores busy (a loader's workers) these wait for each other longer than
    they work. Nothing that is drawn or computed depends on the number of threads but the order of sums.
    """
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def one_thread_if_small(numbers: int) -> Iterator[None]:
    """One thread for the fits of features of fewer numbers than five million: thousands of very small steps.

    Also of the BLAS behind NumPy and SciPy, whose idle threads wait at full speed and take the cores from all others.
    """
    if numbers >= _SMALL:
        yield
        return
    with one_thread(), threadpool_limits(1, user_api="blas"):
        yield
