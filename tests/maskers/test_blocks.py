import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.maskers import MultiBlock
from jepa_lightning.maskers import blocks as blocks_module
from jepa_lightning.maskers.blocks import block_size, expected_visible
from jepa_lightning.tokens import Masks, Tokens

GRIDS = [(14, 14), (8, 24), (9, 5), (40,), (4, 8, 8), (3, 6, 10)]
both_modes = pytest.mark.parametrize("fixed_size", [False, True])


def make_tokens(grid, batch=4):
    return Tokens(values=torch.zeros(batch, math.prod(grid), 1), positions=grid_positions(grid), grid=grid)


def draw(masker, grid, *, batch=4, seed=0) -> Masks:
    (masks,) = masker(make_tokens(grid, batch), torch.Generator().manual_seed(seed))
    return masks


def counted(index, count):
    """How often each of `count` tokens occurs in each sample of `index` (B, ...)."""
    index = index.flatten(1)
    return torch.zeros(len(index), count, dtype=torch.long).scatter_add_(1, index, torch.ones_like(index))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@both_modes
def test_what_holds_for_every_draw(grid, fixed_size):
    count, total = math.prod(grid), 0
    as_context, as_target = torch.zeros(count), torch.zeros(count)
    masker = MultiBlock(fixed_size=fixed_size, leading_scale=(0.5, 1.0))
    while total < 10_000:
        masks = draw(masker, grid, batch=500, seed=total)
        context, target = counted(masks.context, count), counted(masks.targets, count)
        assert masks.context.dtype == masks.targets.dtype == torch.int64
        assert masks.context.shape[0] == 500
        assert masks.targets.shape[:2] == (500, 4)
        assert masks.context_valid is None
        assert masks.targets_valid is None
        assert masks.context.shape[1] >= 10
        assert context.max() == 1  # distinct
        assert not (context.bool() & target.bool()).any()  # disjoint
        assert (masks.context.diff(dim=1) > 0).all()  # raster order
        assert (masks.targets.diff(dim=2) > 0).all()  # raster order and distinct in each block
        as_context, as_target, total = as_context + context.sum(0), as_target + target.sum(0), total + 500
    assert as_context.min() > 0
    assert as_target.min() > 0


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@both_modes
def test_targets_are_boxes_of_one_size(grid, fixed_size):
    masks = draw(MultiBlock(fixed_size=fixed_size, leading_scale=(0.4, 0.8)), grid, batch=16)
    coordinates = grid_positions(grid)[0].long()[masks.targets]  # (B, M, T, P)
    sides = coordinates.amax(2) - coordinates.amin(2) + 1  # (B, M, P)
    assert (sides == sides[0, 0]).all()
    assert sides[0, 0].prod() == masks.targets.shape[2]  # distinct tokens that fill their bounding box


def test_samples_and_blocks_have_places_of_their_own():
    masks = draw(MultiBlock(), (14, 14), batch=64)
    places = masks.targets[:, :, 0]
    assert len(places.unique(dim=0)) == 64
    assert (places[:, 0] == places[:, 1]).float().mean() < 0.2


def test_places_are_uniform_over_all_placements():
    masks = draw(MultiBlock(fixed_size=True, targets=1), (7, 9), batch=20_000)
    first = counted(masks.targets[:, :, :1], 63).sum(0)
    height, width = block_size((7, 9), scale=0.175, aspect=math.sqrt(0.75 * 1.5))
    expected = 20_000 / ((8 - height) * (10 - width))
    allowed = torch.zeros(7, 9, dtype=torch.bool)
    allowed[: 8 - height, : 10 - width] = True
    assert (first[~allowed.flatten()] == 0).all()
    assert (first[allowed.flatten()] - expected).abs().max() < 5 * math.sqrt(expected)


