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
    with pytest.raises(ValueError, match="mean, max, mean\\+max or quarters, got 'sum'"):
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


@pytest.mark.parametrize("grid", [None, (3, 3)])
def test_quarters_need_a_grid(grid):
    with pytest.raises(ValueError, match="quarters needs tokens on a grid, got 12 tokens"):
        pool_tokens(torch.zeros(1, 12, 3), how="quarters", grid=grid)
