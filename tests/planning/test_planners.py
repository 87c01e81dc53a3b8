"""Planners on functions with a known minimum, and against brute force."""

import itertools

import pytest
import torch

from jepa_lightning.environments import Box, Disc, Discrete
from jepa_lightning.planning import CEM, MPPI, Categorical, Gradient, RandomShooting

KINDS = {
    "cem": lambda **s: CEM(**{"samples": 200, "iterations": 6, **s}),
    "mppi": lambda **s: MPPI(**{"samples": 300, "iterations": 12, "temperature": 0.05, "std": 0.3, **s}),
    "gradient": lambda **s: Gradient(**{"iterations": 80, "restarts": 6, **s}),
    "shooting": lambda **s: RandomShooting(**{"samples": 20000, **s}),
}
BOX, DISC = Box([-1.0, -2.0], [1.0, 2.0]), Disc(3.0)


def search(planner, energy, space, batch=1, seed=0, start=None):
    start = planner.start(batch, space) if start is None else start
    return planner(energy, space, start, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_the_minimum_of_a_bowl_for_each_episode(kind):
    centres = torch.tensor([[0.5, -1.0], [-0.2, 0.3], [0.9, 1.9]])

    def bowl(actions):
        return (actions - centres[:, None, None]).square().sum((-1, -2))

    plan = search(KINDS[kind](horizon=1, hold=1), bowl, BOX, batch=3)
    assert plan.actions.shape == (3, 1, 2)
    assert (plan.actions[:, 0] - centres).abs().max() < 0.1
    torch.testing.assert_close(bowl(plan.actions.unsqueeze(1)).squeeze(1), plan.energy)


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_allowed_point_where_the_minimum_is_outside(kind):
    goal = torch.tensor([6.0, 8.0])
    plan = search(KINDS[kind](horizon=1, hold=1), lambda a: (a - goal).norm(dim=-1).sum(-1), DISC)
    assert float((plan.actions[0, 0] - torch.tensor([1.8, 2.4])).norm()) < 0.25
    assert float(plan.actions.norm(dim=-1).max()) <= 3.0 + 1e-5


@pytest.mark.parametrize("kind", ["cem", "mppi", "shooting"])
def test_two_valleys_and_a_wall_between(kind):
    """The deeper valley lies behind a wall of high energy; the mean of both valleys is on top of it."""

    def valleys(actions):
        x = actions[..., 0].squeeze(-1)
        left, right = (x + 1.5).square() + 0.5, (x - 1.5).square()
        return torch.minimum(left, right) + 10.0 * (x.abs() < 1.0)

    plan = search(KINDS[kind](horizon=1, hold=1), valleys, Box([-3.0], [3.0]))
    assert float(plan.actions) == pytest.approx(1.5, abs=0.15)
    assert float(plan.energy) < 0.1


def test_gradients_stay_in_the_valley_of_their_start_and_restarts_leave_it():
    def valleys(actions):
        x = actions[..., 0].squeeze(-1)
        return torch.minimum((x + 1.5).square() + 0.5, (x - 1.5).square())

    space, start = Box([-3.0], [3.0]), torch.tensor([[[-1.0]]])
    one = search(Gradient(restarts=1, iterations=80, horizon=1, hold=1), valleys, space, start=start)
    assert float(one.actions) == pytest.approx(-1.5, abs=0.05)
    many = search(Gradient(restarts=16, iterations=80, std=1.0, horizon=1, hold=1), valleys, space, start=start)
    assert float(many.actions) == pytest.approx(1.5, abs=0.05)


@pytest.mark.parametrize("planner", [Categorical(horizon=4, hold=1), RandomShooting(samples=2000, horizon=4, hold=1)])
def test_choices_against_brute_force(planner):
    space, table = Discrete(3), torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(3))

    def energy(actions):  # each choice beside the one before it
        index = actions.argmax(-1)
        before = torch.cat([torch.zeros_like(index[..., :1]), index[..., :-1]], -1)
        b, t = torch.arange(5)[:, None, None], torch.arange(4)
        return table[b, t, before, index].sum(-1)

    plan = search(planner, energy, space, batch=5)
    every = torch.nn.functional.one_hot(torch.tensor(list(itertools.product(range(3), repeat=4))), 3).float()
    lowest = energy(every.expand(5, -1, -1, -1)).amin(1)
    torch.testing.assert_close(plan.energy, lowest)
    assert set(plan.actions.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("kind", KINDS)
def test_actions_are_held_and_a_plan_is_as_long_as_the_horizon(kind):
    seen = []

    def energy(actions):
        seen.append(actions.shape[-2:])
        return actions.square().sum((-1, -2))

    few = {"samples": 20} if kind == "shooting" else {}
    plan = search(KINDS[kind](horizon=6, hold=3, **few), energy, DISC, batch=2, start=torch.ones(2, 6, 2))
    assert set(seen) == {(6, 2)}
    assert plan.actions.shape == (2, 6, 2)
    assert torch.equal(plan.actions[:, :3], plan.actions[:, :1].expand(-1, 3, -1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_is_no_worse_than_its_start_and_the_same_seed_gives_the_same(kind):
    weights = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))

    def rough(actions):
        return (10 * (actions.flatten(-2) @ weights.T)).sin().sum(-1)

    few = {"samples": 10} if kind in ("cem", "mppi", "shooting") else {"iterations": 2}
    start = search(KINDS["shooting"](horizon=4, hold=1), rough, DISC, batch=2).actions
    planner = KINDS[kind](horizon=4, hold=1, **few)
    first = search(planner, rough, DISC, seed=5, start=start)
    assert (first.energy <= rough(start.unsqueeze(1)).squeeze(1) + 1e-5).all()
    assert torch.equal(first.actions, search(planner, rough, DISC, seed=5, start=start).actions)


@pytest.mark.parametrize("kind", ["cem", "mppi", "shooting"])
def test_nan_is_no_energy(kind):
    def energy(actions):
        x = actions[..., 0].squeeze(-1)
        return torch.where(x > 0, torch.nan, x.square())

    plan = search(KINDS[kind](horizon=1, hold=1), energy, Box([-1.0], [1.0]), start=torch.tensor([[[-0.5]]]))
    assert float(plan.actions) <= 0
    assert float(plan.energy) < 0.01


def test_mppi_weighs_as_it_says():
    planner, found = MPPI(temperature=0.5), torch.tensor([[1.0, 2.0, 4.0, torch.inf]])
    finite = found[0, :3]
    weights = torch.exp(-(finite - 1) / (0.5 * finite.std(correction=0)))
    expected = torch.cat([weights / weights.sum(), torch.zeros(1)])
    torch.testing.assert_close(planner.weights(found)[0], expected)
    torch.testing.assert_close(planner.weights(torch.zeros(1, 4)), torch.full((1, 4), 0.25))


def test_what_is_refused():
    with pytest.raises(ValueError, match="expected a horizon that is a multiple of hold, got 6 and 4"):
        CEM(horizon=6, hold=4)
    with pytest.raises(ValueError, match="expected 2 to 4 elites"):
        CEM(samples=4, elites=5)
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        MPPI(samples=0)
    with pytest.raises(ValueError, match="expected a positive temperature"):
        MPPI(temperature=0.0)
    with pytest.raises(ValueError, match="expected a positive learning_rate"):
        Gradient(learning_rate=0.0)
    with pytest.raises(ValueError, match="a momentum in 0 to 1"):
        Categorical(momentum=1.0)
    bowl = lambda a: a.square().sum((-1, -2))  # noqa: E731
    for kind in (CEM, MPPI, Gradient):
        with pytest.raises(ValueError, match=f"{kind.__name__} needs actions in a continuum, got choices"):
            search(kind(), bowl, Discrete(3))
    with pytest.raises(ValueError, match="Categorical searches choices, got the space Disc"):
        search(Categorical(), bowl, DISC)
    with pytest.raises(ValueError, match=r"expected a start \(B, 16, 2\)"):
        search(CEM(), bowl, DISC, start=torch.zeros(1, 8, 2))
    with pytest.raises(ValueError, match=r"expected energies \(1, 1\), got \(1, 1, 2\)"):
        search(CEM(), lambda a: a.sum(-2), DISC)
    with pytest.raises(ValueError, match="Gradient needs an energy with a gradient"):
        search(Gradient(), lambda a: a.detach().square().sum((-1, -2)), DISC)
