"""One of several maskers at each step."""

import pytest
import torch

from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.maskers import MixedMasker, MultiBlock, Random
from jepa_lightning.tokens import Tokens

TOKENS = Tokens(values=torch.zeros(2, 64, 1), positions=grid_positions((8, 8)), grid=(8, 8))


def test_each_is_chosen_as_often_as_its_share():
    masker = MixedMasker([Random(targets=1), Random(targets=2), Random(targets=3)], shares=[3, 0, 1])
    generator = torch.Generator().manual_seed(0)
    found = [masker(TOKENS, generator)[0].targets.shape[1] for _ in range(400)]
    assert set(found) == {1, 3}
    assert 0.68 < found.count(1) / 400 < 0.82
    equal = MixedMasker([Random(targets=1), Random(targets=2)])
    assert {equal(TOKENS, generator)[0].targets.shape[1] for _ in range(30)} == {1, 2}


def test_masks_are_those_of_the_chosen_masker():
    masker = MixedMasker([MultiBlock(), Random()], shares=[0, 1])
    generator = torch.Generator().manual_seed(1)
    torch.rand((), generator=generator)
    expected = Random()(TOKENS, generator)[0]
    found = masker(TOKENS, torch.Generator().manual_seed(1))[0]
    assert torch.equal(found.context, expected.context)
    assert torch.equal(found.targets, expected.targets)


@pytest.mark.parametrize("shares", [[1.0], [0.0, 0.0], [1.0, -1.0], [1.0, float("inf")]])
def test_shares_that_do_not_fit(shares):
    with pytest.raises(ValueError, match="one number of at least 0 for each of 2 maskers"):
        MixedMasker([Random(), Random()], shares=shares)


@pytest.mark.parametrize("maskers", [[], ["Random"]])
def test_what_is_no_masker_is_refused(maskers):
    with pytest.raises(ValueError, match="at least one masker"):
        MixedMasker(maskers)
