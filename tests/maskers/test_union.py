"""Unions of blocks: V-JEPA's masks."""

import math
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.maskers import BlockUnion
from jepa_lightning.maskers import union as union_module
from jepa_lightning.maskers.blocks import block_size, expected_visible
from jepa_lightning.maskers.union import block_sizes
from jepa_lightning.tokens import Tokens

CLIP = (8, 14, 14)
GRIDS = [(14, 14), (9, 5), (40,), (4, 8, 8), (3, 6, 10), (2, 3, 4, 6)]
both_modes = pytest.mark.parametrize("fixed_size", [False, True])


def make_tokens(grid, batch=4):
    return Tokens(values=torch.zeros(batch, math.prod(grid), 1), positions=grid_positions(grid), grid=grid)


def draw(masker, grid, *, batch=4, seed=0):
    (masks,) = masker(make_tokens(grid, batch), torch.Generator().manual_seed(seed))
    return masks


def real(index, valid):
    """The real slots of each sample as lists."""
    index = index.flatten(1)
    valid = torch.ones_like(index, dtype=torch.bool) if valid is None else valid.flatten(1)
    return [row[ok].tolist() for row, ok in zip(index, valid, strict=True)]


def hidden(masks, count):
    """Which tokens the targets cover: (B, N) bool."""
    covered = torch.zeros(len(masks.context), count, dtype=torch.bool)
    for row, cells in zip(covered, real(masks.targets, masks.targets_valid), strict=True):
        row[cells] = True
    return covered


@pytest.mark.parametrize("leading", [(1.0, 1.0), (0.5, 1.0)])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@both_modes
def test_every_token_is_either_context_or_target(grid, fixed_size, leading):
    count = math.prod(grid)
    masker = BlockUnion(fixed_size=fixed_size, leading_scale=leading, blocks=3, scale=(0.1, 0.3))
    as_target = torch.zeros(count)
    for seed in range(3):
        masks = draw(masker, grid, batch=300, seed=seed)
        assert masks.context.dtype == masks.targets.dtype == torch.int64
        assert masks.targets.shape[:2] == (300, 1)
        seen, asked = real(masks.context, masks.context_valid), real(masks.targets, masks.targets_valid)
        for context, target in zip(seen, asked, strict=True):
            assert context == sorted(context)
            assert target == sorted(target)
            assert sorted(context + target) == list(range(count))  # the whole complement, and nothing twice
            assert context
            assert target
        as_target += hidden(masks, count).sum(0)
    assert as_target.min() > 0
    assert as_target.max() < 900  # and is context in some sample


def test_filler_is_index_zero_after_the_real_slots():
    masks = draw(BlockUnion(), CLIP, batch=24)
    for index, valid in ((masks.context, masks.context_valid), (masks.targets, masks.targets_valid)):
        assert valid.shape == index.shape
        assert (index[~valid] == 0).all()
        assert (valid.int().diff(dim=-1) <= 0).all()
        assert valid.sum(-1).max() == index.shape[-1]  # no slot that is filler everywhere
        assert not valid.all()


def test_a_batch_of_one_has_no_filler():
    masks = draw(BlockUnion(), CLIP, batch=1)
    assert masks.context_valid is None
    assert masks.targets_valid is None


def test_without_a_leading_scale_all_frames_are_masked_alike():
    covered = hidden(draw(BlockUnion(), CLIP, batch=50), 1568).view(50, 8, 196)
    assert (covered == covered[:, :1]).all()
    some = hidden(draw(BlockUnion(leading_scale=(0.5, 0.5)), CLIP, batch=50), 1568).view(50, 8, 196)
    assert (some != some[:, :1]).any()


