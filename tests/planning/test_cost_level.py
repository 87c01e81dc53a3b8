"""Costs that compare states of an upper level: in loops, and through agent, actor and report."""

import logging
from functools import partial

import pytest
import torch
from test_world import SMALL, observations, pictures, world

from jepa_lightning import JEPA
from jepa_lightning.data import TrajectoryData
from jepa_lightning.encoders import ConvEncoder
from jepa_lightning.environments import Disc, TwoRooms
from jepa_lightning.planning import CEM, ActionPenalty, Agent, GoalDistance, Imagine, WeightedSum, World, encode_walks
from jepa_lightning.planning.plan import plan
from jepa_lightning.predictors import ResidualPredictor
from jepa_lightning.pretexts import HierarchicalRollout
from jepa_lightning.targets import Online
from modalities.image import Image


def hierarchy(depth=3, stride=2, seed=0, **settings):
    """A world of several levels whose predictors do something."""
    torch.manual_seed(seed)
    modality = Image(image_size=16, patch_size=16, channels=1, encoder=partial(ConvEncoder, dim=8, width=2))
    pretext = HierarchicalRollout(action_dim=2, depth=depth, stride=stride, width=16, macro_dim=3)
    jepa = JEPA(modality, pretext=pretext, predictor=ResidualPredictor, target=Online)
    jepa.pretext.estimate([{"actions": torch.randn(4, 9, 2) * 2 + 1}])
    with torch.no_grad():
        for part in (jepa.predictor, *(level.predictor for level in jepa.pretext.levels)):
            for parameter in part.parameters():
                parameter += 0.3 * torch.randn(parameter.shape)
        jepa.pretext.train()
        for level in jepa.pretext.levels:
            level.remember(torch.randn(64, 1, 3))
    return World(jepa, observations=SMALL, **settings)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_energy_is_that_of_states_lifted_one_by_one(level):
    found = hierarchy()
    past, goal = found.past(found.encode(pictures())), found.encode_goal(pictures(seed=1))
    actions = torch.randn(3, 4, 5, 2, generator=torch.Generator().manual_seed(2))
    states = found.imagine(past, actions)
    energies = found.energy(past, goal, GoalDistance(level=level))(actions)
    assert energies.shape == (3, 4)

    def lifted(state):
        for number in range(2, level + 1):
            state = found.pretext.levels[number - 2].encoder(state)
        return state

    for b in range(3):
        for c in range(4):
            d = [float((lifted(s) - lifted(goal[b])).square().mean().sqrt()) for s in states[b, c]]
            assert float(energies[b, c]) == pytest.approx(min(d) + 0.02 * sum(d) / 5, rel=1e-4)


def test_gradients_through_an_upper_level_against_finite_differences():
    found = hierarchy().double()
    past, goal = found.past(found.encode(pictures(1)).double()), found.encode_goal(pictures(1, seed=1)).double()
    energy = found.energy(past, goal, GoalDistance(reduce="mean", level=3))
    actions = torch.randn(1, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: energy(a).sum(), actions)


def test_an_agent_plans_by_the_upper_level():
    found = hierarchy()
    agents = {level: Agent(found, Disc(3.0), CEM(samples=16), cost=GoalDistance(level=level)) for level in (1, 3)}
    for agent in agents.values():
        agent.reset(pictures(seed=1))
        agent.act(pictures())
    assert not torch.equal(agents[1].loop.first.actions, agents[3].loop.first.actions)
    plan_ = agents[3].loop.first
    energy = found.energy(agents[3].memory.past(), agents[3].goal, GoalDistance(level=3))
    torch.testing.assert_close(energy(plan_.actions.unsqueeze(1)).squeeze(1), plan_.energy)


def test_an_actor_is_trained_by_the_upper_level():
    found, rooms = hierarchy(), TwoRooms(image_size=16)
    data = TrajectoryData(key="image", environment=rooms, episodes=12, length=8, window=4, num_workers=0)
    walks = encode_walks(found, data)
    actors = [
        Imagine(steps=3, horizon=4, cost=GoalDistance(level=level))(found, walks, rooms.space, seed=0)
        for level in (1, 2)
    ]
    state = found.encode(rooms.observe(observations()))
    assert not torch.equal(actors[0](state, state), actors[1](state, state))


def test_a_sum_compares_states_of_one_level():
    both = WeightedSum([GoalDistance(level=2), ActionPenalty()], weights=[1.0, 0.0])
    assert both.level == 2
    assert WeightedSum([ActionPenalty()], weights=[1.0]).level is None
    found = hierarchy()
    past, goal = found.past(found.encode(pictures())), found.encode_goal(pictures(seed=1))
    actions = torch.randn(3, 4, 5, 2)
    expected = found.energy(past, goal, GoalDistance(level=2))(actions)
    torch.testing.assert_close(found.energy(past, goal, both)(actions), expected)
    with pytest.raises(ValueError, match=r"states of one level, got levels \[1, 2\]"):
        WeightedSum([GoalDistance(), GoalDistance(level=2)], weights=[1.0, 1.0])


def test_levels_that_there_are_not():
    assert (world().levels, hierarchy().levels) == (1, 3)
    with pytest.raises(ValueError, match="level must be at least 1, got 0"):
        GoalDistance(level=0)
    with pytest.raises(ValueError, match=r"expected a cost in level 1 to 1, which the world has, got 2: set"):
        Agent(world(), Disc(3.0), CEM(), cost=GoalDistance(level=2))
    with pytest.raises(ValueError, match="expected a cost in level 1 to 3, which the world has, got 4"):
        Agent(hierarchy(), Disc(3.0), CEM(), cost=GoalDistance(level=4))


def test_the_report_says_which_level():
    rooms = TwoRooms(image_size=16)
    rooms.walks = 40
    settings = {"planner": CEM(samples=4, elites=2), "episodes": 4, "budget": 4, "environment": rooms}
    report = plan(hierarchy(), cost=GoalDistance(level=2), **settings)
    assert report["protocol"]["cost"] == {"class": "GoalDistance", "level": 2, "reduce": "min", "mean_weight": 0.02}
    assert report["protocol"]["levels"] == 3


def test_a_held_action_that_is_cut_is_told(caplog):
    with caplog.at_level(logging.WARNING):
        Agent(world(), Disc(3.0), CEM(hold=4), execute=4)
    assert not caplog.text
    with caplog.at_level(logging.WARNING):
        Agent(world(), Disc(3.0), CEM(hold=4), execute=6)
    assert "execute is 6 and no multiple of hold, 4: a held action is cut" in caplog.text
