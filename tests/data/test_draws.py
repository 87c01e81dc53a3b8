"""Numbers for many seeds at once, on any device."""

import math

import numpy as np
import pytest
import torch

from jepa_lightning.randomness import (
    hashes_at,
    hashes_by_torch,
    normals_at,
    permutations_at,
    uniforms,
    uniforms_at,
)

SEEDS = torch.tensor([0, 1, 2**63 - 1, 12345678901234567])


def test_torch_and_numpy_compute_the_same_hashes():
    found = hashes_at(SEEDS, 50, first=7)
    assert torch.equal(found, hashes_by_torch(SEEDS, 50, first=7))
    assert torch.equal(found, hashes_at(SEEDS, 57)[:, 7:])
    mask = 2**64 - 1
    for row, seed in zip(found.tolist(), SEEDS.tolist(), strict=True):
        for number, value in enumerate(row, start=8):
            z = (seed + number * 0x9E3779B97F4A7C15) & mask
            z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & mask
            z = ((z ^ z >> 27) * 0x94D049BB133111EB) & mask
            assert value & mask == z ^ z >> 31


def test_uniform_numbers_are_those_of_uniforms_in_24_bits():
    found = uniforms_at(SEEDS, 30, first=4)
    assert found.dtype == torch.float32
    expected = np.floor(uniforms(SEEDS.numpy(), 34)[:, 4:] * 2**24) / 2**24
    assert torch.equal(found.double(), torch.from_numpy(expected))


@pytest.mark.parametrize("count", [1, 2, 5, 64, 100])
def test_permutations(count):
    seeds = torch.arange(5000)
    found = permutations_at(seeds, count)
    assert torch.equal(found.sort(1).values, torch.arange(count).expand(5000, count))
    below = (1 << max(count - 1, 1).bit_length()) - 1
    by_loop = [
        sorted(range(count), key=lambda place: row[place] & ~below) for row in hashes_at(seeds[:9], count).tolist()
    ]
    assert found[:9].tolist() == by_loop
    frequencies = torch.bincount(found[:, 0], minlength=count) / 5000
    assert (frequencies - 1 / count).abs().max() < 4.5 * math.sqrt(1 / count / 5000)
    assert not torch.equal(permutations_at(seeds[:4], 64), permutations_at(seeds[:4], 64, first=64))


def test_normal_numbers():
    found = normals_at(torch.arange(2000), 101)
    assert found.shape == (2000, 101)
    levels = torch.linspace(0.05, 0.95, 19)
    expected = torch.distributions.Normal(0.0, 1.0).icdf(levels)
    for values in (found[:, 0], found[:, 60], found.flatten()[::2]):
        assert (values.quantile(levels) - expected).abs().max() < 0.15
    assert found.mean().abs() < 0.01
    assert found.std() == pytest.approx(1.0, abs=0.01)
    assert found.abs().max() < 5.8
    assert found[:, 0].mul(found[:, 51]).mean().abs() < 0.1  # two of one pair
    first, second = uniforms_at(torch.tensor([3]), 2)[0].double().tolist()
    assert float(normals_at(torch.tensor([3]), 1)) == pytest.approx(
        math.sqrt(-2 * math.log(1 - first)) * math.cos(2 * math.pi * second), rel=1e-4
    )
