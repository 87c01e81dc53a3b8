"""Several maskers side by side."""

import pytest
import torch

from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.maskers import BlockUnion, MultiMasker, Random, Tube
from jepa_lightning.tokens import Tokens

TOKENS = Tokens(values=torch.zeros(3, 4 * 64, 1), positions=grid_positions((4, 8, 8)), grid=(4, 8, 8))


def test_masks_are_joined_in_order_from_one_generator():
    parts = [BlockUnion(), Random(target_ratio=0.5), MultiMasker([Tube(), BlockUnion(blocks=2, scale=(0.7, 0.7))])]
    found = MultiMasker(parts)(TOKENS, torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    expected = [masks for part in parts for masks in part(TOKENS, generator)]
    assert len(found) == len(expected) == 4
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.context, other.context)
        assert torch.equal(one.targets, other.targets)


def test_the_same_masker_twice_draws_twice():
    first, second = MultiMasker([Random(), Random()])(TOKENS, torch.Generator().manual_seed(1))
    assert not torch.equal(first.context, second.context)


@pytest.mark.parametrize(("maskers", "message"), [([], "at least one masker"), (["Random"], "got 'Random'")])
def test_what_is_no_masker_is_refused(maskers, message):
    with pytest.raises(ValueError, match=message):
        MultiMasker(maskers)
