"""Two Rooms: moves and pictures against a plain simulation of one dot, tasks, wandering."""

import math

import pytest
import torch

from jepa_lightning.environments import TwoRooms
from jepa_lightning.environments.two_rooms import blocked


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def plain_blocked(x, y, wall, door):
    if x < 4 or y < 4 or x > 59 or y > 59:
        return True
    return abs(x - wall) <= 3 and abs(y - door) > 3.5


def plain_step(state, action):
    x, y, wall, door = state
    at = (x, y)
    for k in range(1, 7):
        there = (x + action[0] * k / 6, y + action[1] * k / 6)
        if plain_blocked(*there, wall, door):
            break
        at = there
    return at


def plain_picture(state):
    x, y, wall, door = state
    rows = []
    for row in range(64):
        pixels = []
        for column in range(64):
            solid = abs(column - wall) <= 1.5 and abs(row - door) > 5
            edge = row < 2 or row > 61 or column < 2 or column > 61
            dot = int(math.exp(-((column - x) ** 2 + (row - y) ** 2) / 4.5) * 255)
            pixels.append(max(128 if solid or edge else 0, dot))
        rows.append(pixels)
    return torch.tensor(rows)


def test_moves_are_those_of_a_plain_simulation():
    rooms = TwoRooms()
    found = rooms.wander(40, 30, generator())
    states, actions = found.states.double(), found.actions.double()
    after = rooms.step(states[:, :-1], actions)
    stopped = 0
    for n in range(40):
        for t in range(29):
            expected = plain_step(states[n, t].tolist(), actions[n, t].tolist())
            torch.testing.assert_close(after[n, t, :2], torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=0)
            stopped += math.dist(expected, (states[n, t, :2] + actions[n, t]).tolist()) > 1e-6
    assert stopped > 20
    assert torch.equal(after[..., 2:], states[:, :-1, 2:])
    torch.testing.assert_close(after.float(), found.states[:, 1:], atol=1e-4, rtol=0)


def test_pictures_are_drawn_pixel_by_pixel():
    rooms, states = TwoRooms(), TwoRooms().wander(3, 2, generator()).states[:, 0]
    found = rooms.observe(states)
    assert found.dtype == torch.uint8
    for picture, state in zip(found, states.double().tolist(), strict=True):
        assert (picture[0].int() - plain_picture(state)).abs().max() <= 1  # rounding of the exponential
    small = TwoRooms(image_size=32).observe(states.unsqueeze(1))
    assert small.shape == (3, 1, 1, 32, 32)
    where = small[0, 0, 0].float().clamp(min=128).sub(128)  # the dot alone
    x = ((where.sum(0) * (torch.arange(32) + 0.5)).sum() / where.sum()) * 2 - 0.5
    assert abs(float(x) - float(states[0, 0])) < 1.0


@pytest.mark.parametrize("kind", ["same", "other", "any"])
def test_tasks_begin_and_end_where_they_should(kind):
    rooms = TwoRooms(rooms=kind)
    tasks = rooms.tasks(200, generator())
    for states in (tasks.start, tasks.goal):
        assert not blocked(states[:, :2], states[:, 2:]).any()
    assert torch.equal(tasks.start[:, 2:], tasks.goal[:, 2:])
    sides = [states[:, 0] < states[:, 2] for states in (tasks.start, tasks.goal)]
    alike = sides[0] == sides[1]
    if kind == "same":
        assert alike.all()
        assert (rooms.distance(tasks.start, tasks.goal) >= 10).all()
    elif kind == "other":
        assert not alike.any()
    else:
        assert 50 < alike.sum() < 150
    assert not rooms.reached(tasks.start, tasks.goal).all()
    assert rooms.reached(tasks.goal, tasks.goal).all()


def test_the_straight_way_ends_at_the_goal_in_the_same_room_and_at_the_wall_in_the_other():
    arrived = {}
    for kind in ("same", "other"):
        rooms = TwoRooms(rooms=kind)
        tasks = rooms.tasks(100, generator())
        state = tasks.start
        for _ in range(40):
            state = rooms.step(state, rooms.towards(state, tasks.goal))
        arrived[kind] = int(rooms.reached(state, tasks.goal).sum())
    assert arrived["same"] > 95  # some begin in the doorway
    assert arrived["other"] < 30


@pytest.mark.parametrize("walk", ["drift", "hold", "both"])
def test_the_same_seed_gives_the_same_walk(walk):
    rooms = TwoRooms(walk=walk)
    one, other = rooms.wander(5, 8, generator(3)), rooms.wander(5, 8, generator(3))
    assert torch.equal(one.states, other.states)
    assert torch.equal(one.actions, other.actions)
    assert not torch.equal(one.states, rooms.wander(5, 8, generator(4)).states)
    assert one.states.shape == (5, 8, 4)
    assert one.actions.shape == (5, 7, 2)
    assert (one.actions.norm(dim=-1) <= 3).all()


def test_held_actions_lean_on_walls():
    found = {}
    for walk in ("drift", "hold"):
        rooms = TwoRooms(walk=walk)
        walks = rooms.wander(300, 32, generator())
        after = rooms.step(walks.states[:, :-1], walks.actions)
        torch.testing.assert_close(after, walks.states[:, 1:])
        assert (walks.actions.norm(dim=-1) <= 3).all()
        held = (walks.actions[:, 1:] == walks.actions[:, :-1]).all(-1)
        hit = (after - walks.states[:, :-1])[..., :2].sub(walks.actions).norm(dim=-1) > 1e-3
        sides = walks.states[..., 0] < walks.states[..., 2]
        found[walk] = {"held": held, "hit": hit, "through": (sides[:, 0] != sides[:, -1]).float().mean()}
    assert not found["drift"]["held"].any()
    held, hit = (found["hold"][key] for key in ("held", "hit"))
    assert abs(float(held[~hit[:, :-1]].float().mean()) - 4 / 5) < 0.02  # 5 steps on average
    assert abs(float(held[hit[:, :-1]].float().mean()) - 3 / 4) < 0.03
    assert hit.float().mean() > 2 * found["drift"]["hit"].float().mean()
    assert found["hold"]["through"] > 0.05
    mixed = TwoRooms(walk="both").wander(301, 32, generator())
    held = (mixed.actions[:, 1:] == mixed.actions[:, :-1]).all(-1).any(-1)
    assert not held[::2].any()
    assert held[1::2].all()
    torch.testing.assert_close(rooms.step(mixed.states[:, :-1], mixed.actions), mixed.states[:, 1:])


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="rooms must be same, other or any, got 'left'"):
        TwoRooms(rooms="left")
    with pytest.raises(ValueError, match="walk must be drift, hold or both, got 'run'"):
        TwoRooms(walk="run")
    with pytest.raises(ValueError, match="at least 2 observations, got 1"):
        TwoRooms().wander(3, 1, generator())
    with pytest.raises(ValueError, match="at least 8 pixels and a positive radius"):
        TwoRooms(image_size=4)
    with pytest.raises(ValueError, match=r"expected wall as a range within 20 to 44, got 10\.0 to 30\.0"):
        TwoRooms(wall=(10.0, 30.0))
