"""Learned costs: what is drawn, in loops; what they tell after a fit; whom they are fitted to."""

import math
from types import SimpleNamespace

import pytest
import torch
from test_actor import generator, plane, straight_walks
from torch import nn

from jepa_lightning.environments import Disc
from jepa_lightning.planning import (
    CEM,
    DistanceCost,
    Distil,
    GoalDistance,
    Imagine,
    Oracle,
    TemporalDistance,
    TransitionEnergy,
    Walks,
    WeightedSum,
)
from jepa_lightning.planning.learned_cost import fitted_to, learned

FEW = {"steps": 3, "batch_size": 8, "width": 8, "depth": 1}


def numbered(lengths, skip=1):
    """Episodes whose states, goals and actions are numbers that tell where they are from."""
    end = torch.tensor(lengths).cumsum(0)
    length = torch.tensor(lengths)
    count = int(end[-1])
    states = torch.arange(float(count)).view(-1, 1, 1)
    actions = 1000 + torch.arange(count * 2.0 * skip).view(count, 2 * skip)
    return Walks(
        states, states + 0.5, actions, (end - length).repeat_interleave(length), (end - 1).repeat_interleave(length)
    )


def ring(count=120, length=20, around=20):
    """Walks once around a circle, one step after the other, all of them the same way."""
    start = torch.randint(around, (count, 1), generator=generator())
    angle = 2 * math.pi / around * (start + torch.arange(length)).flatten()
    states = torch.stack([angle.cos(), angle.sin()], -1).unsqueeze(1)
    end = torch.arange(1, count + 1) * length
    bounds = (end - length).repeat_interleave(length), (end - 1).repeat_interleave(length)
    return Walks(states, states, torch.ones(count * length, 1), *bounds)


def test_triples_are_of_one_episode_in_the_order_of_time():
    walks, seen = numbered([5, 7]), []
    cost = TemporalDistance(**FEW)
    cost.embedded = lambda states: seen.append(states) or torch.stack([states.flatten(), 0 * states.flatten()], -1)
    index = walks.follows.repeat(300)
    near, far = cost.pairs(plane(), walks, index, generator())
    earlier, later, goal = seen[0].flatten().chunk(3)
    assert torch.equal(earlier, index.float())
    torch.testing.assert_close(near, (later - goal).abs())
    torch.testing.assert_close(far, (earlier - goal).abs())
    found = {(int(i), int(n), int(g)) for i, n, g in zip(index, later, goal - 0.5, strict=True)}
    expected = {
        (i, n, g) for first, end in ((0, 5), (5, 12)) for i in range(first, end) for n in range(i + 1, end)
        for g in range(n, end)
    }  # fmt: skip
    assert found == expected


@pytest.mark.parametrize("skip", [1, 2])
def test_what_is_corrupted_in_a_transition(skip):
    walks = numbered([5, 7], skip)
    cost = TransitionEnergy(corrupt=["action", "state", "imagined"], **FEW)
    asked = []

    def imagine(past, actions):
        asked.append((past, actions))
        return -past.states[:, -1:].unsqueeze(1)

    known = SimpleNamespace(history=1, positions=None, frame_skip=skip, imagine=imagine)
    given = []
    cost.computed = lambda *parts: given.append(parts) or torch.zeros(len(parts[0]))
    index = walks.follows.repeat(200)
    real, other = cost.pairs(known, walks, index, generator())
    assert (real.shape, other.shape) == ((len(index),), (3, len(index)))
    action, state, imagined, true = given
    for found in given:
        assert torch.equal(found[0], walks.states[index])
    for found in (state, imagined, true):
        assert torch.equal(found[1], walks.actions[index])
    assert torch.equal(action[1], torch.cat([walks.actions[index[-1:]], walks.actions[index[:-1]]]))
    for found in (action, true):
        assert torch.equal(found[2], walks.goals[index + 1])
    ends = {(int(i), int(g)) for i, g in zip(index, state[2].flatten() - 0.5, strict=True)}
    assert ends == {(i, g) for i in walks.follows.tolist() for g in (range(5) if i < 5 else range(5, 12))}
    assert torch.equal(imagined[2], -walks.states[index])
    past, actions = asked[0]
    assert torch.equal(past.states[:, 0], walks.states[index])
    assert torch.equal(actions, walks.actions[index].view(-1, 1, skip, 2))  # one candidate of `skip` actions


