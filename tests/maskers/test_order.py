"""Runs of an order, and blocks by positions alone."""

import math
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from jepa_lightning.maskers import OrderedRuns, SpatialBlocks
from jepa_lightning.maskers.order import _mean_left
from jepa_lightning.tokens import Tokens

BOTH = {
    "runs": OrderedRuns(),
    "runs_fixed": OrderedRuns(fixed_size=True),
    "blocks": SpatialBlocks(),
    "blocks_fixed": SpatialBlocks(fixed_size=True),
}


def make_tokens(count=64, batch=4, valid=None):
    generator = torch.Generator().manual_seed(batch + count)
    positions = torch.rand(batch, count, 3, generator=generator)
    return Tokens(values=torch.zeros(batch, count, 1), positions=positions, valid=valid)


def draw(masker, *, count=64, batch=4, valid=None, seed=0):
    (masks,) = masker(make_tokens(count, batch, valid), torch.Generator().manual_seed(seed))
    return masks


def real(index, valid):
    """The real slots of each row as lists."""
    valid = torch.ones_like(index, dtype=torch.bool) if valid is None else valid
    return [row[ok].tolist() for row, ok in zip(index.flatten(0, -2), valid.flatten(0, -2), strict=True)]


def samples(masks):
    """(context, target blocks) of each sample, as lists."""
    blocks, per = real(masks.targets, masks.targets_valid), masks.targets.shape[1]
    contexts = real(masks.context, masks.context_valid)
    return [(context, blocks[i * per : (i + 1) * per]) for i, context in enumerate(contexts)]


def check_slots(masks, count):
    for index, valid in ((masks.context, masks.context_valid), (masks.targets, masks.targets_valid)):
        assert index.dtype == torch.int64
        assert index.is_contiguous()
        assert (index >= 0).all()
        assert (index < count).all()
        if valid is not None:
            assert valid.shape == index.shape
            assert (index[~valid] == 0).all()
            assert (valid.int().diff(dim=-1) <= 0).all()  # real slots come first
        assert all(row == sorted(set(row)) for row in real(index, valid))
    for context, blocks in samples(masks):
        assert not {cell for block in blocks for cell in block} & set(context)


def some_valid(count=40, batch=300):
    generator = torch.Generator().manual_seed(3)
    return torch.rand(batch, count, generator=generator) < torch.rand(batch, 1, generator=generator)


def rounded(share, count):
    return min(max(math.floor(share * count + 0.5), 1), count)


