"""What generated sets share: random numbers by seed, split and sample, and smooth random fields."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_lightning.data.errors import DataError

_SPLITS = {"train": 0, "val": 1, "test": 2}


def sample_rng(seed: int, split: str, number: int) -> np.random.Generator:
    """Make the generator of a sample, or of a chunk of samples.

    Args:
        seed: of the set.
        split: "train", "val" or "test"; each draws independently of the others.
        number: of the sample or chunk.

    Raises:
        DataError: another split.
    """
    if split not in _SPLITS:
        raise DataError(f"expected a split among {', '.join(_SPLITS)}, got {split!r}")
    return np.random.default_rng([seed, _SPLITS[split], number])


def chunks(samples: int, *, size: int, seed: int, split: str) -> Iterator[tuple[slice, np.random.Generator]]:
    """Go through the chunks of a generated set: which samples are in each, and its generator.

    Whole chunks are to be drawn, of which the last is then cut: a sample is the same whatever their number.

    Args:
        samples: of the set.
        size: samples in a chunk; the last may have fewer.
        seed: of the set.
        split: as in `sample_rng`.

    Raises:
        DataError: another split.
    """
    for number, start in enumerate(range(0, samples, size)):
        yield slice(start, min(start + size, samples)), sample_rng(seed, split, number)


def fill(
    columns: Sequence[NDArray[Any]],
    draw: Callable[[np.random.Generator], Sequence[NDArray[Any]]],
    *,
    size: int,
    seed: int,
    split: str,
) -> None:
    """Fill the arrays of a generated set, a row a sample, chunk by chunk; see `chunks`.

    Args:
        columns: arrays (N, ...).
        draw: draws a whole chunk of each, in their order: arrays (size, ...).
        size: samples in a chunk.
        seed: of the set.
        split: as in `sample_rng`.

    Raises:
        DataError: another split.
    """
    for part, rng in chunks(len(columns[0]), size=size, seed=seed, split=split):
        for column, values in zip(columns, draw(rng), strict=True):
            column[part] = values[: part.stop - part.start]


def smooth_fields(
    rng: np.random.Generator, count: int, *, channels: int, size: tuple[int, int], strength: float
) -> NDArray[Any]:
    """Draw smooth random fields (count, channels, H, W) float32, about 0: a 4 by 4 grid of random values, interpolated.

    Args:
        rng: draws.
        count: of fields.
        channels: of each; they are independent.
        size: (H, W).
        strength: largest value either way.
    """
    values = rng.uniform(-strength, strength, (count, channels, 4, 4)).astype(np.float32)
    return _hats(size[0]) @ values @ _hats(size[1]).T


def _hats(size: int) -> NDArray[Any]:
    """Make the matrix (size, 4) that interpolates 4 values linearly."""
    place = np.linspace(0, 3, size, dtype=np.float32)
    return np.clip(1 - np.abs(place[:, None] - np.arange(4, dtype=np.float32)), 0, 1)
