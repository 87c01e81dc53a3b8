"""Spans of time, and block maskers on grids with padding."""

import math
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.maskers import BlockUnion, MultiBlock, TimeSpans
from jepa_lightning.maskers.spans import span_plan
from jepa_lightning.tokens import Tokens

GRIDS = [(8, 12), (40,), (1, 64), (2, 3, 10)]


def make_tokens(grid, batch=4, valid=None):
    values = torch.zeros(batch, math.prod(grid), 1)
    return Tokens(values=values, positions=grid_positions(grid), grid=grid, valid=valid)


def draw(masker, grid, *, batch=4, valid=None, seed=0):
    (masks,) = masker(make_tokens(grid, batch, valid), torch.Generator().manual_seed(seed))
    return masks


def padded(grid, steps):
    """Valid tokens of samples with so many time steps: (B, N)."""
    valid = torch.arange(grid[-1]) < torch.tensor(steps)[:, None]
    return valid[:, None].expand(-1, math.prod(grid[:-1]), -1).flatten(1)


def real(index, valid):
    """The real slots of each sample (or block) as lists."""
    valid = torch.ones_like(index, dtype=torch.bool) if valid is None else valid
    return [row[ok].tolist() for row, ok in zip(index.flatten(0, -2), valid.flatten(0, -2), strict=True)]


def check_slots(index, valid, count):
    assert index.dtype == torch.int64
    assert (index >= 0).all()
    assert (index < count).all()
    if valid is not None:
        assert valid.shape == index.shape
        assert (index[~valid] == 0).all()
        assert (valid.int().diff(dim=-1) <= 0).all()  # real slots come first
    for row in real(index, valid):
        assert row == sorted(set(row))


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_spans_cover_all_rows_and_the_context_is_the_rest(grid, separate):
    steps, rows, count = grid[-1], math.prod(grid[:-1]), math.prod(grid)
    as_target = torch.zeros(count)
    for seed in range(6):
        masks = draw(TimeSpans(spans=3, separate=separate), grid, batch=100, seed=seed)
        assert masks.context_valid is None
        assert masks.targets_valid is None
        check_slots(masks.context, None, count)
        check_slots(masks.targets, None, count)
        assert masks.targets.shape[:2] == (100, 3 if separate else 1)
        for context, blocks in zip(masks.context, masks.targets, strict=True):
            assert sorted(context.tolist() + blocks.flatten().tolist()) == list(range(count))
            for block in blocks:
                hidden = torch.zeros(count)
                hidden[block] = 1
                frames = hidden.view(rows, steps)
                assert (frames == frames[:1]).all()
                starts = int((torch.cat([torch.zeros(1), frames[0]]).diff() > 0).sum())
                assert starts == 1 if separate else 1 <= starts <= 3
                as_target += hidden
    assert as_target.min() > 0  # every position is a target in some sample, and context in another
    assert as_target.max() < 600


def test_all_placements_are_equally_likely():
    masks = draw(TimeSpans(spans=2, scale=(0.2, 0.2), separate=True), (10,), batch=21_000)
    starts = masks.targets[:, :, 0]
    possible = [(a, b) for a, b in combinations(range(9), 2) if b - a >= 2]
    assert len(possible) == 28
    counts = torch.bincount(starts[:, 0] * 10 + starts[:, 1], minlength=100)
    assert counts.sum() == sum(counts[a * 10 + b] for a, b in possible)
    for a, b in possible:
        assert abs(int(counts[a * 10 + b]) - 750) < 5 * math.sqrt(750)


