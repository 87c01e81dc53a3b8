"""Costs in loops, memory, and the receding horizon."""

import pytest
import torch

from jepa_lightning.environments import Box, Disc
from jepa_lightning.planning import (
    CEM,
    ActionPenalty,
    GoalDistance,
    Memory,
    RandomShooting,
    RecedingHorizon,
    WeightedSum,
)


def trajectories():
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 3, 4, 2, 5), (2, 3, 4, 2), (2, 2, 5))
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("reduce", ["min", "mean", "last"])
def test_the_distance_to_a_goal_in_loops(reduce):
    states, actions, goal = trajectories()
    found = GoalDistance(reduce=reduce, mean_weight=0.1)(states, actions, goal.unsqueeze(1))  # over candidates
    for b in range(2):
        for c in range(3):
            d = [float((states[b, c, t] - goal[b]).square().mean() ** 0.5) for t in range(4)]
            expected = {"min": min(d) + 0.1 * sum(d) / 4, "mean": sum(d) / 4, "last": d[-1]}[reduce]
            assert float(found[b, c]) == pytest.approx(expected)


def test_penalties_and_sums():
    states, actions, goal = trajectories()
    penalty = ActionPenalty(scale=[2.0, 1.0])
    one = actions[1, 2]
    expected = sum(float((a[0] / 2) ** 2 + a[1] ** 2) for a in one) / 4
    assert float(penalty(states, actions, goal)[1, 2]) == pytest.approx(expected)
    both = WeightedSum([GoalDistance(), penalty], weights=[2.0, 0.5])
    wide = goal.unsqueeze(1)
    parts = 2 * GoalDistance()(states, actions, wide) + 0.5 * penalty(states, actions, wide)
    torch.testing.assert_close(both(states, actions, wide), parts)


@pytest.mark.parametrize("reduce", ["min", "mean", "last"])
def test_gradients_against_finite_differences_and_at_the_goal(reduce):
    states, actions, goal = trajectories()
    cost = GoalDistance(reduce=reduce)
    assert torch.autograd.gradcheck(lambda s: cost(s, actions, goal.unsqueeze(1)).sum(), states.requires_grad_())
    there = goal[:, None, None].expand_as(states).clone().requires_grad_()
    cost(there, actions, goal.unsqueeze(1)).sum().backward()
    assert there.grad.isfinite().all()


def test_memory_at_an_episodes_start_and_when_it_is_full():
    memory, states = Memory(3), torch.randn(5, 2, 1, 4)
    with pytest.raises(ValueError, match="expected a state in the memory, got none"):
        memory.past()
    for t in range(5):
        memory.write(states[t])
        past = memory.past()
        real = min(t + 1, 3)
        assert past.valid.tolist() == [[False] * (3 - real) + [True] * real] * 2
        torch.testing.assert_close(past.states[:, 3 - real :], states[t + 1 - real : t + 1].transpose(0, 1))
    memory.keep(torch.tensor([1]))
    torch.testing.assert_close(memory.past().states[0], states[2:, 1])
    memory.clear()
    memory.write(states[0])
    assert memory.past().valid[0].tolist() == [False, False, True]
    single = Memory()
    single.write(states[0])
    assert single.past().valid is None


def test_a_memory_knows_the_actions_between_its_states():
    memory, states, actions = Memory(3), torch.randn(6, 2, 1, 4), torch.randn(6, 2, 5)
    memory.write(states[0], actions[0])
    assert memory.past().actions is None  # nothing led to the first
    for t in range(1, 5):
        memory.write(states[t], actions[t])
        known = min(t, 2)
        torch.testing.assert_close(memory.past().actions, actions[t + 1 - known : t + 1].transpose(0, 1))
    memory.keep(torch.tensor([1]))
    torch.testing.assert_close(memory.past().actions[0], actions[3:5, 1])
    memory.write(states[5, 1:])
    assert memory.past().actions is None  # what was done last is not known
    memory.write(states[0, 1:], actions[0, 1:])
    torch.testing.assert_close(memory.past().actions, actions[:1, 1:].transpose(0, 1))
    memory.clear()
    memory.write(states[0], actions[0])
    assert memory.past().actions is None
    single = Memory()
    for t in range(3):
        single.write(states[t], actions[t])
    assert single.past().actions is None


class Recording(RandomShooting):
    """Keeps the starts that it is given."""

    def __call__(self, energy, space, start, generator):
        self.starts = [*getattr(self, "starts", []), start]
        return super().__call__(energy, space, start, generator)


@pytest.mark.parametrize("warm", [True, False])
def test_a_horizon_recedes_and_starts_from_the_shifted_plan(warm):
    planner, space = Recording(samples=8, horizon=4, hold=1), Box([0.0], [2.0])
    loop = RecedingHorizon(planner, space, execute=3, warm=warm)
    bowl = lambda a: a.square().sum((-1, -2))  # noqa: E731
    done, made = [], 0
    for step in range(7):
        due = loop.due
        assert due == (step % 3 == 0)
        done.append(loop.act(lambda: bowl, 2))
        if due:
            plan = loop.plan
            made += 1
        torch.testing.assert_close(done[-1], plan.actions[:, step % 3])
    assert made == len(planner.starts) == 3
    assert loop.plans == 6
    expected = torch.cat([loop.first.actions[:, 3:], torch.ones(2, 3, 1)], 1) if warm else torch.ones(2, 4, 1)
    torch.testing.assert_close(planner.starts[1], expected)
    loop.keep(torch.tensor([1]))
    torch.testing.assert_close(loop.act(lambda: bowl, 1), plan.actions[1:, 1])


def test_what_is_refused():
    with pytest.raises(ValueError, match="reduce must be min, mean or last, got 'max'"):
        GoalDistance(reduce="max")
    with pytest.raises(ValueError, match="expected a positive scale"):
        ActionPenalty(scale=[0.0])
    with pytest.raises(ValueError, match="expected a weight for each of 1 costs, got 2"):
        WeightedSum([GoalDistance()], weights=[1.0, 2.0])
    with pytest.raises(ValueError, match="capacity must be at least 1"):
        Memory(0)
    with pytest.raises(ValueError, match="expected to execute 1 to 16 actions, the horizon, got 17"):
        RecedingHorizon(CEM(), Disc(1.0), execute=17)
