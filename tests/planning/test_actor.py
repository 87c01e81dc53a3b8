"""Actors: bounds, training on a world that is known exactly, proposals to a planner, files."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from test_world import pictures, world

from jepa_lightning.environments import Box, Disc, Discrete
from jepa_lightning.planning import (
    CEM,
    Actor,
    Agent,
    Distil,
    Gradient,
    Imagine,
    Imitate,
    Memory,
    Plan,
    Planner,
    RandomShooting,
    load_actor,
)
from jepa_lightning.planning.cost import GoalDistance
from jepa_lightning.planning.horizon import RecedingHorizon
from jepa_lightning.planning.plan import halved
from jepa_lightning.planning.walks import Walks
from jepa_lightning.predictors import FrameCausalPredictor, ResidualPredictor


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def plane():
    """A world whose states are places in a plane and whose actions move them."""

    def predictor(context, query, condition):
        return (context.values + condition.values).unsqueeze(1)

    pretext = SimpleNamespace(standardized=lambda actions: actions, futures=1)
    device = torch.device("cpu")
    shared = {"frame_skip": 1, "block_space": lambda space: space, "score": lambda cost, *given: cost(*given)}

    def energy(past, goal, cost):
        def of(actions):
            states = past.states[:, None, -1:] + actions.cumsum(2).unsqueeze(3)
            return cost(states, actions, goal.unsqueeze(1))

        return of

    shared["energy"] = energy
    predictor.causal = False
    return SimpleNamespace(history=1, positions=None, predictor=predictor, pretext=pretext, device=device, **shared)


def straight_walks(count=60, length=9):
    """Episodes of straight moves of length 1, each in a direction of its own."""
    angle = 6.2832 * torch.rand(count, 1, generator=generator())
    step = torch.cat([angle.cos(), angle.sin()], dim=-1)
    start = 4 * torch.randn(count, 2, generator=generator(1))
    states = (start.unsqueeze(1) + step.unsqueeze(1) * torch.arange(length).view(1, -1, 1)).flatten(0, 1).unsqueeze(1)
    end = torch.arange(1, count + 1) * length
    first, last = (end - length).repeat_interleave(length), (end - 1).repeat_interleave(length)
    return Walks(states, states, step.repeat_interleave(length, 0), first, last)


@pytest.mark.parametrize("space", [Disc(2.0), Box([-1.0, 0.0], [0.5, 4.0]), Discrete(2)])
def test_actions_lie_in_the_space(space):
    actor = Actor(6, space)
    with torch.no_grad():
        actor.layers[-1].weight *= 50
    actions = actor(torch.randn(40, 2, 3), torch.randn(40, 2, 3))
    assert actions.shape == (40, 2)
    torch.testing.assert_close(space.project(actions), actions)


@pytest.mark.long
@pytest.mark.parametrize(
    "training",
    [
        Imagine(steps=60, horizon=5, width=64, learning_rate=5e-3),
        Imitate(steps=80, width=64, learning_rate=5e-3),
        Distil(planner=CEM(samples=64, horizon=8, hold=1), steps=200, width=64, learning_rate=5e-3, pairs=300),
    ],
    ids=["imagine", "imitate", "distil"],
)
def test_a_trained_actor_heads_for_its_goal(training):
    known, walks = plane(), straight_walks()
    actor = training(known, walks, Disc(1.0))
    assert not any(parameter.requires_grad for parameter in actor.parameters())
    start, goal = 4 * torch.randn(50, 1, 2, generator=generator(2)), 4 * torch.randn(50, 1, 2, generator=generator(3))
    fresh = Actor(2, Disc(1.0))
    for found, least in ((actor, 0.9), (fresh, -1.0)):
        moved, wanted = found(start, goal), torch.nn.functional.normalize((goal - start).squeeze(1), dim=-1)
        cosine = torch.nn.functional.cosine_similarity(moved, wanted, dim=-1).mean()
        assert cosine > least
    assert cosine < 0.5  # of the one that was not trained
    again = training(known, walks, Disc(1.0))
    assert torch.equal(again(start, goal), actor(start, goal))


@pytest.mark.parametrize("within", [None, 3])
def test_hindsight_goals_lie_ahead_in_the_same_episode(within):
    walks = Walks(*(torch.arange(12.0).view(-1, 1, 1),) * 2, torch.zeros(12, 2), *_bounds([5, 7]))
    pairs = []

    def actor(state, goal):
        pairs.append(torch.stack([state, goal], 1).flatten(1))
        return torch.zeros(len(state), 2)

    actor.space = Disc(1.0)
    index = torch.tensor([0, 3, 5, 10]).repeat(200)
    Imitate(within=within).loss(actor, plane(), walks, index, generator())
    seen = {float(state): {float(g) for s, g in pairs[0] if s == state} for state in pairs[0][:4, 0]}
    far = within or 99
    assert seen == {s: set(range(s + 1, min(end, s + far) + 1)) for s, end in ((0, 4), (3, 4), (5, 11), (10, 11))}


class Counting(Planner):
    """Plans whose actions are numbers in a row, from ten times the energy on."""

    def __call__(self, energy, space, start, generator):
        count, horizon, dim = start.shape
        numbers = torch.arange(horizon * dim, dtype=torch.float32).view(horizon, dim)
        return Plan(numbers + 10 * energy(start.unsqueeze(1)).view(-1, 1, 1), torch.zeros(count))

    search = __call__


@pytest.mark.parametrize("skip", [1, 2])
def test_what_is_distilled_are_first_actions_of_plans_to_states_of_the_episode(skip):
    states = torch.arange(130.0).view(-1, 1, 1)
    walks = Walks(states, 2 * states, torch.full((130, 2 * skip), 9.0), *_bounds([5, 125]))
    known = plane()
    known.frame_skip = skip
    known.energy = lambda past, goal, cost: lambda actions: 200 * past.states[:, 0, 0] + goal[:, 0]  # tells both
    training = Distil(planner=Counting(horizon=4, hold=1), pairs=60)
    follows = torch.tensor([n for n in range(130) if n not in (4, 129)])
    chosen = training.prepare(known, walks, Disc(1.0), follows, generator())
    assert len(set(chosen.tolist())) == 60
    assert set(chosen.tolist()) <= set(follows.tolist())
    for index in chosen.tolist():
        goal = int(training.goal[index])
        assert (goal < 5) == (index < 5)
        told = 10 * (200 * index + 2 * goal)
        assert training.planned[index].tolist() == [told + n for n in range(2 * skip)]
    assert len(set(training.goal[chosen].tolist())) > 20
    seen = []

    def actor(state, goal):
        seen.append((state, goal))
        return training.planned[chosen[:3]] + 2.0

    actor.space = SimpleNamespace(scale=torch.full((2 * skip,), 4.0))
    assert float(training.loss(actor, known, walks, chosen[:3], generator())) == pytest.approx(0.25)
    assert torch.equal(seen[0][0], walks.states[chosen[:3]])
    assert torch.equal(seen[0][1], walks.goals[training.goal[chosen[:3]]])


def test_what_cannot_be_distilled():
    with pytest.raises(ValueError, match="pairs must be at least 1, got 0"):
        Distil(pairs=0)
    known = plane()
    known.frame_skip = 3
    with pytest.raises(ValueError, match="horizon that is a multiple of 3, the world's frame skip, got 4"):
        Distil(planner=Counting(horizon=4, hold=1)).prepare(known, straight_walks(), Disc(1.0), torch.arange(3), None)


def _bounds(lengths):
    length = torch.tensor(lengths)
    end = length.cumsum(0)
    return (end - length).repeat_interleave(length), (end - 1).repeat_interleave(length)


@pytest.mark.parametrize("history", [1, 3])
def test_the_past_of_a_walk_is_that_of_a_memory(history):
    states, actions = torch.randn(9, 1, 4, generator=generator()), torch.randn(9, 2, generator=generator(1))
    walks = Walks(states, states, actions, *_bounds([4, 5]))
    pretext = SimpleNamespace(standardized=lambda given: 3 * given + 1)
    known = SimpleNamespace(history=history, positions=None, pretext=pretext)
    for index, first in ((0, 0), (1, 0), (3, 0), (4, 4), (5, 4), (8, 4)):
        memory = Memory(history)
        for at in range(first, index + 1):
            memory.write(states[at : at + 1], pretext.standardized(actions[at - 1 : at]) if at > first else None)
        found, expected = walks.past(torch.tensor([index]), known), memory.past()
        torch.testing.assert_close(found.states, expected.states)
        assert (found.valid is None) == (history == 1)
        if history > 1:
            assert torch.equal(found.valid, expected.valid)
            done = min(index - first, history - 1)
            assert found.actions.shape[1] == history - 1
            assert not found.actions[:, : history - 1 - done].any()  # before the episode began
            if done:
                torch.testing.assert_close(found.actions[:, history - 1 - done :], expected.actions)


def test_a_proposal_is_where_the_search_starts_if_it_is_better():
    def energy(actions):
        return (actions - 0.5).square().sum((-1, -2))

    class Keeps(RandomShooting):
        """Returns what it starts from."""

        def search(self, energy, space, start, generator):
            return start, energy(start.unsqueeze(1)).squeeze(1)

    loop = RecedingHorizon(Keeps(horizon=2), Box([-1.0], [1.0]), execute=1)
    good, bad = torch.full((1, 2, 1), 0.4), torch.full((1, 2, 1), -5.0)
    assert loop.act(lambda: energy, 2, proposal=lambda: torch.cat([good, bad])).tolist() == [[pytest.approx(0.4)], [0]]


@pytest.mark.parametrize("history", [1, 2])
def test_an_agents_plan_is_no_worse_than_its_actors(history):
    found, space = world(history=history), Disc(3.0)
    actor = Actor(8, space)
    agent = Agent(found, space, CEM(samples=4, elites=2, iterations=1, horizon=6, hold=2), execute=2, actor=actor)
    agent.reset(pictures(seed=1))
    agent.act(pictures())
    proposal = agent.proposal()
    assert torch.equal(proposal[:, ::2], proposal[:, 1::2])  # held, as the planner's
    torch.testing.assert_close(proposal[:, 0], actor(found.encode(pictures()), agent.goal))
    energy = found.energy(agent.memory.past(), agent.goal, GoalDistance())
    assert (agent.loop.first.energy <= energy(proposal.unsqueeze(1)).squeeze(1) + 1e-6).all()
    past, (actions, states) = agent.memory.past(), actor.imagine(found, agent.memory.past(), agent.goal, horizon=4)
    torch.testing.assert_close(states, found.imagine(past, actions.unsqueeze(1))[:, 0])


def test_an_actor_is_written_and_read(tmp_path):
    actor = Actor(4, Disc(3.0), width=16, depth=3)
    actor.standardize_by(torch.randn(20, 1, 4) * 3 + 1)
    actor.save(tmp_path / "there" / "actor.pt")
    read = load_actor(tmp_path / "there" / "actor.pt", Disc(3.0))
    state, goal = torch.randn(2, 5, 1, 4).unbind(0)
    assert torch.equal(read(state, goal), actor(state, goal))
    with pytest.raises(ValueError, match="actions of width 3, got one of 2"):
        load_actor(tmp_path / "there" / "actor.pt", Disc(3.0, dim=3))
    torch.save({"weights": 1}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="expected an actor that jepa-plan has written"):
        load_actor(tmp_path / "other.pt", Disc(3.0))


def test_what_is_refused():
    assert (halved(CEM(samples=20)).samples, halved(Gradient(restarts=6)).restarts) == (10, 3)
    with pytest.raises(ValueError, match="at least 16 samples, of which half"):
        halved(CEM(samples=10, elites=8))
    with pytest.raises(ValueError, match="Imagine needs actions in a continuum"):
        Imagine(steps=1)(plane(), straight_walks(3), Discrete(2))
    with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
        Imagine(horizon=0)
    with pytest.raises(ValueError, match="within must be at least 1, got 0"):
        Imitate(within=0)
    with pytest.raises(ValueError, match="steps and batch_size of at least 1"):
        Imitate(steps=0)
    with pytest.raises(ValueError, match="size, width and depth must be at least 1, got 0"):
        Actor(0, Disc(1.0))


@pytest.mark.parametrize("predictor", [ResidualPredictor, partial(FrameCausalPredictor, width=16, depth=1, heads=2)])
def test_what_an_actor_imagines_is_what_the_world_imagines_of_its_actions(predictor):
    """A causal predictor sees the states before the last one only where it is told the actions between."""
    found = world(predictor=predictor, history=3)
    past, goal = found.past(found.encode(pictures())), found.encode_goal(pictures(seed=1))
    torch.manual_seed(0)
    actions, states = Actor(8, Disc(3.0)).imagine(found, past, goal, horizon=5)
    torch.testing.assert_close(states, found.imagine(past, actions.unsqueeze(1)).squeeze(1))
