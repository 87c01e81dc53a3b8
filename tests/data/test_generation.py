"""Random numbers of generated sets."""

import numpy as np
import pytest

from jepa_lightning.data import DataError
from jepa_lightning.data.generation import chunks, fill, sample_rng, smooth_fields


def drawn(samples, **settings):
    found = [
        rng.random(part.stop - part.start) for part, rng in chunks(samples, **{"seed": 0, "split": "train"} | settings)
    ]
    return np.concatenate(found)


def test_a_sample_is_the_same_in_a_larger_set():
    assert [part for part, _ in chunks(7, size=3, seed=0, split="val")] == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert np.array_equal(drawn(10, size=3)[:7], drawn(7, size=3))


def test_seeds_splits_and_numbers_are_independent():
    keys = [(seed, split, number) for seed in (0, 1) for split in ("train", "val", "test") for number in (0, 1)]
    assert len({sample_rng(*key).integers(2**62) for key in keys}) == len(keys)
    with pytest.raises(DataError, match="expected a split among train, val, test, got 'dev'"):
        sample_rng(0, "dev", 0)


def test_fields_go_through_a_grid_of_random_values():
    fields = smooth_fields(np.random.default_rng(0), 5, channels=2, size=(31, 16), strength=2.0)
    grid = np.random.default_rng(0).uniform(-2, 2, (5, 2, 4, 4)).astype(np.float32)
    assert fields.shape == (5, 2, 31, 16)
    np.testing.assert_allclose(fields[..., ::10, ::5], grid, rtol=1e-5)
    between = (grid[..., :1, :1] + grid[..., 1:2, :1]) / 2  # halfway from the first row to the second
    np.testing.assert_allclose(fields[..., 5:6, :1], between, rtol=1e-4, atol=1e-6)


def test_arrays_are_filled_by_whole_chunks_that_are_cut():
    columns = np.empty((7, 2), dtype=np.float16), np.empty(7, dtype=np.int64)
    fill(columns, lambda rng: (rng.random((3, 2)), rng.integers(9, size=3)), size=3, seed=0, split="val")
    for start in range(0, 7, 3):
        rng = sample_rng(0, "val", start // 3)
        expected = rng.random((3, 2)), rng.integers(9, size=3)
        for column, values in zip(columns, expected, strict=True):
            assert np.array_equal(column[start : start + 3], values[: 7 - start].astype(column.dtype))