def test_the_margin_loss_in_a_loop():
    """One step of plain gradient descent would follow the mean over pairs of max(0, margin + real - other)."""
    real, other = torch.tensor([0.0, 2.0, 1.0]), torch.tensor([[0.5, 3.5, 1.0], [0.0, 0.0, 9.0]])
    expected = sum(max(0.0, 1.5 + float(r) - float(o)) for row in other for r, o in zip(real, row, strict=True)) / 6
    seen = []

    class Fixed(TransitionEnergy):
        def build(self, walks):
            self.shift = nn.Parameter(torch.zeros(()))
            return nn.ParameterList([self.shift])

        def pairs(self, world, walks, index, generator):
            self.shift.register_hook(lambda gradient: seen.append(float(gradient)))
            return real + self.shift, other - self.shift

    cost = Fixed(margin=1.5, **{**FEW, "steps": 1})
    cost.fit(plane(), straight_walks(3))
    active = sum(1.5 + float(r) - float(o) > 0 for row in other for r, o in zip(real, row, strict=True))
    assert seen == [pytest.approx(2 * active / 6)]  # the slope of the loss above, which is
    assert expected == pytest.approx(sum([1.0, 0.0, 1.5, 1.5, 3.5, 0.0]) / 6)


@pytest.mark.long
def test_temporal_distances_order_states_that_were_not_seen():
    cost = TemporalDistance(steps=200, width=32, depth=1, learning_rate=5e-3)
    walks = straight_walks(150)
    cost.fit(plane(), walks)
    start = 4 * torch.randn(200, 1, 2, generator=generator(7))
    step = torch.nn.functional.normalize(torch.randn(200, 1, 2, generator=generator(8)), dim=-1)
    far, near = cost.distance(start, start + 6 * step), cost.distance(start + 3 * step, start + 6 * step)
    assert (near < far).float().mean() > 0.9
    assert cost.distance(start, start).max() < 1e-5
    assert not any(parameter.requires_grad for parameter in cost.parameters())


@pytest.mark.long
def test_the_way_back_may_be_longer():
    cost = TemporalDistance(steps=300, width=32, depth=1, learning_rate=5e-3)
    walks = ring()
    cost.fit(plane(), walks)
    place = torch.arange(20) * 2 * math.pi / 20
    states = torch.stack([place.cos(), place.sin()], -1).unsqueeze(1)
    ahead = cost.distance(states, states.roll(-2, 0))
    back = cost.distance(states, states.roll(2, 0))
    assert (ahead < back).float().mean() > 0.7
    assert ahead.mean() < 0.9 * back.mean()
    both = GoalDistance()
    torch.testing.assert_close(both.distance(states, states.roll(-2, 0)), both.distance(states, states.roll(2, 0)))


@pytest.mark.long
@pytest.mark.parametrize("corrupt", ["action", "state", "imagined"])
def test_an_energy_tells_true_transitions_from_corrupted_ones(corrupt):
    walks, known = straight_walks(200), plane()
    known.imagine = lambda past, actions: past.states[:, None, -1:] - actions.unsqueeze(3)  # the wrong way
    cost = TransitionEnergy(corrupt=[corrupt], steps=200, width=32, depth=1, learning_rate=5e-3)
    cost.fit(known, walks)
    other = straight_walks(50)
    fresh = Walks(other.states + 0.3, other.goals + 0.3, other.actions, other.first, other.last)
    index = fresh.follows[torch.randperm(len(fresh.follows), generator=generator(4))]
    real, corrupted = cost.pairs(known, fresh, index, generator(5))
    right = (real < corrupted[0]).float().mean()
    # one in nine "states" is the true one, and one action in eight is of the same straight walk
    assert right > (0.95 if corrupt == "imagined" else 0.8)
    assert (real >= 0).all()


@pytest.mark.parametrize("skip", [1, 2])
def test_energies_over_time_in_loops(skip):
    walks = numbered([5, 7], skip)
    cost = TransitionEnergy(**FEW)
    cost.fit(SimpleNamespace(device=torch.device("cpu"), frame_skip=skip), walks)
    states = torch.randn(2, 3, 4, 1, 1, generator=generator(), requires_grad=True)
    actions = torch.randn(2, 3, 4 * skip, 2, generator=generator(1), requires_grad=True)
    goal = torch.randn(2, 1, 1, 1)
    found = cost(states, actions, goal)
    for b in range(2):
        for c in range(3):
            each = []
            for t in range(1, 4):
                done = actions[b, c, t * skip : (t + 1) * skip].flatten()
                each.append(cost.computed(states[b, c, t - 1], done, states[b, c, t]))
            torch.testing.assert_close(found[b, c], torch.stack(each).mean())
    found.sum().backward()
    assert states.grad.abs().sum() > 0
    assert not actions.grad[:, :, :skip].any()  # those that lead to the first state
    assert actions.grad[:, :, skip:].abs().sum() > 0
    assert torch.equal(cost(states[:, :, :1], actions[:, :, :skip], goal), torch.zeros(2, 3))


