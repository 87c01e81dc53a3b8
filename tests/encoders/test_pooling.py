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
    with pytest.raises(ValueError, match="mean, max or mean\\+max, got 'sum'"):
        pool_tokens(torch.zeros(1, 2, 3), how="sum")
