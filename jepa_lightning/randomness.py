"""Random numbers that depend on the position in a run only, so that no random state needs to be saved."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray


def derive_seed(*key: object) -> int:
    """Derive a seed of 63 bits from a key, e.g. run seed, stage, step and rank."""
    text = "/".join(map(str, key))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def reseed(seed: int, device: torch.device | None = None) -> None:
    """Seed the global generators of Python, NumPy and torch on the CPU, and torch's on `device`.

    Takes some 10 microseconds. `torch.manual_seed` takes 20 times as long, since it looks for every kind of device.
    """
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type not in ("cpu", "meta"):
        torch.get_device_module(device).manual_seed(seed)


@contextmanager
def isolate_rng() -> Iterator[None]:
    """Restore the CPU's global generators (Python, NumPy, torch) at the end.

    Takes some 100 microseconds: enter it once per batch, not once per sample.
    """
    python, numpy, torchs = random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(torchs)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed as `seed_everything` does, without its environment variables, and restore the random state at the end."""
    with isolate_rng():
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        yield


def uniforms(seeds: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Draw numbers from 0 to below 1 for many seeds at once: (B,) to (B, count), each row from its own seed only.

    SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", figure 15): number j of a
    row is a hash of its seed and j, so that no generator is seeded for each sample.
    """
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # wraps around, as all below
    z = np.asarray(seeds, dtype=np.int64).astype(np.uint64)[:, None] + steps
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53
