"""Push-T: states that are set and read, steps against the environment's own, goals that are tasks."""

import importlib.util
import math
import sys

import numpy as np
import pytest
import torch

from jepa_lightning.environments import PushT, Tasks
from jepa_lightning.planning import Oracle, Towards, run_episodes
from jepa_lightning.planning.planners import CEM

pytest.importorskip("gymnasium", reason="needs gymnasium, of the extra world")
PLACES = [0, 1, 4, 5]


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "gym_pusht", None)
    with pytest.raises(ImportError, match=r'Push-T needs gym-pusht, which is not installed: pip install "jepa-.*pusht'):
        PushT()


@pytest.fixture(scope="module")
def push():
    if importlib.util.find_spec("gym_pusht") is None:
        pytest.skip("needs gym-pusht, of the extra pusht")
    return PushT(image_size=32)


@pytest.fixture
def own(push):
    """The environment itself, by gymnasium."""
    import gymnasium

    env = gymnasium.make("gym_pusht/PushT-v0").unwrapped
    env.reset(seed=0)
    return env


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def at(x, y, block_x, block_y, angle=0.0):
    """A state in which everything rests."""
    return torch.tensor([x, y, 0.0, 0.0, block_x, block_y, 0.0, 0.0, 0.0, math.cos(angle), math.sin(angle)])


def set_to(env, state):
    """Set a simulator that was just made, with no contact, to a state (11,)."""
    numbers = state.double().tolist()
    env.agent.position, env.agent.velocity = tuple(numbers[:2]), tuple(numbers[2:4])
    env.block.angle = math.atan2(numbers[10], numbers[9])
    env.block.position, env.block.velocity, env.block.angular_velocity = numbers[4:6], numbers[6:8], numbers[8]
    for body in (env.agent, env.block):
        env.space.reindex_shapes_for_body(body)


def seen(env):
    return [*env.agent.position, *env.block.position, math.cos(env.block.angle), math.sin(env.block.angle)]


def test_settings_out_of_range_are_said(push):
    for wrong, said in (({"near": 1.5}, "share near"), ({"reach": 0.0}, "positive radius"), ({"hold": 0}, "hold")):
        with pytest.raises(ValueError, match=said):
            PushT(**wrong)


def test_a_first_step_is_the_environments_own(push, own):
    """From rest and without contacts behind it, pushes included: the controller is written out, to spare the reward."""
    for state, action in (
        (at(60, 60, 300, 300), [25.0, 15.0]),
        (at(300, 282, 300, 300), [0.0, 28.0]),  # pushes the bar of the T
        (at(5, 5, 300, 300), [-20.0, 10.0]),  # cut off at the table's edge
    ):
        own.reset(seed=0)
        set_to(own, state)
        place = np.clip(state[:2].numpy() + action, 0, 512)
        own.step(place)
        after = push.step(state, torch.tensor(action))
        assert after[[*PLACES, 9, 10]].tolist() == pytest.approx(seen(own), abs=1e-3)
    assert float(push.step(at(300, 282, 300, 300), torch.tensor([0.0, 28.0]))[5]) > 301


def test_an_episode_stays_near_one_without_a_break(push, own):
    """Contacts are forgotten between steps, and so are what walks differ by: a few of 512 after a push of 10 steps."""
    start, action = at(300, 250, 310, 300), torch.tensor([0.0, 25.0])
    own.reset(seed=0)
    set_to(own, start)
    state = start
    for _ in range(10):
        own.step(np.array(own.agent.position) + action.numpy())
        state = push.step(state, action)
    assert state[:2].tolist() == pytest.approx(seen(own)[:2], abs=1e-2)
    assert float(state[5]) > 350
    assert state[4:6].tolist() == pytest.approx(seen(own)[2:4], abs=3)


def test_steps_depend_on_the_state_alone(push):
    walk = push.wander(6, 15, generator())
    states, actions = walk.states[:, :-1].reshape(-1, 11), walk.actions.reshape(-1, 2)
    order = torch.randperm(len(states), generator=generator())
    again = torch.empty_like(states)
    again[order] = push.step(states[order], actions[order])
    assert (walk.states[:, 1:, 4:6] - walk.states[:, :-1, 4:6]).abs().amax() > 1  # something was pushed
    torch.testing.assert_close(again, walk.states[:, 1:].reshape(-1, 11), atol=0.05, rtol=0)


