"""Action spaces: projections, samples, bounds."""

import pytest
import torch

from jepa_lightning.environments import Blocks, Box, Disc, Discrete

SPACES = {"box": Box([-1.0, 0.0], [1.0, 4.0]), "disc": Disc(3.0), "discrete": Discrete(4)}


@pytest.mark.parametrize("kind", SPACES)
def test_samples_are_inside_and_projections_the_nearest(kind):
    space = SPACES[kind]
    inside = space.sample((400,), torch.Generator().manual_seed(0))
    assert inside.shape == (400, space.dim)
    torch.testing.assert_close(space.project(inside), inside)
    outside = 5 * torch.randn(50, space.dim, generator=torch.Generator().manual_seed(1))
    found = space.project(outside)
    torch.testing.assert_close(space.project(found), found)
    nearest = torch.cdist(outside, inside).amin(1)  # no sample is nearer than the projection
    assert ((outside - found).norm(dim=-1) <= nearest + 1e-5).all()
    assert space.centre.shape == space.scale.shape == (space.dim,)


@pytest.mark.parametrize("kind", SPACES)
def test_a_block_is_actions_one_behind_the_other(kind):
    of = SPACES[kind]
    space, drawn = Blocks(of, 3), 5 * torch.randn(20, 3, of.dim, generator=torch.Generator().manual_seed(1))
    assert (space.dim, space.choices) == (3 * of.dim, of.choices)
    expected = torch.cat([of.project(action) for action in drawn.unbind(1)], dim=-1)
    torch.testing.assert_close(space.project(drawn.flatten(1)), expected)
    generators = torch.Generator().manual_seed(2), torch.Generator().manual_seed(2)
    assert torch.equal(space.sample((7,), generators[0]), of.sample((7, 3), generators[1]).flatten(1))
    assert space.centre.tolist() == [*of.centre.tolist() * 3]
    assert space.scale.tolist() == [*of.scale.tolist() * 3]
    with pytest.raises(ValueError, match="expected blocks of at least 1 action, got 0"):
        Blocks(of, 0)


def test_samples_are_spread_over_the_space():
    generator = torch.Generator().manual_seed(0)
    disc = Disc(2.0).sample((4000,), generator).norm(dim=-1)
    assert float((disc < 1).float().mean()) == pytest.approx(0.25, abs=0.04)  # as areas are
    box = SPACES["box"].sample((4000,), generator)
    torch.testing.assert_close(box.mean(0), torch.tensor([0.0, 2.0]), atol=0.1, rtol=0)
    assert Discrete(4).sample((4000,), generator).mean(0).sub(0.25).abs().max() < 0.05


def test_bounds_that_make_no_sense():
    with pytest.raises(ValueError, match="expected finite lower bounds below as many upper ones"):
        Box([0.0, 1.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="expected a positive radius"):
        Disc(0.0)
    with pytest.raises(ValueError, match="expected at least two choices, got 1"):
        Discrete(1)
