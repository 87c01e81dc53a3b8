"""The random numbers of generated sets: a sample depends on the seed, the split and its number alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

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