# Runs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [5, 20, 64, 100])
def test_runs_are_contiguous_and_the_context_is_a_run_of_the_rest(count):
    as_target = torch.zeros(count)
    longest = max((count - 1) // 4, 1)
    for seed in range(3):
        masks = draw(OrderedRuns(), count=count, batch=300, seed=seed)
        check_slots(masks, count)
        assert masks.targets.shape[:2] == (300, 4)
        for context, blocks in samples(masks):
            size = len(blocks[0])
            assert min(rounded(0.15, count), longest) <= size <= min(rounded(0.2, count), longest)
            for block in blocks:
                assert block == list(range(block[0], block[0] + size))
                as_target[block] += 1
            hidden = {cell for block in blocks for cell in block}
            rest = [cell for cell in range(count) if cell not in hidden]
            assert rounded(0.4, len(rest)) <= len(context) <= rounded(0.75, len(rest))
            start = rest.index(context[0])
            assert context == rest[start : start + len(context)]
    assert as_target.min() > 0


def test_places_of_runs_are_equally_likely_and_shares_cover_their_range():
    masks = draw(OrderedRuns(targets=1, target_share=(0.3, 0.3)), count=10, batch=16_000)
    assert masks.targets_valid is None
    starts = torch.bincount(masks.targets[:, 0, 0], minlength=8)
    assert (starts - 2000).abs().max() < 5 * math.sqrt(2000)

    drawn = samples(draw(OrderedRuns(), count=100, batch=2000))
    sizes = {len(blocks[0]) for _, blocks in drawn}
    assert sizes == set(range(15, 21))
    shares = torch.tensor([len(c) / (100 - len({cell for b in blocks for cell in b})) for c, blocks in drawn])
    assert shares.mean() == pytest.approx((0.4 + 0.75) / 2, abs=0.01)
    assert shares.std() == pytest.approx(0.35 / math.sqrt(12), rel=0.1)


def test_the_context_starts_anywhere_in_the_rest():
    masks = draw(OrderedRuns(targets=1, target_share=(0.2, 0.2), context_share=(0.5, 0.5)), count=10, batch=10_000)
    starts = torch.zeros(5)
    for context, (block,) in samples(masks):
        starts[[cell for cell in range(10) if cell not in block].index(context[0])] += 1
    assert (starts - 2000).abs().max() < 5 * math.sqrt(2000)


def test_mean_number_that_is_left():
    """What `fixed_size` takes its context of, against the drawn masks."""
    masker = OrderedRuns(target_share=(0.17, 0.17), context_share=(1.0, 1.0))
    masks = draw(masker, count=64, batch=4000)
    left = torch.tensor([float(len(context)) for context, _ in samples(masks)])
    assert left.mean() == pytest.approx(_mean_left(64, 11, 4), abs=5 * float(left.std()) / math.sqrt(4000))


def test_fixed_runs_have_mean_sizes():
    masks = draw(OrderedRuns(fixed_size=True), batch=500)
    assert masks.context_valid is None
    assert masks.targets_valid is None
    check_slots(masks, 64)
    assert masks.targets.shape == (500, 4, 11)
    drawn = draw(OrderedRuns(), batch=500)
    assert masks.context.shape[1] == pytest.approx(float(drawn.context_valid.sum(1).float().mean()), abs=1)
    for context, blocks in samples(masks):
        hidden = {cell for block in blocks for cell in block}
        rest = [cell for cell in range(64) if cell not in hidden]
        start = rest.index(context[0])
        assert context == rest[start : start + len(context)]


# Blocks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [5, 20, 64])
def test_blocks_are_the_nearest_tokens_around_one_of_them(count):
    tokens = make_tokens(count, 100)
    (masks,) = SpatialBlocks()(tokens, torch.Generator().manual_seed(0))
    check_slots(masks, count)
    distance = torch.cdist(tokens.positions.double(), tokens.positions.double())
    longest = max((count - 1) // 4, 1)
    for i, (context, blocks) in enumerate(samples(masks)):
        near = distance[i].argsort(1).tolist()
        for block in blocks:
            assert min(rounded(0.15, count), longest) <= len(block) <= min(rounded(0.2, count), longest)
            assert len(block) == len(blocks[0])
            assert any(set(near[centre][: len(block)]) == set(block) for centre in block)
        hidden = {cell for block in blocks for cell in block}
        sizes = range(rounded(0.85, count), count + 1)
        possible = [set(near[centre][:size]) - hidden for centre in range(count) for size in sizes]
        assert set(context) in possible


@pytest.mark.parametrize("count", [5, 9, 20, 64])
@pytest.mark.parametrize("share", [(0.85, 1.0), (0.1, 0.3)])
def test_bounds_hold_where_sizes_are_not_read(count, share):
    """On an accelerator, sizes follow from these, on the CPU from the draw."""
    masker = SpatialBlocks(context_share=share)
    sizes = [(len(context), len(blocks[0])) for context, blocks in samples(draw(masker, count=count, batch=2000))]
    assert max(size for size, _ in sizes) <= masker._most_context([count])
    assert max(size for _, size in sizes) == masker._longest([count])


def test_blocks_of_a_shared_position_table_and_a_small_context():
    """Positions (1, N, P); a context block that the targets cover leaves the nearest token that is not hidden."""
    line = torch.arange(30.0).view(1, 30, 1)
    tokens = Tokens(values=torch.zeros(400, 30, 1), positions=line)
    masker = SpatialBlocks(targets=3, target_share=(0.3, 0.3), context_share=(0.1, 0.1))
    (masks,) = masker(tokens, torch.Generator().manual_seed(0))
    check_slots(masks, 30)
    sizes = [len(context) for context, _ in samples(masks)]
    assert min(sizes) == 1
    assert max(sizes) == 3
    for _, blocks in samples(masks):
        assert all(block == list(range(block[0], block[0] + 9)) for block in blocks)


def test_fixed_blocks_take_the_nearest_context_outside_the_targets():
    tokens = make_tokens(64, 100)
    (masks,) = SpatialBlocks(fixed_size=True)(tokens, torch.Generator().manual_seed(0))
    assert masks.context_valid is None
    assert masks.targets_valid is None
    check_slots(masks, 64)
    assert masks.targets.shape == (100, 4, 11)
    distance = torch.cdist(tokens.positions.double(), tokens.positions.double())
    for i, (context, blocks) in enumerate(samples(masks)):
        hidden = {cell for block in blocks for cell in block}
        rows = [[cell for cell in row if cell not in hidden] for row in distance[i].argsort(1).tolist()]
        assert any(set(row[: len(context)]) == set(context) for row in rows)


def test_every_token_is_a_target_somewhere():
    masks = draw(SpatialBlocks(), batch=1, seed=0)
    seen = torch.zeros(64)
    for seed in range(100):
        masks = draw(SpatialBlocks(), batch=1, seed=seed)
        assert masks.context_valid is None  # a batch of one has no filler
        seen[masks.targets.flatten()] += 1
    assert seen.min() > 0


# Both ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BOTH)
def test_padding_is_never_drawn(name):
    valid = some_valid()
    shapes = set()
    for seed in range(3):
        masks = draw(BOTH[name], count=40, batch=300, valid=valid, seed=seed)
        check_slots(masks, 40)
        shapes.add(masks.targets.shape)
        for i, (context, blocks) in enumerate(samples(masks)):
            own = int(valid[i].sum())
            cells = {cell for block in blocks for cell in block}
            assert valid[i][context].all()
            assert valid[i][sorted(cells)].all()
            assert (len(context) > 0) == (own > 0)
            assert (len(cells) > 0) == (own > 4)
            if own > 4:
                assert all(
                    min(rounded(0.15, own), (own - 1) // 4) <= len(block) <= min(rounded(0.2, own), (own - 1) // 4)
                    for block in blocks
                )
            if name.startswith("runs"):
                ranks = torch.cumsum(valid[i], 0)
                for block in blocks:
                    steps = ranks[block].tolist()
                    assert steps == list(range(steps[0], steps[0] + len(block))) if block else True
    assert len(shapes) == 1


@pytest.mark.parametrize("name", BOTH)
def test_valid_everywhere_draws_the_same_as_no_padding(name):
    plain = draw(BOTH[name])
    marked = draw(BOTH[name], valid=torch.ones(4, 64, dtype=torch.bool))
    assert samples(plain) == samples(marked)


@pytest.mark.parametrize("name", BOTH)
def test_positions_of_padding_may_be_anything(name):
    valid = some_valid(64, 50)
    tokens = make_tokens(64, 50, valid)
    spoilt = replace(tokens, positions=tokens.positions.masked_fill(~valid[..., None], math.nan))
    found = [BOTH[name](some, torch.Generator().manual_seed(0))[0] for some in (tokens, spoilt)]
    assert samples(found[0]) == samples(found[1])


@pytest.mark.parametrize("name", BOTH)
def test_generator_decides_everything(name):
    before = torch.get_rng_state()
    first, again, other = (draw(BOTH[name], seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.context, again.context)
    assert torch.equal(first.targets, again.targets)
    assert samples(first) != samples(other)
    assert samples(first)[0] != samples(first)[1]


@pytest.mark.parametrize("masker", [OrderedRuns, SpatialBlocks])
@pytest.mark.parametrize("share", [(0.15, 0.2), (0.2, 0.22), (0.01, 0.02)])
def test_fixed_sizes_hold_for_any_number_of_tokens(masker, share):
    """A larger cloud may have a smaller context: no slot may be filler that nothing marks."""
    for count in range(5, 60):
        masks = draw(masker(fixed_size=True, target_share=share), count=count, batch=8)
        assert masks.context_valid is None
        assert masks.targets_valid is None
        check_slots(masks, count)


@pytest.mark.parametrize("name", ["runs_fixed", "blocks_fixed"])
@pytest.mark.parametrize("padding", [False, True])
def test_fixed_sizes_ask_nothing_of_the_data(name, padding):
    """Fake tensors have shapes and no values, as under tracing: whatever reads a value of them raises."""
    tokens = make_tokens(64, 50, some_valid(64, 50) if padding else None)
    (expected,) = BOTH[name](tokens, torch.Generator())
    with FakeTensorMode(allow_non_fake_inputs=True):
        (masks,) = BOTH[name](tokens, torch.Generator())
        assert masks.targets.shape == expected.targets.shape
        assert masks.context.shape == expected.context.shape


@pytest.mark.parametrize("masker", [OrderedRuns, SpatialBlocks])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"targets": 0}, "targets must be at least 1, got 0"),
        ({"target_share": (0.0, 0.1)}, "target_share must be two numbers"),
        ({"target_share": (0.2, 0.25)}, "4 targets of up to 0.25 of the tokens can leave no context"),
        ({"context_share": (0.5, 1.1)}, "context_share must be two numbers"),
    ],
)
def test_settings_out_of_range(masker, settings, message):
    with pytest.raises(ValueError, match=message):
        masker(**settings)


@pytest.mark.parametrize("name", BOTH)
def test_tokens_that_do_not_fit(name):
    with pytest.raises(ValueError, match="4 tokens are too few for 4 target"):
        draw(BOTH[name], count=4)
    with pytest.raises(ValueError, match=r"Tokens.valid must be \(4, 64\)"):
        draw(BOTH[name], valid=torch.ones(4, 63, dtype=torch.bool))


@pytest.mark.parametrize("scale", [1e30, float("nan")])
def test_blocks_where_distances_overflow_never_show_a_target(scale):
    positions = torch.randn(2, 9, 3, generator=torch.Generator().manual_seed(0)) * scale
    tokens = Tokens(values=torch.zeros(2, 9, 1), positions=positions)
    for seed in range(20):
        (masks,) = SpatialBlocks()(tokens, torch.Generator().manual_seed(seed))
        shown = masks.context if masks.context_valid is None else masks.context.masked_fill(~masks.context_valid, -1)
        for context, targets in zip(shown.tolist(), samples(masks), strict=True):
            hidden = {token for block in targets[1] for token in block}
            assert not hidden & {token for token in context if token >= 0}