def test_states_are_set_as_they_are_read(push):
    walk = push.wander(3, 12, generator())
    assert walk.states.shape == (3, 12, len(push.state_names))
    assert walk.actions.shape == (3, 11, 2)
    for state in push._folded(walk.states).reshape(-1, 10):
        push.put(state)
        assert push.get() == pytest.approx(state, abs=1e-4)


def test_walks_hold_actions_and_meet_the_block(push):
    walk = push.wander(12, 26, generator())
    assert torch.equal(walk.actions[:, 0], walk.actions[:, 4])
    assert not torch.equal(walk.actions[:, 4], walk.actions[:, 5])
    assert walk.actions.norm(dim=-1).amax() <= 30 + 1e-3
    anywhere = PushT(image_size=32, near=0.0).wander(12, 26, generator())

    def pushed(walk):
        return float(((walk.states[:, 1:, 4:6] - walk.states[:, :-1, 4:6]).norm(dim=-1) > 0.1).float().mean())

    assert pushed(walk) > pushed(anywhere) + 0.05


def test_distance_is_the_larger_of_both(push):
    start, near = at(100, 100, 200, 200), at(109, 100, 200, 212, 0.2)  # 15 off, and 0.2 radians
    assert float(push.distance(start, near)) == pytest.approx(15 / 20)
    near[2:4], near[6:9] = 50.0, 7.0  # velocities do not count
    assert float(push.distance(start, near)) == pytest.approx(15 / 20)
    turned, back = at(100, 100, 200, 200, 3.0), at(100, 100, 200, 200, -3.0)
    assert float(push.distance(start, turned)) == pytest.approx(3.0 / (math.pi / 9), rel=1e-4)
    assert push.reached(start, near)
    assert not push.reached(start, turned)
    assert float(push.turned(turned, back)) == pytest.approx(2 * math.pi - 6, abs=1e-4)


def test_goals_move_the_block(push):
    tasks = push.tasks(5, generator())
    assert tasks.start.shape == tasks.goal.shape == (5, 11)
    assert push.moved(tasks.start, tasks.goal).all()
    assert not push.reached(tasks.start, tasks.goal).any()
    assert torch.equal(push.tasks(5, generator()).start, tasks.start)


def test_heading_for_the_goal_brings_the_disc_there(push):
    tasks = push.tasks(4, generator(1))
    states = tasks.start
    for _ in range(60):
        states = push.step(states, push.towards(states, tasks.goal))
    assert (states[:, :2] - tasks.goal[:, :2]).norm(dim=1).amax() < 1
    assert not run_episodes(push, tasks, Towards(), budget=60).reached.all()  # the block is not


def test_an_oracle_pushes_the_block_to_its_place(push):
    start = at(300, 270, 310, 300)
    goal = start
    for _ in range(5):
        goal = push.step(goal, torch.tensor([0.0, 25.0]))
    assert push.moved(start, goal)
    planner = CEM(samples=12, elites=4, iterations=3, horizon=5, hold=5)
    assert run_episodes(push, Tasks(start[None], goal[None]), Oracle(planner, execute=5), budget=15).reached.all()


def test_pictures_show_the_state_alone(push):
    state = at(100, 100, 200, 200)
    first = push.observe(state)
    assert first.shape == (3, 32, 32)
    assert first.dtype == torch.uint8
    push.step(state, torch.tensor([20.0, 20.0]))
    assert torch.equal(push.observe(state), first)
    assert not torch.equal(push.observe(at(100, 100, 300, 200)), first)
    assert not torch.equal(push.observe(at(100, 100, 200, 200, 1.0)), first)
    disc = (push.observe(at(40, 470, 200, 200)).int() - push.observe(at(470, 40, 200, 200)).int()).abs().sum(0)
    rows, columns = torch.nonzero(disc > 40, as_tuple=True)
    assert int(columns[rows < 16].min()) > 24  # x 470, y 40: top right
    assert int(columns[rows > 16].max()) < 8  # x 40, y 470: bottom left
