"""How many processes load data."""

from __future__ import annotations

import os

import torch
from lightning.pytorch.utilities import rank_zero_warn

from jepa_lightning.data.errors import DataError
from jepa_lightning.data.shared_memory import Room

MOST = 16


def choose_workers(*, processes: int, in_memory: bool) -> int:
    """As many workers as a loader has use for: one less than the cores of this process, at most 16.

    Args:
        processes: of training on this machine, which share its cores.
        in_memory: reading a sample costs next to nothing, so without a GPU that waits there are none.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores //= processes
    if cores <= 1 or (in_memory and not torch.cuda.is_available()):
        return 0
    return min(cores - 1, MOST)


def fit_workers(wanted: int, room: Room | None, *, asked: bool, warn: bool = True) -> int:
    """As many workers as there is shared memory for.

    Args:
        wanted: how many there should be.
        room: what there is room for; None: for any number.
        asked: the user has named the number.
        warn: say when it is lowered.

    Raises:
        DataError: there is no room for as many as were asked for: workers that find none hang.
    """
    if room is None or wanted <= room.workers:
        return wanted
    if asked:
        raise DataError(f"expected shared memory for num_workers {wanted}: {room}")
    if warn:
        rank_zero_warn(f"{room.workers} data workers in place of {wanted}: {room}")
    return room.workers
