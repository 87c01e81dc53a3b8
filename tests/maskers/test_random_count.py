"""Masks by number: counts, disjointness, padding, tiny samples, shapes that do not depend on the data."""

import itertools

import pytest
import torch

from jepa_lightning.maskers import RandomCount
from jepa_lightning.tokens import Masks, Tokens


def draw(masker, *, batch=4, count=20, valid=None, seed=0) -> Masks:
    tokens = Tokens(values=torch.zeros(batch, count, 1), positions=torch.zeros(batch, count, 3), valid=valid)
    (masks,) = masker(tokens, torch.Generator().manual_seed(seed))
    return masks


@pytest.mark.parametrize(
    ("settings", "count", "context", "targets"),
    [
        ({}, 20, 1, 4),
        ({}, 5, 1, 4),
        ({}, 3, 1, 2),
        ({}, 2, 1, 1),
        ({"context": 3, "targets": 2}, 20, 3, 2),
        ({"context": 3, "targets": 2}, 4, 3, 1),
        ({"context": 9, "targets": 2}, 4, 3, 1),
    ],
)
def test_without_padding_all_slots_are_real(settings, count, context, targets):
    for batch, seed in ((1, 0), (33, 1)):
        masks = draw(RandomCount(**settings), batch=batch, count=count, seed=seed)
        assert masks.context.shape == (batch, context)
        assert masks.targets.shape == (batch, targets, 1)
        assert masks.context_valid is None
        assert masks.targets_valid is None
        used = torch.cat([masks.context, masks.targets.flatten(1)], dim=1).sort(dim=1).values
        assert (used.diff(dim=1) > 0).all()
        assert used.min() >= 0
        assert used.max() < count
        assert (masks.context.diff(dim=1) > 0).all()


def test_a_single_token_is_context_and_predicts_nothing():
    masks = draw(RandomCount(), count=1)
    assert masks.context.tolist() == [[0]] * 4
    assert masks.context_valid.all()
    assert masks.targets.shape == (4, 1, 1)
    assert not masks.targets_valid.any()


SETTINGS = [
    {},
    {"context": 3, "targets": 2},
    {"context": 50, "targets": 50},
    {"context_share": (0.2, 0.7), "targets": 3},
    {"context_share": (0.3, 0.3), "targets": 1},
    {"context_share": (0.9, 1.0)},
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("count", [1, 2, 6, 30])
def test_padding_is_never_drawn_and_the_rest_is_what_is_asked_for(settings, count):
    masker = RandomCount(**settings)
    generator = torch.Generator().manual_seed(3)
    valid = torch.rand(300, count, generator=generator) < torch.rand(300, 1, generator=generator)
    valid[0] = True
    valid[1] = False
    masks = draw(masker, batch=300, count=count, valid=valid)
    whole = draw(masker, batch=2, count=count)
    assert masks.context.shape[1] == whole.context.shape[1]  # static: from N, not from the data
    assert masks.targets.shape[1:] == whole.targets.shape[1:]
    for sample in range(300):  # a plain loop as the reference
        n = int(valid[sample].sum())
        context = masks.context[sample][masks.context_valid[sample]]
        targets = masks.targets[sample][masks.targets_valid[sample]]
        least, most = (
            (masker.context, masker.context)
            if masker.context_share is None
            else (max(int(share * n + 0.5), 1) for share in masker.context_share)
        )
        low, high = (min(asked, max(n - 1, min(n, 1))) for asked in (least, most))
        assert low <= len(context) <= high
        assert len(targets) == min(masker.targets, n - len(context))
        used = context.tolist() + targets.tolist()
        assert len(used) == len(set(used))
        assert valid[sample][used].all()
        assert (context.diff() > 0).all()
    assert masks.context[~masks.context_valid].eq(0).all()
    assert masks.targets[~masks.targets_valid].eq(0).all()
    for slots in (masks.context_valid, masks.targets_valid.squeeze(2)):
        assert (slots.int().diff(dim=1) <= 0).all()  # real slots come first


def test_shares_are_drawn_for_each_sample():
    masks = draw(RandomCount(context_share=(0.1, 0.6)), batch=500, count=20)
    assert masks.context.shape[1] == 12
    assert set(masks.context_valid.sum(1).tolist()) == set(range(2, 13))
    assert masks.targets_valid.all()


def test_every_token_is_equally_often_context_and_each_target():
    valid = torch.ones(12_000, 8, dtype=torch.bool)
    valid[:, [2, 7]] = False
    masks = draw(RandomCount(context=2, targets=2), batch=12_000, count=8, valid=valid)
    for index, wanted in ((masks.context, 2 / 6), (masks.targets[:, 0], 1 / 6), (masks.targets[:, 1], 1 / 6)):
        share = torch.bincount(index.flatten(), minlength=8) / 12_000
        assert (share - wanted * valid[0]).abs().max() < 0.025  # 6 standard errors


def test_every_pair_of_context_and_target_occurs():
    masks = draw(RandomCount(targets=1), batch=2000, count=5)
    pairs = set(zip(masks.context.flatten().tolist(), masks.targets.flatten().tolist(), strict=True))
    assert pairs == set(itertools.permutations(range(5), 2))


def test_valid_everywhere_draws_the_same_as_no_padding():
    masker = RandomCount(context=3)
    plain, padded = draw(masker), draw(masker, valid=torch.ones(4, 20, dtype=torch.bool))
    assert torch.equal(plain.context, padded.context)
    assert torch.equal(plain.targets, padded.targets)
    assert padded.context_valid.all()
    assert padded.targets_valid.all()


@pytest.mark.parametrize("share", [None, (0.2, 0.5)])
def test_generator_decides_everything(share):
    before = torch.get_rng_state()
    first, again, other = (draw(RandomCount(context=4, context_share=share), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.context, again.context)
    assert torch.equal(first.targets, again.targets)
    assert not torch.equal(first.targets, other.targets)
    assert not torch.equal(first.targets[0], first.targets[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"context": 0}, "context must be at least 1, got 0"),
        ({"targets": 0}, "targets must be at least 1, got 0"),
        ({"context_share": (0.5, 1.1)}, "context_share must be two numbers with 0 < low <= high <= 1"),
        ({"context_share": (0.5, 0.4)}, "context_share must be two numbers"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        RandomCount(**settings)


def test_valid_of_another_shape_and_no_tokens():
    with pytest.raises(ValueError, match=r"Tokens.valid must be \(4, 20\)"):
        draw(RandomCount(), valid=torch.ones(4, 19, dtype=torch.bool))
    with pytest.raises(ValueError, match="0 tokens are too few"):
        draw(RandomCount(), count=0)
