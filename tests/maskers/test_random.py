import pytest
import torch

from jepa_lightning.maskers import Random
from jepa_lightning.maskers.random import counts
from jepa_lightning.tokens import Masks, Tokens


def draw(masker, *, batch=4, count=50, valid=None, seed=0) -> Masks:
    tokens = Tokens(values=torch.zeros(batch, count, 1), positions=torch.zeros(1, count, 3), valid=valid)
    (masks,) = masker(tokens, torch.Generator().manual_seed(seed))
    return masks


def prefix_valid(lengths, count):
    return torch.arange(count) < torch.tensor(lengths)[:, None]


@pytest.mark.parametrize(
    ("settings", "count", "context", "targets"),
    [
        ({}, 50, 20, (1, 30)),
        ({}, 196, 78, (1, 118)),
        ({"target_ratio": 0.5, "context_ratio": 0.25}, 50, 13, (1, 25)),
        ({"targets": 4}, 50, 18, (4, 8)),
        ({"target_ratio": 0.99}, 10, 1, (1, 9)),  # one token is left for the context
        ({"target_ratio": 0.01}, 10, 9, (1, 1)),
        ({"target_ratio": 0.01, "context_ratio": 0.01}, 2, 1, (1, 1)),
        ({"target_ratio": 0.5, "context_ratio": 0.5}, 5, 2, (1, 3)),
        ({"target_ratio": 0.7, "context_ratio": 0.3}, 10, 3, (1, 7)),
    ],
)
def test_counts_and_disjointness(settings, count, context, targets):
    for batch, seed in ((1, 0), (33, 1), (33, 2)):
        masks = draw(Random(**settings), batch=batch, count=count, seed=seed)
        assert masks.context.shape == (batch, context)
        assert masks.targets.shape == (batch, *targets)
        assert masks.context_valid is None
        assert masks.targets_valid is None
        used = torch.cat([masks.context, masks.targets.flatten(1)], dim=1).sort(dim=1).values
        assert (used.diff(dim=1) > 0).all()  # distinct, within and between context and target blocks
        assert used.min() >= 0
        assert used.max() < count
        assert (masks.context.diff(dim=1) > 0).all()
        assert (masks.targets.diff(dim=2) > 0).all()


def test_every_token_is_equally_often_context_and_target():
    masks = draw(Random(targets=3), batch=10_000, count=25)
    for index in (masks.context, *masks.targets.unbind(1)):
        share = torch.bincount(index.flatten(), minlength=25) / 10_000
        assert (share - index.shape[1] / 25).abs().max() < 0.03  # 6 standard errors


def test_generator_decides_everything():
    before = torch.get_rng_state()
    first, again, other = (draw(Random(), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.context, again.context)
    assert torch.equal(first.targets, again.targets)
    assert not torch.equal(first.context, other.context)
    assert not torch.equal(first.context[0], first.context[1])


@pytest.mark.parametrize("settings", [{}, {"targets": 4}, {"target_ratio": 0.5, "context_ratio": 0.25, "targets": 3}])
def test_padding_is_never_drawn(settings):
    count = 40
    masker = Random(**settings)
    generator = torch.Generator().manual_seed(3)
    valid = torch.rand(500, count, generator=generator) < torch.rand(500, 1, generator=generator)
    masks = draw(masker, batch=500, count=count, valid=valid)
    whole = draw(masker, batch=500, count=count)
    assert masks.context.shape == whole.context.shape  # static: from N, not from the data
    assert masks.targets.shape == whole.targets.shape
    for sample in range(500):  # a plain loop as the reference
        real = int(valid[sample].sum())
        keep, hide = counts(
            real,
            target_ratio=masker.target_ratio,
            context_ratio=masker.context_ratio,
            targets=masker.targets,
        )
        context = masks.context[sample][masks.context_valid[sample]]
        assert len(context) == min(keep, masks.context.shape[1])
        assert (context.diff() > 0).all()
        used = context.tolist()
        for block, block_valid in zip(masks.targets[sample], masks.targets_valid[sample], strict=True):
            assert int(block_valid.sum()) == hide
            assert (block[block_valid].diff() > 0).all()
            used += block[block_valid].tolist()
        assert len(used) == len(set(used))
        assert valid[sample][used].all()
        if masker.context_ratio is None and masker.targets == 1:
            assert len(used) == real
    assert masks.context[~masks.context_valid].eq(0).all()
    assert masks.targets[~masks.targets_valid].eq(0).all()
    for slots in (masks.context_valid, masks.targets_valid):
        assert (slots.int().diff(dim=-1) <= 0).all()  # real slots come first


def test_padding_ratios_per_sample():
    masks = draw(Random(), batch=5, count=20, valid=prefix_valid([20, 10, 2, 1, 0], 20))
    assert masks.context_valid.sum(1).tolist() == [8, 4, 1, 1, 0]
    assert masks.targets_valid.sum((1, 2)).tolist() == [12, 6, 1, 0, 0]


def test_valid_everywhere_draws_the_same_as_no_padding():
    plain, padded = draw(Random(targets=2)), draw(Random(targets=2), valid=torch.ones(4, 50, dtype=torch.bool))
    assert torch.equal(plain.context, padded.context)
    assert torch.equal(plain.targets, padded.targets)
    assert padded.context_valid.all()
    assert padded.targets_valid.all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_ratio": 0.0}, "target_ratio must lie between 0 and 1"),
        ({"target_ratio": 1.0}, "target_ratio must lie between 0 and 1"),
        (
            {"target_ratio": 0.6, "context_ratio": 0.5},
            "context_ratio must be above 0 and at most 1 - target_ratio = 0.4",
        ),
        ({"context_ratio": 0.0}, "context_ratio must be above 0"),
        ({"targets": 0}, "targets must be at least 1"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        Random(**settings)


def test_too_few_tokens():
    with pytest.raises(ValueError, match="4 tokens cannot be split into 4 target blocks and a context"):
        draw(Random(targets=4), count=4)


def test_valid_of_another_shape():
    with pytest.raises(ValueError, match=r"Tokens.valid must be \(4, 50\)"):
        draw(Random(), valid=torch.ones(4, 49, dtype=torch.bool))
