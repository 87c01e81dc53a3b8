"""Whole units are hidden, or not at all."""

import pytest
import torch

from jepa_lightning.maskers import WholeUnits
from jepa_lightning.tokens import Tokens

COUNT = 24


def tokens(batch=40, seed=0, units=None):
    """Samples of words of one to five tokens, with a special token in front and padding behind."""
    generator = torch.Generator().manual_seed(seed)
    starts = torch.rand(batch, COUNT, generator=generator) < 0.4
    own = torch.randint(1, COUNT + 1, (batch, 1), generator=generator)
    valid = torch.arange(COUNT) < own
    word = (starts.cumsum(1) - starts[:, :1].long()).masked_fill(~valid, -1)
    word[:, 0] = -1
    places = torch.arange(COUNT)[None, :, None].float()
    return Tokens(values=torch.zeros(batch, COUNT), positions=places, valid=valid, units=units or {"word": word})


def draw(masker, of, seed=0):
    return masker(of, torch.Generator().manual_seed(seed))[0]


@pytest.mark.parametrize("settings", [{}, {"targets": 3}, {"target_ratio": 0.1}, {"target_ratio": 0.8, "targets": 2}])
def test_units_are_whole(settings):
    of, masker = tokens(), WholeUnits(**settings)
    word = of.units["word"]
    reached = torch.zeros_like(word, dtype=torch.bool)
    for seed in range(20):
        mask = draw(masker, of, seed)
        again = draw(masker, of, seed)
        assert torch.equal(mask.targets, again.targets)
        for row in range(len(word)):
            context = mask.context[row][mask.context_valid[row]]
            blocks = [t[v] for t, v in zip(mask.targets[row], mask.targets_valid[row], strict=True)]
            asked = torch.cat(blocks)
            assert of.valid[row][context].all()
            assert of.valid[row][asked].all()
            assert len(asked.unique()) == len(asked)  # blocks are disjoint
            assert not set(context.tolist()) & set(asked.tolist())
            seen, hidden = set(word[row][context].tolist()) - {-1}, set(word[row][asked].tolist())
            assert not seen & hidden  # no unit is in both
            assert -1 not in hidden
            known = set(word[row].tolist()) - {-1}
            if len(known) > 1 and int(of.valid[row].sum()) > masker.targets:
                assert seen  # a unit stays
                assert hidden
            assert len(context) or not of.valid[row].any()
            reached[row, asked] = True
            n = int(of.valid[row].sum())
            share = masker.target_ratio / masker.targets
            assert all(len(block) <= max(int(share * n + 0.5), 1) for block in blocks)
    several = [row for row in range(len(word)) if len(set(word[row].tolist()) - {-1}) > 3]
    assert (reached | (word < 0))[several].float().mean() > 0.6


def test_a_unit_that_is_too_long_is_hidden_whole_and_asked_for_in_part():
    word = torch.tensor([[0] * 10 + [1] * 10])
    places = torch.arange(20.0)[None, :, None]
    of = Tokens(values=torch.zeros(1, 20), positions=places, units={"sentence": word})
    mask = draw(WholeUnits(unit="sentence", target_ratio=0.2), of)
    asked = mask.targets[0, 0][mask.targets_valid[0, 0]]
    hidden = int(word[0, asked[0]])
    assert asked.tolist() == [10 * hidden + i for i in range(4)]
    assert mask.context[0][mask.context_valid[0]].tolist() == [10 * (1 - hidden) + i for i in range(10)]


def test_without_padding_and_of_one_unit():
    places = torch.arange(6.0)[None, :, None]
    of = Tokens(values=torch.zeros(2, 6), positions=places, units={"word": torch.zeros(2, 6, dtype=torch.int64)})
    mask = draw(WholeUnits(), of)
    assert not mask.targets_valid.any()
    assert mask.context.tolist() == [list(range(6))] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"target_ratio": 1.0}, "target_ratio must lie between 0 and 1"), ({"targets": 0}, "targets must be at least 1")],
)
def test_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        WholeUnits(**settings)


def test_unknown_units():
    with pytest.raises(ValueError, match="the unit 'sentence', these have word: set its unit"):
        draw(WholeUnits(unit="sentence"), tokens())
    bare = Tokens(values=torch.zeros(1, 8), positions=torch.zeros(1, 8, 1))
    with pytest.raises(ValueError, match="these have none"):
        draw(WholeUnits(), bare)


def test_kept_tokens_have_no_units():
    assert tokens().take(torch.zeros(40, 2, dtype=torch.int64)).units is None
