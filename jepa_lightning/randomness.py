"""Random numbers that depend on the position in a run only, so that no random state needs to be saved."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_STEP = 0x9E3779B97F4A7C15
_FACTORS = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


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
    return (_split_mix(np.asarray(seeds, dtype=np.int64), 0, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def uniforms_at(seeds: Tensor, count: int, *, first: int = 0) -> Tensor:
    """Draw numbers from 0 to below 1 on the seeds' device: (B,) int64 to (B, count) float32, multiples of 2^-24.

    Numbers `first` to `first + count` of the rows that `uniforms` begins, cut to 24 bits; the same on every device.

    Examples:
        >>> import torch
        >>> from jepa_lightning.randomness import uniforms_at
        >>> uniforms_at(torch.tensor([5, 6]), 3)[0].equal(uniforms_at(torch.tensor([5]), 3)[0])
        True
    """
    return (hashes_at(seeds, count, first=first) >> 40 & 0xFFFFFF).float().mul_(2.0**-24)


def normals_at(seeds: Tensor, count: int, *, first: int = 0) -> Tensor:
    """Draw normal numbers on the seeds' device: (B,) int64 to (B, count) float32, none beyond 5.8 either way.

    Box and Muller's transform (1958) of numbers `first` to `first + 2 * ceil(count / 2)` of `uniforms_at`.
    """
    half = -(-count // 2)
    length, turn = uniforms_at(seeds, 2 * half, first=first).view(-1, half, 2).unbind(-1)
    length = length.neg().log1p().mul(-2).sqrt()
    turn = 2 * torch.pi * turn
    return torch.cat([length * turn.cos(), length * turn.sin()], dim=1)[:, :count]


def permutations_at(seeds: Tensor, count: int, *, first: int = 0) -> Tensor:
    """Draw permutations on the seeds' device: (B,) int64 to (B, count) int64, the same on every device.

    They sort numbers `first` to `first + count` of the rows' hashes, of which as many bits give way to the place as it
    takes. NumPy sorts them on the CPU, where torch takes ten times as long.
    """
    bits = max(count - 1, 1).bit_length()
    below = (1 << bits) - 1
    places = torch.arange(count, device=seeds.device)
    keys = (hashes_at(seeds, count, first=first) & ~below) | places
    on_cpu = keys.device.type == "cpu"
    return (torch.from_numpy(np.sort(keys.numpy(), axis=1)) if on_cpu else keys.sort(dim=1).values) & below


def hashes_at(seeds: Tensor, count: int, *, first: int = 0) -> Tensor:
    """Numbers `first` to `first + count` of SplitMix64 for each seed: (B,) int64 to (B, count) int64, any 64 bits."""
    if seeds.device.type == "cpu":
        return torch.from_numpy(_split_mix(seeds.numpy(), first, count).view(np.int64))
    return hashes_by_torch(seeds, count, first=first)


def hashes_by_torch(seeds: Tensor, count: int, *, first: int = 0) -> Tensor:
    """Compute the same by torch, on any device: its whole numbers are signed and wrap around."""
    steps = torch.arange(first + 1, first + count + 1, device=seeds.device) * _signed(_STEP)
    z = seeds[:, None] + steps
    z = (z ^ (z >> 30 & (1 << 34) - 1)) * _signed(_FACTORS[0])  # the masks make the shifts logical ones
    z = (z ^ (z >> 27 & (1 << 37) - 1)) * _signed(_FACTORS[1])
    return z ^ (z >> 31 & (1 << 33) - 1)


def _split_mix(seeds: NDArray[np.int64], first: int, count: int) -> NDArray[np.uint64]:
    steps = np.arange(first + 1, first + count + 1, dtype=np.uint64) * np.uint64(_STEP)  # wraps around, as all below
    z = seeds.astype(np.uint64)[:, None] + steps
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_FACTORS[0])
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_FACTORS[1])
    return z ^ (z >> np.uint64(31))


def _signed(number: int) -> int:
    return number - (1 << 64)  # the same 64 bits, as torch takes them
