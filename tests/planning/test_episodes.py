"""Closed loop: who arrives, when an episode ends, Wilson's interval, and the ceiling of the default planner."""

import pytest
import torch
from scipy.stats import binomtest

from jepa_lightning.environments import Tasks, TwoRooms
from jepa_lightning.evaluation.probes.protocols import wilson
from jepa_lightning.planning import CEM, DoNothing, Oracle, RandomActions, StraightLine, Towards, run_episodes
from jepa_lightning.planning.episodes import unsolved
from jepa_lightning.planning.policies import simulate


def tasks(rooms, count=50, seed=0):
    return rooms.tasks(count, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("count", "total"), [(0, 10), (3, 10), (10, 10), (87, 100), (1, 1)])
def test_wilsons_interval_is_scipys(count, total):
    expected = binomtest(count, total).proportion_ci(method="wilson")
    assert wilson(count, total) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_wilson_of_nothing():
    with pytest.raises(ValueError, match="at least one, got 0 of 0"):
        wilson(0, 0)


def test_steps_are_those_after_which_the_goal_is_reached():
    rooms = TwoRooms(rooms="same")
    drawn = tasks(rooms)
    found = run_episodes(rooms, drawn, Towards(), budget=40)
    alone = []
    for start, goal in zip(drawn.start, drawn.goal, strict=True):
        state, step = start, 0
        while not rooms.reached(state, goal) and step < 40:
            state, step = rooms.step(state, rooms.towards(state, goal)), step + 1
        alone.append(step if rooms.reached(state, goal) else 0)
    assert found.steps.tolist() == alone
    assert found.decisions == sum(n or 40 for n in alone)
    summary = found.summary()
    assert summary["reached"] == sum(n > 0 for n in alone)
    assert summary["steps"] == pytest.approx(sum(alone) / summary["reached"])
    assert summary["interval"] == list(wilson(summary["reached"], 50))


def test_who_arrives_by_chance_or_not_at_all():
    rooms = TwoRooms(rooms="same")
    drawn = tasks(rooms, 100)
    assert run_episodes(rooms, drawn, DoNothing(), budget=40).summary() | {"ms_an_action": 0} == {
        "success": 0.0,
        "interval": list(wilson(0, 100)),
        "reached": 0,
        "episodes": 100,
        "steps": None,
        "ms_an_action": 0,
        "ms_a_plan": None,
    }
    for policy in (RandomActions(), StraightLine()):
        first = run_episodes(rooms, drawn, policy, budget=40)
        assert 0 < first.reached.sum() < 50
        assert torch.equal(first.steps, run_episodes(rooms, drawn, policy, budget=40).steps)


def test_a_straight_line_is_one_direction_at_full_speed():
    rooms, line = TwoRooms(), StraightLine()
    drawn = tasks(rooms, 30)
    line.reset(rooms, drawn)
    action = line.act(drawn.start)
    torch.testing.assert_close(action.norm(dim=-1), torch.full((30,), 3.0))
    assert torch.equal(action, line.act(drawn.goal))


@pytest.mark.long
def test_the_default_planner_with_true_dynamics_reaches_the_other_room():
    rooms = TwoRooms(rooms="other")
    found = run_episodes(rooms, tasks(rooms, 40), Oracle(CEM(horizon=32)), budget=100)
    plans = sum(-(-(n or 100) // 4) for n in found.steps.tolist())  # one for every four actions of each episode
    assert found.plans == plans
    assert found.summary()["ms_a_plan"] == pytest.approx(1000 * found.seconds / plans)
    assert found.reached.float().mean() >= 0.85


def test_an_oracle_imagines_what_happens():
    rooms = TwoRooms()
    walk = rooms.wander(6, 9, torch.Generator().manual_seed(0))
    way = simulate(rooms, walk.states[:, 0], walk.actions)
    torch.testing.assert_close(way, walk.states[:, 1:])


def test_tasks_that_are_solved_at_the_start_are_left_out():
    rooms = TwoRooms()
    drawn = tasks(rooms, 10)
    near = Tasks(drawn.start, torch.cat([drawn.start[:4], drawn.goal[4:]]))
    kept, solved = unsolved(rooms, near)
    assert solved == 4
    torch.testing.assert_close(kept.start, drawn.start[4:])
