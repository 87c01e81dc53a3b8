"""Tubes: one frame's masks through all frames."""

import math

import pytest
import torch

from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.maskers import BlockUnion, Masker, MultiBlock, Random, Tube
from jepa_lightning.tokens import Tokens

CLIP = (8, 14, 14)
MASKERS = [None, Random(target_ratio=0.5, context_ratio=0.2, targets=3), MultiBlock(min_context=4), BlockUnion()]


def make_tokens(grid, batch=4, **fields):
    return Tokens(values=torch.zeros(batch, math.prod(grid), 1), positions=grid_positions(grid), grid=grid, **fields)


def frames(index, valid, grid):
    """Which tokens of each frame are in `index`, for each sample: (B, F, N / F) bool."""
    found = torch.zeros(len(index), math.prod(grid), dtype=torch.bool)
    for sample, row in enumerate(index.flatten(1)):
        found[sample, row if valid is None else row[valid[sample].flatten()]] = True
    return found.view(len(index), grid[0], -1)


@pytest.mark.parametrize("batch", [1, 24, 128])
@pytest.mark.parametrize("masker", MASKERS, ids=["default", "random", "blocks", "union"])
def test_all_frames_have_the_frames_masks(masker, batch):
    (masks,) = Tube(masker)(make_tokens(CLIP, batch), torch.Generator().manual_seed(3))
    inner = masker or Random(target_ratio=0.9)
    (frame,) = inner(make_tokens(CLIP[1:], batch), torch.Generator().manual_seed(3))
    for found, valid, one, one_valid in (
        (masks.context, masks.context_valid, frame.context, frame.context_valid),
        (masks.targets, masks.targets_valid, frame.targets, frame.targets_valid),
    ):
        assert found.shape == (*one.shape[:-1], 8 * one.shape[-1])
        expected = frames(one, one_valid, (1, 14, 14))
        assert (frames(found, valid, CLIP) == expected).all()
        if valid is None:
            assert one_valid is None
            assert (found.diff(dim=-1) > 0).all()
        else:
            assert (found[~valid] == 0).all()
            assert (valid.int().diff(dim=-1) <= 0).all()
            assert torch.equal(valid.sum(-1), 8 * one_valid.sum(-1))
            for row, ok in zip(found.flatten(0, -2), valid.flatten(0, -2), strict=True):
                assert (row[ok].diff() > 0).all()
    seen, asked = (
        frames(i, v, CLIP) for i, v in ((masks.context, masks.context_valid), (masks.targets, masks.targets_valid))
    )
    assert not (seen & asked).any()


def test_nine_tenths_are_hidden_by_default():
    (masks,) = Tube()(make_tokens(CLIP), torch.Generator())
    assert masks.context.shape == (4, 8 * 20)
    assert masks.targets.shape == (4, 1, 8 * 176)


def test_every_tube_is_reachable_as_context_and_as_target():
    (masks,) = Tube()(make_tokens((2, 4, 5), 500), torch.Generator().manual_seed(0))
    assert len(masks.context.unique()) == len(masks.targets.unique()) == 40


def test_a_frame_is_the_grid_without_its_first_axis():
    seen = []

    class Spy(Masker):
        def __call__(self, tokens, generator):
            seen.append(tokens)
            return Random()(tokens, generator) + Random()(tokens, generator)

    assert len(Tube(Spy())(make_tokens((3, 2, 4, 5)), torch.Generator())) == 2
    assert seen[0].grid == (2, 4, 5)
    assert seen[0].count == seen[0].values.shape[1] == 40
    (masks,) = Tube()(make_tokens((6, 10)), torch.Generator())
    assert masks.context.shape == (4, 6)


def test_generator_decides_everything():
    tokens = make_tokens(CLIP)
    first, again, other = (Tube()(tokens, torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first.context, again.context)
    assert torch.equal(first.targets, again.targets)
    assert not torch.equal(first.context, other.context)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (make_tokens((8,)), "at least one more axis, got 8"),
        (Tokens(values=torch.zeros(2, 8, 1), positions=torch.zeros(1, 8, 3)), "Tube needs tokens that fill a grid"),
        (make_tokens((2, 4), valid=torch.ones(4, 8, dtype=torch.bool)), "Tube needs a grid without padding"),
    ],
)
def test_tokens_without_frames(tokens, message):
    with pytest.raises(ValueError, match=message):
        Tube()(tokens, torch.Generator())
