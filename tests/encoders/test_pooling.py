"""Pooling of tokens."""

import pytest
import torch

from jepa_lightning.encoders.pooling import pool_tokens


@pytest.mark.parametrize("masked", [False, True])
def test_against_plain_loops(masked):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4, 7, 5, generator=generator)
    valid = torch.rand(4, 7, generator=generator) < 0.5 if masked else None
    if masked:
        valid[:, 0] = True
    rows = [
        row if valid is None else row[keep] for row, keep in zip(features, valid if masked else features, strict=True)
    ]
    mean, largest = torch.stack([row.mean(0) for row in rows]), torch.stack([row.max(0).values for row in rows])
    torch.testing.assert_close(pool_tokens(features, valid), mean)
    torch.testing.assert_close(pool_tokens(features, valid, how="max"), largest)
    torch.testing.assert_close(pool_tokens(features, valid, how="mean+max"), torch.cat([mean, largest], dim=1))


def test_padding_has_no_say_and_nothing_gives_zeros():
    features = torch.full((2, 3, 4), -1.0)
    features[0, 2] = 9e9
    valid = torch.tensor([[True, True, False], [False, False, False]])
    found = pool_tokens(features, valid, how="mean+max")
    assert (found[0] == -1).all()
    assert (found[1] == 0).all()


def test_a_mistyped_pooling_is_told():
    with pytest.raises(ValueError, match="mean, max, mean\\+max, quarters or segments, got 'sum'"):
        pool_tokens(torch.zeros(1, 2, 3), how="sum")


def test_quarters_against_plain_loops():
    """Of an even and an odd axis, whose middle belongs to both halves; with padding."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 12, 5, generator=generator)
    maps = features.view(2, 4, 3, 5)
    rows, columns = ([0, 1], [2, 3]), ([0, 1], [1, 2])
    expected = [torch.stack([maps[:, r, c] for r in rs for c in cs]).mean(0) for rs in rows for cs in columns]
    torch.testing.assert_close(pool_tokens(features, how="quarters", grid=(4, 3)), torch.cat(expected, 1))
    valid = torch.ones(2, 12, dtype=torch.bool)
    valid[0, [0, 1, 3, 4]] = False  # all of a quarter
    valid[1, 0] = False
    found = pool_tokens(features, valid, how="quarters", grid=(4, 3))
    assert (found[0, :5] == 0).all()
    torch.testing.assert_close(found[1, :5], (maps[1, 0, 1] + maps[1, 1, 0] + maps[1, 1, 1]) / 3)
    assert pool_tokens(features, how="quarters", grid=(1, 12)).shape == (2, 10)


@pytest.mark.parametrize("steps", [1, 3, 4, 7, 8])
def test_segments_are_adaptive_averages_over_the_real_steps(steps):
    """Torch's adaptive average pooling of what is real, of a spectrogram whose bands have tokens of their own."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 24, 5, generator=generator, dtype=torch.float64)
    valid = torch.ones(2, 3, 8, dtype=torch.bool)
    valid[1, :, steps:] = False
    found = pool_tokens(features, valid.flatten(1), how="segments", grid=(3, 8))
    maps = features.view(2, 3, 8, 5).mean(1).transpose(1, 2)  # (2, 5, 8)
    whole = torch.nn.functional.adaptive_avg_pool1d(maps[:1], 4)
    real = torch.nn.functional.adaptive_avg_pool1d(maps[1:, :, :steps], 4)
    torch.testing.assert_close(found, torch.cat([whole, real]).transpose(1, 2).flatten(1))
    torch.testing.assert_close(pool_tokens(features, how="segments", grid=(3, 8))[:1], found[:1])


def test_segments_of_scattered_padding_and_of_nothing():
    """A step counts with one real token; padding in it has no say, and segments of nothing are zeros."""
    features = torch.arange(2 * 12.0).view(2, 12, 1)
    valid = torch.tensor([[1, 0, 1, 1, 0, 1, 1, 0, 1, 1, 0, 0], [0] * 12], dtype=torch.bool)
    found = pool_tokens(features, valid, how="segments", grid=(2, 6))
    # Steps 0, 2, 3 and 5 are real: tokens 0 and 6; 2 and 8; 3 and 9; 5.
    torch.testing.assert_close(found, torch.tensor([[3.0, 5.0, 6.0, 5.0], [0.0] * 4]))


@pytest.mark.parametrize("how", ["quarters", "segments"])
@pytest.mark.parametrize("grid", [None, (3, 3)])
def test_quarters_and_segments_need_a_grid(grid, how):
    with pytest.raises(ValueError, match=f"{how} needs tokens on a grid, got 12 tokens"):
        pool_tokens(torch.zeros(1, 12, 3), how=how, grid=grid)