@both_modes
def test_generator_decides_everything(fixed_size):
    masker = MultiBlock(fixed_size=fixed_size)
    before = torch.get_rng_state()
    first, again, other = (draw(masker, (14, 14), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.context, again.context)
    assert torch.equal(first.targets, again.targets)
    assert not torch.equal(first.targets[:, :, 0], other.targets[:, :, 0])


def test_scale_and_aspect_are_independent():
    """On a fine grid, the drawn area and shape must not go together (one random number for both correlates by 1)."""
    sides = []
    masker = MultiBlock(targets=1)
    for seed in range(300):
        block = draw(masker, (60, 60), batch=1, seed=seed).targets[0, 0]
        sides.append([len((block // 60).unique()), len((block % 60).unique())])
    height, width = torch.tensor(sides).double().unbind(1)
    area, aspect = height * width / 3600, height / width
    assert 0.145 < area.min() < 0.155
    assert 0.195 < area.max() < 0.205
    assert 0.7 < aspect.min() < 0.8
    assert 1.4 < aspect.max() < 1.6
    assert torch.corrcoef(torch.stack([area, aspect]))[0, 1].abs() < 0.2  # 3.5 standard errors


@both_modes
def test_dropping_favours_no_part_of_the_image(fixed_size):
    """Cutting contexts to size in raster order moves the mean row up by a row or more at this batch size."""
    masker = MultiBlock(fixed_size=fixed_size)
    rows = [draw(masker, (14, 14), batch=256, seed=s).context.div(14, rounding_mode="floor") for s in range(8)]
    mean = sum(row.float().mean() for row in rows) / len(rows)
    assert mean == pytest.approx(6.5, abs=0.1)


@both_modes
def test_context_is_as_often_at_the_top_as_at_the_bottom(fixed_size):
    masker = MultiBlock(fixed_size=fixed_size)
    seen = sum(counted(draw(masker, (14, 14), batch=256, seed=s).context, 196).sum(0) for s in range(20)).view(14, 14)
    for flipped in (seen.flip(0), seen.flip(1)):
        assert (seen.sum(1) / flipped.sum(1)).sub(1).abs().max() < 0.1
        assert (seen.sum(0) / flipped.sum(0)).sub(1).abs().max() < 0.1


def test_context_stays_in_its_block_where_it_can():
    """Without top-up, every context token lies in a block of the context's size."""
    masker = MultiBlock(context_scale=(0.4, 0.4), min_context=1, targets=1)
    masks = draw(masker, (14, 14), batch=64)
    side = block_size((14, 14), scale=0.4)[0]
    coordinates = grid_positions((14, 14))[0].long()[masks.context]
    assert (coordinates.amax(1) - coordinates.amin(1)).max() < side


def test_short_contexts_are_topped_up_with_tokens_outside_the_block():
    """Context blocks of 2x2 cannot hold 10 tokens: the others come from the rest of the grid, and are no targets."""
    masks = draw(MultiBlock(context_scale=(0.02, 0.02)), (14, 14), batch=200)
    assert masks.context.shape == (200, 10)
    assert not (counted(masks.context, 196).bool() & counted(masks.targets, 196).bool()).any()
    rows = masks.context.div(14, rounding_mode="floor")
    assert (rows.amax(1) - rows.amin(1)).float().mean() > 8  # all over the grid, not the first ones in raster order
    assert rows.float().mean() == pytest.approx(6.5, abs=0.4)


def test_targets_that_leave_too_little_are_drawn_again():
    masker = MultiBlock(targets=2, target_scale=(0.3, 0.3), target_aspect=(1.0, 1.0), min_context=20)
    masks = draw(masker, (6, 6), batch=2000)  # 3x3 blocks: 18 of 36 tokens at worst
    left = (counted(masks.targets, 36) == 0).sum(1)
    assert left.min() >= 20
    assert masks.context.shape[1] >= 20
    assert len(masks.targets[:, :, 0].unique(dim=0)) > 50  # 256 places of two blocks less the forbidden ones


@both_modes
def test_blocks_are_laid_onto_each_other_when_no_draw_fits(fixed_size, monkeypatch):
    monkeypatch.setattr(blocks_module, "_ATTEMPTS", 1)
    monkeypatch.setattr(blocks_module, "_ATTEMPTS_FIXED", 1)
    masker = MultiBlock(
        targets=2, target_scale=(0.3, 0.3), target_aspect=(1.0, 1.0), min_context=20, fixed_size=fixed_size
    )
    masks = draw(masker, (6, 6), batch=500)
    same = (masks.targets[:, 0] == masks.targets[:, 1]).all(1)
    assert 0.1 < same.float().mean() < 0.6
    assert (counted(masks.targets, 36) == 0).sum(1).min() >= 20
    assert not (counted(masks.context, 36).bool() & counted(masks.targets, 36).bool()).any()


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_fixed_sizes_depend_on_neither_draw_nor_batch(grid):
    masker = MultiBlock(fixed_size=True)
    shapes = {
        (masks.context.shape[1], masks.targets.shape[1:])
        for batch, seed in product((1, 3, 64), range(5))
        for masks in [draw(masker, grid, batch=batch, seed=seed)]
    }
    assert len(shapes) == 1


def test_fixed_context_is_near_what_a_single_sample_keeps():
    """Large batches must not have small contexts: K is close to that of batches of one in the other mode."""
    single = [draw(MultiBlock(), (14, 14), batch=1, seed=seed).context.shape[1] for seed in range(200)]
    fixed = draw(MultiBlock(fixed_size=True), (14, 14), batch=256).context.shape[1]
    assert 0.7 < fixed / (sum(single) / len(single)) < 1.0


def test_fixed_size_asks_nothing_of_the_data():
    """Fake tensors have shapes and no values, as under tracing: whatever reads a value of them raises."""
    tokens, generator = make_tokens((14, 14)), torch.Generator()
    with FakeTensorMode(allow_non_fake_inputs=True):
        (masks,) = MultiBlock(fixed_size=True)(tokens, generator)
        assert masks.targets.shape == (4, 4, 36)
        with pytest.raises(DataDependentOutputException):
            MultiBlock()(tokens, generator)


@pytest.mark.parametrize(
    ("grid", "settings", "size"),
    [
        ((14, 14), {"scale": 1.0}, (14, 14)),
        ((14, 14), {"scale": 0.175}, (6, 6)),
        ((20, 20), {"scale": 0.16, "aspect": 4.0}, (16, 4)),
        ((20, 20), {"scale": 0.16, "aspect": 0.25}, (4, 16)),
        ((8, 32), {"scale": 1.0}, (8, 32)),  # a square of 256 tokens does not fit: clipped, and grown along the row
        ((32, 8), {"scale": 0.5}, (16, 8)),
        ((8, 32), {"scale": 0.5, "aspect": 100.0}, (8, 16)),
        ((10, 10), {"scale": 1e-6}, (1, 1)),
        ((40,), {"scale": 0.25, "aspect": 9.0}, (10,)),
        ((1, 40), {"scale": 0.25}, (1, 10)),
        ((8, 10, 10), {"scale": 0.25}, (8, 5, 5)),
        ((8, 10, 10), {"scale": 0.25, "leading": (0.5,)}, (4, 5, 5)),
        ((4, 8, 10, 10), {"scale": 0.25, "leading": (0.01, 0.5)}, (1, 4, 5, 5)),
    ],
)
def test_block_size(grid, settings, size):
    assert block_size(grid, **settings) == size


@pytest.mark.parametrize("context", [None, (4, 5)])
def test_expected_visible_is_the_mean_over_all_placements(context):
    """Plain loops over every place of two targets and the context block."""

    def places(block):
        for row, column in product(range(5 - block[0] + 1), range(6 - block[1] + 1)):
            yield {(row + i, column + j) for i in range(block[0]) for j in range(block[1])}

    everything = [{(i, j) for i in range(5) for j in range(6)}]
    inside = list(places(context)) if context else everything
    left = [len(c - a - b) for a, b, c in product(places((2, 3)), places((2, 3)), inside)]
    expected = expected_visible((5, 6), target=(2, 3), targets=2, context=context)
    assert expected == pytest.approx(sum(left) / len(left))


def test_context_equals_a_plain_loop_where_nothing_is_dropped_or_added():
    masks = draw(MultiBlock(context_scale=(1.0, 1.0)), (9, 7), batch=1)
    hidden = set(masks.targets.flatten().tolist())
    assert masks.context[0].tolist() == [i for i in range(63) if i not in hidden]


@pytest.mark.parametrize(
    ("grid", "settings"),
    [
        ((2, 2), {}),
        ((4, 4), {}),
        ((14, 14), {"target_scale": (1.0, 1.0)}),
        ((14, 14), {"target_scale": (0.1, 1.0)}),  # refused at once, not when a large scale is drawn
        ((14, 14), {"min_context": 197}),
        ((14, 14), {"targets": 60}),
        ((1,), {}),
    ],
)
@both_modes
def test_masks_that_do_not_fit(grid, settings, fixed_size):
    if fixed_size and settings.get("target_scale") == (0.1, 1.0):
        settings = {"target_scale": (0.9, 1.0)}
    with pytest.raises(ValueError, match=f"{'x'.join(map(str, grid))}.*min_context, targets or target_scale"):
        draw(MultiBlock(**settings, fixed_size=fixed_size), grid)


@pytest.mark.parametrize(
    "settings",
    [
        {"target_scale": (0.0, 0.2)},
        {"target_scale": (0.3, 0.2)},
        {"context_scale": (0.85, 1.1)},
        {"leading_scale": (0.5, 2.0)},
        {"target_aspect": (-1.0, 1.0)},
        {"context_aspect": (1.0, float("inf"))},
        {"context_aspect": (1.0, float("nan"))},
        {"context_scale": (0.85, 0.9, 1.0)},
        {"targets": 0},
        {"min_context": 0},
    ],
)
def test_settings_out_of_range(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"{name} must be .* got"):
        MultiBlock(**settings)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"grid": None}, "Tokens.grid is None"),
        ({"grid": (7, 7)}, "grid of 7x7 does not hold 196 tokens"),
        ({"grid": ()}, "grid of no axes does not hold 196 tokens"),
        ({"valid": torch.ones(4, 195, dtype=torch.bool)}, r"Tokens.valid must be \(4, 196\)"),
    ],
)
def test_tokens_without_a_full_grid(fields, message):
    with pytest.raises(ValueError, match=message):
        MultiBlock()(replace(make_tokens((14, 14)), **fields), torch.Generator())