@pytest.mark.parametrize("reduce", ["min", "mean", "last"])
def test_temporal_distances_over_time_are_those_of_each_state(reduce):
    walks = straight_walks(5)
    cost = TemporalDistance(reduce=reduce, mean_weight=0.1, **FEW)
    cost.fit(plane(), walks)
    states = torch.randn(2, 3, 4, 1, 2, generator=generator(), requires_grad=True)
    goal = torch.randn(2, 1, 2, generator=generator(1))
    found = cost(states, torch.zeros(2, 3, 4, 2), goal.unsqueeze(1))
    for b in range(2):
        for c in range(3):
            d = [float(cost.distance(states[b, c, t], goal[b]).detach()) for t in range(4)]
            expected = {"min": min(d) + 0.1 * sum(d) / 4, "mean": sum(d) / 4, "last": d[-1]}[reduce]
            assert float(found[b, c].detach()) == pytest.approx(expected, rel=1e-4)
    found.sum().backward()
    assert states.grad.isfinite().all()
    assert states.grad.any()


def test_a_cost_is_fitted_to_a_world_in_a_copy():
    walks, other, known = straight_walks(5), ring(5), plane()
    fresh = WeightedSum([GoalDistance(), TemporalDistance(**FEW), TransitionEnergy(**FEW)], weights=[1.0, 1.0, 0.1])
    assert len(learned(fresh)) == 2
    first = fitted_to(fresh, known, walks, seed=1)
    assert first is not fresh
    assert [part.fitted for part in learned(fresh)] == [False, False]
    assert [part.fitted for part in learned(first)] == [True, True]
    again, elsewhere = fitted_to(fresh, known, walks, seed=1), fitted_to(first, known, other, again=True)
    assert fitted_to(first, known, other) is first
    assert fitted_to(GoalDistance(), known, other, again=True).level == 1
    states, actions, goal = torch.randn(4, 3, 1, 2), torch.randn(4, 3, 2), torch.randn(4, 1, 2)
    assert torch.equal(first(states, actions, goal), again(states, actions, goal))
    assert not torch.equal(learned(first)[0](states, actions, goal), learned(elsewhere)[0](states, actions, goal))
    with torch.random.fork_rng():
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        fitted_to(fresh, known, walks)
        assert torch.equal(torch.rand(3), expected)  # the global generator is left alone


def test_actors_are_trained_by_learned_costs():
    walks, known, cost = straight_walks(6), plane(), TemporalDistance(**FEW)
    for training in (
        Imagine(steps=2, horizon=2, cost=cost),
        Distil(steps=2, cost=cost, pairs=5, planner=CEM(samples=8, elites=2, iterations=1, horizon=2, hold=1)),
    ):
        actor = training(known, walks, Disc(1.0))
        assert actor(walks.states[:3], walks.goals[:3]).shape == (3, 2)
    assert not cost.fitted


def test_an_oracle_takes_how_distances_count_over_time_and_nothing_else():
    cost = TemporalDistance(reduce="last", **FEW)
    assert isinstance(cost, DistanceCost)
    assert Oracle(CEM(), cost=cost).cost.over_time(torch.tensor([3.0, 2.0])) == 2
    assert isinstance(Oracle(CEM(), cost=TransitionEnergy(**FEW)).cost, GoalDistance)


def test_what_is_refused():
    states, actions, goal = torch.randn(3, 2, 1, 2), torch.randn(3, 2, 2), torch.randn(3, 1, 2)
    for cost in (TemporalDistance(), TransitionEnergy()):
        with pytest.raises(ValueError, match=rf"expected a {type(cost).__name__} that is fitted to the world"):
            cost(states, actions, goal)
        with pytest.raises(ValueError, match="expected walks of at least two observations to fit a cost to, got none"):
            cost.fit(plane(), numbered([1, 1]))
    with pytest.raises(ValueError, match=r"expected corrupt to name some of action, state, imagined, got \['time'\]"):
        TransitionEnergy(corrupt=["time"])
    with pytest.raises(ValueError, match="expected corrupt to name some"):
        TransitionEnergy(corrupt=[])
    with pytest.raises(ValueError, match="positive margin, got 64, 2 and 0"):
        TemporalDistance(margin=0)
    with pytest.raises(ValueError, match="steps and batch_size of at least 1"):
        TransitionEnergy(steps=0)
    with pytest.raises(ValueError, match="reduce must be min, mean or last"):
        TemporalDistance(reduce="max")