def test_lengths_come_from_the_scale():
    lengths = {draw(TimeSpans(spans=2), (100,), seed=seed).targets.shape[2] // 2 for seed in range(200)}
    assert lengths == set(range(10, 21))


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("grid", [(4, 17), (30,)], ids=str)
def test_padding_is_neither_context_nor_target(grid, separate):
    steps, rows, count = grid[-1], math.prod(grid[:-1]), math.prod(grid)
    masker = TimeSpans(spans=3, scale=(0.15, 0.15), separate=separate)
    lengths = list(range(steps + 1)) * 5
    valid = padded(grid, lengths)
    shapes = set()
    as_target = torch.zeros(steps + 1, steps)
    for seed in range(8):
        masks = draw(masker, grid, batch=len(lengths), valid=valid, seed=seed)
        check_slots(masks.context, masks.context_valid, count)
        check_slots(masks.targets, masks.targets_valid, count)
        shapes.add((masks.context.shape, masks.targets.shape))
        contexts = real(masks.context, masks.context_valid)
        blocks = real(masks.targets, masks.targets_valid)
        per = masks.targets.shape[1]
        for i, n in enumerate(lengths):
            mine = blocks[i * per : (i + 1) * per]
            number, size = span_plan(n, share=0.15, spans=3)
            assert sum(map(len, mine)) == number * size * rows
            if separate:
                assert [len(block) for block in mine] == [size * rows] * number + [0] * (per - number)
            used = sorted(contexts[i] + [cell for block in mine for cell in block])
            assert used == torch.nonzero(valid[i]).flatten().tolist()  # all that is valid, and nothing twice
            assert contexts[i] or not n
            for cell in (cell for block in mine for cell in block):
                as_target[n, cell % steps] += 1
    assert len(shapes) == 1  # from the grid, not from the data
    for n in range(2, steps + 1):
        assert (as_target[n, :n] > 0).all()


@pytest.mark.parametrize(("spans", "share"), [(1, 0.3), (4, 0.15), (3, 0.3), (9, 0.1), (20, 0.04)])
def test_short_samples_hide_a_like_share(spans, share):
    for steps in range(200):
        number, size = span_plan(steps, share=share, spans=spans)
        hidden = number * size
        if steps < 2:
            assert hidden == 0
        else:
            assert 1 <= hidden < steps
            assert 1 <= number <= spans
            assert size == 1 or number == spans
            assert abs(hidden - spans * share * steps) < max(spans, 1.5)  # less than a step a span


def test_valid_steps_need_not_come_first():
    valid = torch.rand(200, 5, 20, generator=torch.Generator().manual_seed(0)) < 0.3
    valid[:, :, 7] = False
    masks = draw(TimeSpans(spans=2), (5, 20), batch=200, valid=valid.flatten(1))
    for i, (context, target) in enumerate(
        zip(real(masks.context, masks.context_valid), real(masks.targets, masks.targets_valid), strict=True)
    ):
        assert sorted(context + target) == torch.nonzero(valid[i].flatten()).flatten().tolist()
        assert context
        assert target
        steps = {cell % 20 for cell in target}
        assert not steps & {cell % 20 for cell in context}


def test_valid_everywhere_draws_the_same_as_no_padding():
    plain = draw(TimeSpans(), (4, 32))
    marked = draw(TimeSpans(), (4, 32), valid=torch.ones(4, 128, dtype=torch.bool))
    assert real(marked.context, marked.context_valid) == plain.context.tolist()
    assert real(marked.targets, marked.targets_valid) == plain.targets.flatten(0, 1).tolist()


MASKERS = {
    "spans": TimeSpans(),
    "union": BlockUnion(blocks=2),
    "union_fixed": BlockUnion(blocks=2, fixed_size=True),
    "blocks": MultiBlock(min_context=4),
    "blocks_fixed": MultiBlock(min_context=4, fixed_size=True),
}


@pytest.mark.parametrize("with_padding", [False, True])
@pytest.mark.parametrize("name", MASKERS)
def test_generator_decides_everything(name, with_padding):
    valid = padded((8, 16), [16, 9, 4, 1]) if with_padding else None
    before = torch.get_rng_state()
    first, again, other = (draw(MASKERS[name], (8, 16), valid=valid, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.context, again.context)
    assert torch.equal(first.targets, again.targets)
    assert real(first.targets, first.targets_valid) != real(other.targets, other.targets_valid)


@pytest.mark.parametrize("name", ["spans", "union_fixed", "blocks_fixed"])
def test_fixed_sizes_ask_nothing_of_the_data(name):
    """Fake tensors have shapes and no values, as under tracing: whatever reads a value of them raises."""
    masker = TimeSpans(scale=(0.15, 0.15)) if name == "spans" else MASKERS[name]
    tokens = make_tokens((8, 16), 4, padded((8, 16), [16, 9, 4, 1]))
    (expected,) = masker(tokens, torch.Generator())
    with FakeTensorMode(allow_non_fake_inputs=True):
        (masks,) = masker(tokens, torch.Generator())
        assert masks.targets.shape == expected.targets.shape
        assert masks.context.shape == expected.context.shape


# Blocks with padding ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["union", "union_fixed", "blocks", "blocks_fixed"])
@pytest.mark.parametrize("grid", [(8, 16), (2, 6, 10)], ids=str)
def test_blocks_leave_padding_out(name, grid):
    masker, count = MASKERS[name], math.prod(grid)
    lengths = list(range(grid[-1] + 1)) * 8
    valid = padded(grid, lengths)
    valid[: len(lengths) // 2] &= torch.rand(len(lengths) // 2, count, generator=torch.Generator().manual_seed(0)) < 0.7
    wanted = 4 if name.startswith("blocks") else 1
    empty = 0
    for seed in range(4):
        masks = draw(masker, grid, batch=len(lengths), valid=valid, seed=seed)
        check_slots(masks.context, masks.context_valid, count)
        check_slots(masks.targets, masks.targets_valid, count)
        contexts, per = real(masks.context, masks.context_valid), masks.targets.shape[1]
        blocks = real(masks.targets, masks.targets_valid)
        for i in range(len(lengths)):
            mine = {cell for block in blocks[i * per : (i + 1) * per] for cell in block}
            total = int(valid[i].sum())
            assert valid[i][contexts[i]].all()
            assert valid[i][sorted(mine)].all()
            assert not mine & set(contexts[i])
            assert len(contexts[i]) >= min(wanted, (total + 1) // 2)
            if name.startswith("union"):
                assert len(contexts[i]) + len(mine) == total
            empty += 4 * lengths[i] > grid[-1] and not mine
    assert empty <= 2  # of hundreds: samples of a quarter or more nearly always have a target


@pytest.mark.parametrize("name", ["union", "blocks", "blocks_fixed"])
def test_blocks_hide_about_as_much_of_short_samples(name):
    """The share of the valid tokens that is hidden is that of samples without padding, but for the smallest."""
    masker, shares = MASKERS[name], []
    for steps in (16, 10, 6):
        hidden = 0
        for seed in range(4):
            masks = draw(masker, (8, 16), batch=100, valid=padded((8, 16), [steps] * 100), seed=seed)
            per = masks.targets.shape[1]
            blocks = real(masks.targets, masks.targets_valid)
            hidden += sum(len({c for block in blocks[i : i + per] for c in block}) for i in range(0, len(blocks), per))
        shares.append(hidden / (400 * 8 * steps))
    assert shares[1] == pytest.approx(shares[0], abs=0.12)
    assert shares[2] == pytest.approx(shares[0], abs=0.2)


def test_the_context_of_a_full_sample_stays_inside_its_block():
    """Beside padded samples, those without padding are masked by the same rules as ever."""
    masker = MultiBlock(targets=1, target_scale=(0.1, 0.1), context_scale=(0.3, 0.3), min_context=2)
    valid = padded((10, 10), [10] * 50)
    masks = draw(masker, (10, 10), batch=50, valid=valid)
    for context in real(masks.context, masks.context_valid):
        rows, columns = [cell // 10 for cell in context], [cell % 10 for cell in context]
        assert max(rows) - min(rows) < 6  # a block of 30 tokens is 5 or 6 a side
        assert max(columns) - min(columns) < 6


# Errors -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"spans": 0}, "spans must be at least 1, got 0"),
        ({"scale": (0.0, 0.1)}, "scale must be two numbers"),
        ({"scale": (0.3, 0.2)}, "scale must be two numbers"),
        ({"spans": 5, "scale": (0.1, 0.2)}, "5 spans of up to 0.2 of the time leave no context"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        TimeSpans(**settings)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"grid": None}, "TimeSpans needs tokens that fill a grid"),
        ({"grid": (7, 7)}, "grid of 7x7 does not hold 96 tokens"),
        ({"grid": (24, 4)}, "4 time steps, and 4 spans and a context need at least 5"),
        ({"valid": torch.ones(4, 95, dtype=torch.bool)}, r"Tokens.valid must be \(4, 96\)"),
    ],
)
def test_tokens_that_do_not_fit(fields, message):
    with pytest.raises(ValueError, match=message):
        TimeSpans()(replace(make_tokens((8, 12)), **fields), torch.Generator())
