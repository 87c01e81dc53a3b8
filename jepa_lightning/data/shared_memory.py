"""Whether the batches that data workers hand over fit into shared memory; where they do not, workers hang."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

SHARED = Path("/dev/shm")
PREFETCHED = 2  # batches that a worker has ready, PyTorch's default


@dataclass(frozen=True)
class Room:
    """What there is room for.

    Attributes:
        workers: of one loader in one process, at most; 0 where not even one fits.
        batch: bytes.
        free: bytes.
        processes: on this machine, that share it.
    """

    workers: int
    batch: int
    free: int
    processes: int

    def __str__(self) -> str:
        each = f", {self.processes} processes" if self.processes > 1 else ""
        return (
            f"a batch takes {self.batch / 1e6:,.0f} MB, {PREFETCHED} for each worker and one more{each}, and {SHARED} "
            f"has {self.free / 1e6:,.0f} MB free, enough for {self.workers}. Start the container with more (docker run "
            "--shm-size 8g, or --ipc host), or lower data.num_workers or data.batch_size"
        )


def workers_that_fit(example: Mapping[str, Any], *, batch_size: int, processes: int = 1) -> Room | None:
    """Count the workers for which there is room; None where batches do not go through a folder of limited size.

    Args:
        example: a batch of one sample.
        batch_size: samples of that size in a batch, each view counted.
        processes: that share the memory.
    """
    try:
        found = os.statvfs(SHARED)
    except (OSError, AttributeError):  # another system than Linux
        return None
    free, batch = found.f_bavail * found.f_frsize, batch_size * size(example)
    if not batch:
        return None
    batches = free // (batch * processes)
    return Room(workers=max(0, (batches - 1) // PREFETCHED), batch=batch, free=free, processes=processes)


def size(value: Any) -> int:
    """Count the bytes of all tensors in dicts and lists within each other."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(size(part) for part in value.values())
    return sum(size(part) for part in value) if isinstance(value, list | tuple) else 0