@pytest.mark.long
@pytest.mark.parametrize(("blocks", "scale", "expected"), [(8, 0.15, 0.632), (2, 0.7, 0.814)])
def test_the_masking_ratio_does_not_depend_on_the_batch_size(blocks, scale, expected):
    """Cut to the batch's smallest sample, the ratio would fall by a tenth or more from batch 1 to batch 128."""
    masker = BlockUnion(blocks=blocks, scale=(scale, scale))
    for batch in (1, 24, 128):
        ratios = [hidden(draw(masker, (14, 14), batch=batch, seed=s), 196).float().mean(1) for s in range(960 // batch)]
        assert float(torch.cat(ratios).mean()) == pytest.approx(expected, abs=0.012)  # 5 standard errors


@pytest.mark.parametrize("scale", [(0.15, 0.15), (0.1, 0.4)])
def test_fixed_sizes_are_the_expected_ones_at_any_batch_size(scale):
    free = [hidden(draw(BlockUnion(scale=scale), CLIP, batch=256, seed=s), 1568).float().sum(1) for s in range(8)]
    for batch in (1, 24, 128):
        masks = draw(BlockUnion(scale=scale, fixed_size=True), CLIP, batch=batch, seed=batch)
        length = masks.targets.shape[2]
        assert masks.context.shape[1] == 1568 - length
        assert length % 8 == 0
        assert length == pytest.approx(float(torch.cat(free).mean()), rel=0.02)
        assert masks.context_valid is None
        assert masks.targets_valid is None


@pytest.mark.parametrize("settings", [{"min_context": 500}, {"blocks": 1, "scale": (0.9, 0.9), "min_context": 112}])
def test_fixed_sizes_leave_the_smallest_context(settings):
    assert draw(BlockUnion(fixed_size=True, **settings), CLIP).context.shape[1] >= settings["min_context"]


def test_fixed_size_asks_nothing_of_the_data():
    """Fake tensors have shapes and no values, as under tracing: whatever reads a value of them raises."""
    tokens, generator = make_tokens(CLIP), torch.Generator()
    expected = draw(BlockUnion(fixed_size=True), CLIP).targets.shape
    with FakeTensorMode(allow_non_fake_inputs=True):
        (masks,) = BlockUnion(fixed_size=True)(tokens, generator)
        assert masks.targets.shape == expected


@pytest.mark.parametrize("settings", [{}, {"blocks": 2, "scale": (0.7, 0.7)}])
def test_fixed_sizes_change_unions_at_their_edge_only(settings, monkeypatch):
    """A cell that is added touches the union; one that is taken away lies beside what was visible."""
    drawn = []
    original = BlockUnion._unions

    def recorded(self, *arguments):
        drawn.append(original(self, *arguments))
        return drawn[-1]

    monkeypatch.setattr(BlockUnion, "_unions", recorded)
    after = hidden(draw(BlockUnion(fixed_size=True, **settings), (14, 14), batch=100), 196)
    size = int(after[0].sum())
    changed = 0
    for before, found in zip(drawn[0].view(100, 4, 196), after, strict=True):
        before = before[(before.sum(1) - size).abs().argmin()]
        assert (before ^ found).sum() == (before.sum() - size).abs()  # only added to, or only taken from
        wide = [
            torch.nn.functional.max_pool2d(m.float().view(1, 14, 14), 5, 1, 2).flatten() > 0 for m in (before, ~before)
        ]
        assert not (found & ~before & ~wide[0]).any()
        assert not (before & ~found & ~wide[1]).any()
        changed += int((before ^ found).sum())
    assert 0 < changed < 100 * 10


@pytest.mark.parametrize("grid", [(14, 14), (40,), (10, 16, 24)], ids=str)
def test_one_block_is_a_block_of_the_asked_size(grid):
    masker = BlockUnion(blocks=1, scale=(0.1, 0.3), leading_scale=(0.4, 0.8))
    masks = draw(masker, grid, batch=300)
    places = grid_positions(grid)[0].long()
    shares = [i / 200 for i in range(201)]
    leads = {block_size(grid, scale=0.2, leading=(0.4 + 0.4 * u,))[0] for u in shares} if len(grid) > 2 else {None}
    allowed = {block_size(grid, scale=0.1 + 0.2 * u, aspect=0.75 + 0.75 * v)[-2:] for u in shares for v in shares}
    found, starts = set(), set()
    for cells in real(masks.targets, masks.targets_valid):
        where = places[cells]
        size = tuple((where.amax(0) - where.amin(0) + 1).tolist())
        assert math.prod(size) == len(cells)  # a full box
        assert size[-2:] in allowed
        if len(grid) > 2:
            assert size[0] in leads
        found.add(size)
        starts.add(cells[0])
    assert len(found) > 5
    assert len(starts) > 20


def test_blocks_lie_uniformly():
    masker = BlockUnion(blocks=1, scale=(0.16, 0.16), aspect=(1.0, 1.0))
    masks = draw(masker, (10, 10), batch=20_000)
    first = torch.bincount(masks.targets[:, 0, 0], minlength=100).view(10, 10)
    expected = 20_000 / 49
    assert (first[7:] == 0).all()
    assert (first[:, 7:] == 0).all()
    assert (first[:7, :7] - expected).abs().max() < 5 * math.sqrt(expected)


def test_the_union_is_as_large_as_independent_blocks_make_it():
    masks = draw(BlockUnion(aspect=(1.0, 1.0)), (14, 14), batch=2000)
    expected = expected_visible((14, 14), target=block_size((14, 14), scale=0.15), targets=8)
    assert float((~hidden(masks, 196)).sum(1).float().mean()) == pytest.approx(expected, rel=0.02)


@both_modes
def test_generator_decides_everything(fixed_size):
    masker = BlockUnion(fixed_size=fixed_size)
    before = torch.get_rng_state()
    first, again, other = (draw(masker, CLIP, batch=1, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.context, again.context)
    assert torch.equal(first.targets, again.targets)
    assert real(first.targets, None) != real(other.targets, None)


def test_samples_have_masks_of_their_own():
    assert len(hidden(draw(BlockUnion(), CLIP, batch=64), 1568).unique(dim=0)) == 64


def test_unions_that_leave_too_little_are_drawn_again():
    masker = BlockUnion(blocks=2, scale=(0.3, 0.3), aspect=(1.0, 1.0), min_context=20)
    masks = draw(masker, (6, 6), batch=2000)  # 3x3 blocks: 18 of 36 tokens at worst
    covered = hidden(masks, 36).sum(1)
    assert covered.max() <= 16
    assert len(covered.unique()) > 3


def test_a_single_block_is_left_when_no_draw_fits(monkeypatch):
    monkeypatch.setattr(union_module, "_ATTEMPTS", 1)
    masker = BlockUnion(blocks=2, scale=(0.3, 0.3), aspect=(1.0, 1.0), min_context=20)
    covered = hidden(draw(masker, (6, 6), batch=500), 36).sum(1)
    assert covered.max() <= 16
    assert (covered == 9).float().mean() > 0.1


@pytest.mark.parametrize("grid", [(14, 14), (9, 5), (8, 32), (40,), (4, 8, 8)], ids=str)
def test_sizes_of_many_blocks_are_those_of_each(grid):
    generator = torch.Generator().manual_seed(0)
    scale, aspect, lead = torch.rand(3, 500, generator=generator, dtype=torch.float64).clamp(min=0.01)
    leading = [lead] * max(len(grid) - 2, 0)
    found = torch.stack(block_sizes(grid, scale, 4 * aspect, leading), dim=1).long().tolist()
    for i, size in enumerate(found):
        shares = [float(lead[i])] * len(leading)
        assert tuple(size) == block_size(grid, scale=float(scale[i]), aspect=float(4 * aspect[i]), leading=shares)


@pytest.mark.parametrize(
    ("grid", "settings"),
    [
        ((4, 2, 2), {"scale": (1.0, 1.0)}),
        (CLIP, {"scale": (0.1, 1.0)}),  # refused at once, not when a large scale is drawn
        (CLIP, {"min_context": 1569}),
        (CLIP, {"blocks": 200, "min_context": 10}),
        ((1,), {}),
    ],
)
@both_modes
def test_masks_that_do_not_fit(grid, settings, fixed_size):
    with pytest.raises(ValueError, match=f"{'x'.join(map(str, grid))}.*min_context, blocks or scale"):
        draw(BlockUnion(**settings, fixed_size=fixed_size), grid)


@pytest.mark.parametrize(
    "settings",
    [
        {"scale": (0.0, 0.2)},
        {"scale": (0.5, 1.2)},
        {"aspect": (1.5, 0.75)},
        {"leading_scale": (0.5, 2.0)},
        {"blocks": 0},
        {"min_context": 0},
    ],
)
def test_settings_out_of_range(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"{name} must be .* got"):
        BlockUnion(**settings)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"grid": None}, "BlockUnion needs tokens that fill a grid"),
        ({"grid": (7, 7)}, "grid of 7x7 does not hold 196 tokens"),
        ({"valid": torch.ones(4, 195, dtype=torch.bool)}, r"Tokens.valid must be \(4, 196\)"),
    ],
)
def test_tokens_without_a_full_grid(fields, message):
    with pytest.raises(ValueError, match=message):
        BlockUnion()(replace(make_tokens((14, 14)), **fields), torch.Generator())
