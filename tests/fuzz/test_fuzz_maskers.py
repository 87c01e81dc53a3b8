"""Every masker on any grid, count, batch and padding: masks that keep their promises, or a ValueError."""

import math

import pytest
import torch
from fuzz_helpers import bounded, fuzz, must_be_ours
from hypothesis import given
from hypothesis import strategies as st

from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.maskers import (
    BlockUnion,
    MultiBlock,
    MultiMasker,
    OrderedRuns,
    Random,
    RandomCount,
    SpatialBlocks,
    TimeSpans,
    Tube,
)
from jepa_lightning.maskers.random import counts as random_counts
from jepa_lightning.tokens import Tokens

shares = st.one_of(st.floats(0.01, 1.0), st.sampled_from([0.15, 0.5, 1.0, 0.0, -1.0, 2.0, math.nan, 1e-9]))
aspects = st.one_of(st.floats(0.2, 5.0), st.sampled_from([1.0, 1e-6, 1e6, math.nan, math.inf]))
few = st.one_of(st.integers(1, 8), st.sampled_from([0, -1, 10**9]))


def ranges(values):
    return st.tuples(values, values).map(lambda pair: tuple(sorted(pair)))


BLOCKS = {
    MultiBlock: {
        "targets": few,
        "target_scale": ranges(shares),
        "target_aspect": ranges(aspects),
        "context_scale": ranges(shares),
        "context_aspect": ranges(aspects),
        "min_context": few,
        "leading_scale": ranges(shares),
        "fixed_size": st.booleans(),
    },
    BlockUnion: {
        "blocks": few,
        "scale": ranges(shares),
        "aspect": ranges(aspects),
        "leading_scale": ranges(shares),
        "fixed_size": st.booleans(),
        "min_context": few,
    },
    TimeSpans: {"spans": few, "scale": ranges(shares), "separate": st.booleans()},
    Random: {"target_ratio": shares, "context_ratio": st.none() | shares, "targets": few},
    RandomCount: {"context": few, "targets": few, "context_share": st.none() | ranges(shares)},
    OrderedRuns: {
        "targets": few,
        "target_share": ranges(shares),
        "context_share": ranges(shares),
        "fixed_size": st.booleans(),
    },
}
BLOCKS[SpatialBlocks] = BLOCKS[OrderedRuns]


@st.composite
def settings_of(draw, kind):
    """A few drawn settings, the others at their defaults."""
    every = BLOCKS[kind]
    chosen = draw(st.lists(st.sampled_from(sorted(every)), unique=True))
    return {name: draw(every[name]) for name in chosen}


@st.composite
def masker(draw, kinds=tuple(BLOCKS)):
    kind = draw(st.sampled_from(kinds))
    return kind(**draw(settings_of(kind)))


