"""Whether all processes of a run see the same samples: each takes its share of what it believes to be the whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch.distributed as dist

from jepa_lightning.data.errors import DataError
from jepa_lightning.data.samples import Samples

_NAMED = 100_000  # samples whose names are compared, evenly over a split; their number always is


def require_same_samples(parts: Mapping[str, Samples]) -> None:
    """Compare the samples of all processes; call it on each of them.

    Raises:
        DataError: one has others, as where a file is missing on one machine.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    own = {split: (len(part), names_hash(part)) for split, part in parts.items()}
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, own)
    for rank, other in enumerate(found):
        if other != found[0]:
            sizes = [", ".join(f"{split} {count:,}" for split, (count, _) in one.items()) for one in (found[0], other)]
            raise DataError(
                f"expected the same samples on all processes, got others on rank {rank} ({sizes[1]}) than on rank 0 "
                f"({sizes[0]}): see that all machines have the same files"
            )


def names_hash(part: Samples) -> str:
    """Compute a hash of the samples' names, in order."""
    names = hashlib.sha256()
    for place in np.unique(np.linspace(0, max(0, len(part) - 1), min(len(part), _NAMED)).astype(np.int64)):
        names.update(part.sample_id(int(part.indices[place])).encode(errors="surrogateescape") + b"\0")
    return names.hexdigest()