@st.composite
def tokens(draw):
    """Tokens on a grid of one to three axes, some very small, with padding in some, and positions of any kind."""
    grid = tuple(draw(st.lists(st.integers(1, 16), min_size=1, max_size=3)))
    while math.prod(grid) > 600:
        grid = grid[1:]
    count, batch = math.prod(grid), draw(st.one_of(st.integers(1, 4), st.integers(1, 64)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    valid = None
    if draw(st.booleans()):
        rate = torch.rand(batch, 1, generator=generator) * draw(st.sampled_from([0.1, 1.0, 2.0]))
        valid = torch.rand(batch, count, generator=generator) < rate
    positions = grid_positions(grid)
    if draw(st.booleans()):
        positions = torch.randn(batch, count, 3, generator=generator) * draw(st.sampled_from([0.0, 1.0, 1e30]))
    on_grid = grid if draw(st.integers(0, 4)) else None
    return Tokens(values=torch.zeros(batch, count, 1), positions=positions, grid=on_grid, valid=valid)


def check(mask, given):
    """What every masker promises (`Masks`)."""
    batch, count = given.batch_size, given.count
    valid = torch.ones(batch, count, dtype=torch.bool) if given.valid is None else given.valid
    used = []
    for index, real in ((mask.context, mask.context_valid), (mask.targets, mask.targets_valid)):
        assert index.dtype == torch.int64
        assert index.shape[0] == batch
        assert index.numel() == 0 or 0 <= int(index.min()) <= int(index.max()) < count
        real = torch.ones_like(index, dtype=torch.bool) if real is None else real
        assert real.dtype == torch.bool
        assert real.shape == index.shape
        assert (index[~real] == 0).all()
        assert not (real[..., 1:] & ~real[..., :-1]).any(), "real slots come first"
        if index.ndim == 2:
            index, real = index[:, None], real[:, None]
        times = torch.zeros(batch, index.shape[1], count, dtype=torch.int64).scatter_add_(2, index, real.long())
        assert int(times.max() if times.numel() else 0) <= 1, "a token comes once in a block"
        used.append(times.sum(1))
        rising = (index[..., 1:] > index[..., :-1]) | ~real[..., 1:]
        assert rising.all()
    assert mask.context.ndim == 2
    assert mask.targets.ndim == 3
    context, targets = used[0] > 0, used[1] > 0
    assert not (context & targets).any()
    assert not ((context | targets) & ~valid).any()
    assert ((context.sum(1) > 0) == (valid.sum(1) > 0)).all(), "every sample of any token has a context"
    return context, targets, valid


def check_counts(made, mask, given, context, targets, valid):
    """What a masker promises about numbers of tokens."""
    count = given.count
    if isinstance(made, MultiBlock | OrderedRuns | SpatialBlocks | Random):
        assert mask.targets.shape[1] == made.targets
    if isinstance(made, BlockUnion | TimeSpans):
        assert ((context | targets) == valid).all(), "nothing is left out"
    if given.valid is not None:
        return
    assert targets.any(1).all() or (isinstance(made, RandomCount) and count == 1)
    if isinstance(made, MultiBlock | BlockUnion):
        assert (context.sum(1) >= made.min_context).all()
    if getattr(made, "fixed_size", False) or isinstance(made, MultiBlock):
        assert mask.context_valid is None
        assert mask.targets_valid is None
    if isinstance(made, Random):
        own = {"target_ratio": made.target_ratio, "context_ratio": made.context_ratio, "targets": made.targets}
        assert (mask.context.shape[1], mask.targets.shape[2]) == random_counts(count, **own)
    if isinstance(made, RandomCount) and made.context_share is None and count > 1:
        assert mask.context.shape[1] == min(made.context, count - 1)
        assert mask.targets.shape[1] == min(made.targets, count - mask.context.shape[1])


def draw_twice(made, given, seed):
    """The masks, which the same generator draws again."""
    drawn = made(given, torch.Generator().manual_seed(seed))
    for one, two in zip(drawn, made(given, torch.Generator().manual_seed(seed)), strict=True):
        assert one.context.equal(two.context)
        assert one.targets.equal(two.targets)
    return drawn


def attempt(make):
    """What `make` returns, or None where it refuses with a short ValueError."""
    try:
        return make()
    except ValueError as error:
        must_be_ours(error)
        return None


@pytest.mark.long
@given(st.data())
@fuzz(250)
def test_masks_keep_their_promises(data):
    kind = data.draw(st.sampled_from(tuple(BLOCKS)))
    settings = data.draw(settings_of(kind))
    given_tokens, seed = data.draw(tokens()), data.draw(st.integers(0, 2**63 - 1))
    with bounded():
        made = attempt(lambda: kind(**settings))
        drawn = made and attempt(lambda: draw_twice(made, given_tokens, seed))
        if drawn:
            (mask,) = drawn
            check_counts(made, mask, given_tokens, *check(mask, given_tokens))


@given(st.data())
@fuzz(60)
def test_maskers_of_maskers_keep_theirs(data):
    inner = data.draw(st.lists(st.sampled_from(tuple(BLOCKS)), min_size=1, max_size=3))
    through = data.draw(st.booleans())
    given_tokens = data.draw(tokens())
    with bounded():
        maskers = [attempt(lambda kind=kind: kind(**data.draw(settings_of(kind)))) for kind in inner]
        if None in maskers:
            return
        made = MultiMasker(maskers=[Tube(one) if through else one for one in maskers])
        drawn = attempt(lambda: draw_twice(made, given_tokens, 0))
        for mask in drawn or []:
            check(mask, given_tokens)
        assert drawn is None or len(drawn) == len(inner)
