"""Four Rooms: moves and pictures against a plain simulation of one dot, doors, tasks, wandering, distractors."""

import math

import pytest
import torch

from jepa_lightning.data import TrajectoryData
from jepa_lightning.environments import FourRooms
from jepa_lightning.environments.rooms import meets


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def plain_blocked(x, y, layout):
    wall_x, wall_y, up, right, down, left = layout
    if x < 4 or y < 4 or x > 59 or y > 59:
        return True
    if abs(x - wall_x) <= 3 and abs(y - up) > 3.5 and abs(y - down) > 3.5:
        return True
    return abs(y - wall_y) <= 3 and abs(x - left) > 3.5 and abs(x - right) > 3.5


def plain_step(state, action):
    x, y = at = tuple(state[:2])
    for k in range(1, 7):
        there = (x + action[0] * k / 6, y + action[1] * k / 6)
        if plain_blocked(*there, state[2:8]):
            break
        at = there
    moved = []
    for start in range(8, len(state), 4):
        place, velocity = state[start : start + 2], state[start + 2 : start + 4]
        for axis in range(2):
            place[axis] += velocity[axis]
            for edge in (4.0, 59.0):
                if (place[axis] < edge) == (edge == 4.0) and place[axis] != edge:
                    place[axis], velocity[axis] = 2 * edge - place[axis], -velocity[axis]
        moved += [*place, *velocity]
    return [*at, *state[2:8], *moved]


def plain_picture(state):
    wall_x, wall_y, up, right, down, left = state[2:8]
    dots = [(*state[:2], 255)] + [(*state[start : start + 2], 160) for start in range(8, len(state), 4)]
    rows = []
    for row in range(64):
        pixels = []
        for column in range(64):
            solid = abs(column - wall_x) <= 1.5 and abs(row - up) > 5 and abs(row - down) > 5
            solid |= abs(row - wall_y) <= 1.5 and abs(column - left) > 5 and abs(column - right) > 5
            solid |= row < 2 or row > 61 or column < 2 or column > 61
            seen = [int(math.exp(-((column - x) ** 2 + (row - y) ** 2) / 4.5) * most) for x, y, most in dots]
            pixels.append(max(128 if solid else 0, *seen))
        rows.append(pixels)
    return torch.tensor(rows)


@pytest.mark.parametrize("distractors", [0, 1, 2])
def test_moves_are_those_of_a_plain_simulation(distractors):
    rooms = FourRooms(distractors=distractors, walk="both")
    found = rooms.wander(40, 50, generator())
    states, actions = found.states.double(), found.actions.double()
    after = rooms.step(states[:, :-1], actions)
    assert after.shape[-1] == 8 + 4 * distractors == len(rooms.state_names)
    stopped = turned = 0
    for n in range(40):
        for t in range(49):
            expected = plain_step(states[n, t].tolist(), actions[n, t].tolist())
            torch.testing.assert_close(after[n, t], torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=0)
            stopped += math.dist(expected[:2], (states[n, t, :2] + actions[n, t]).tolist()) > 1e-6
            turned += expected[10:12] != states[n, t, 10:12].tolist()
    assert stopped > 20
    assert bool(turned) == (distractors > 0)
    assert torch.equal(after[..., 2:8], states[:, :-1, 2:8])
    torch.testing.assert_close(after.float(), found.states[:, 1:], atol=1e-4, rtol=0)


def test_pictures_are_drawn_pixel_by_pixel():
    rooms = FourRooms(distractors=1)
    states = rooms.wander(4, 2, generator()).states[:, 0]
    found = rooms.observe(states)
    assert found.dtype == torch.uint8
    assert found.shape == (4, 1, 64, 64)
    for picture, state in zip(found, states.double().tolist(), strict=True):
        assert (picture[0].int() - plain_picture(state)).abs().max() <= 1  # rounding of the exponential
    assert FourRooms(image_size=32, distractors=1).observe(states.unsqueeze(1)).shape == (4, 1, 1, 32, 32)


@pytest.mark.parametrize("seed", range(3))
def test_no_dot_passes_a_wall_but_through_a_door(seed):
    rooms = FourRooms(rooms="any")
    state = rooms.tasks(400, generator(seed)).start
    draw = generator(seed + 10)
    crossed = 0
    action = rooms.space.sample((400,), draw)
    for step in range(60):
        if step % 6 == 0:  # held, so that dots lean on walls
            action = 3 * torch.nn.functional.normalize(torch.randn(400, 2, generator=draw), dim=-1)
        after = rooms.step(state, action)
        assert not meets(after[:, :2], rooms.walls(after[:, 2:])).any()
        for wall in rooms.walls(state[:, 2:]):
            before, behind = (states[:, wall.axis] - wall.at for states in (state, after))
            through = (before < 0) != (behind < 0)
            share = before / (before - behind)
            place = state[:, 1 - wall.axis] + share * (after - state)[:, 1 - wall.axis]
            gap = (place.unsqueeze(-1) - wall.doors).abs().amin(-1)
            assert (gap[through] <= 3.5 + 1e-4).all()
            crossed += int(through.sum())
        state = after
    assert crossed > 20


def test_every_door_can_be_passed_and_leads_to_the_next_room():
    rooms = FourRooms(rooms="any")
    layout = rooms.layouts(200, generator())
    for door in range(4):
        doors = rooms.doors(torch.cat([torch.zeros(200, 2), layout], dim=-1))
        assert not meets(doors[:, door], rooms.walls(layout)).any()
        across = torch.tensor([1.0, 0.0]) if door % 2 == 0 else torch.tensor([0.0, 1.0])
        way = across if door < 2 else -across  # clockwise
        state = torch.cat([doors[:, door] - 5 * way, layout], dim=-1)
        assert (rooms.room(state) == door).all()
        for _ in range(4):
            state = rooms.step(state, 2.5 * way.expand(200, -1))
        assert (rooms.room(state) == (door + 1) % 4).all()


@pytest.mark.parametrize(("kind", "turns"), [("same", {0}), ("next", {1, 3}), ("opposite", {2}), ("any", {0, 1, 2, 3})])
def test_tasks_begin_and_end_where_they_should(kind, turns):
    rooms = FourRooms(rooms=kind, distractors=1)
    tasks = rooms.tasks(300, generator())
    for states in (tasks.start, tasks.goal):
        assert not meets(states[:, :2], rooms.walls(states[:, 2:])).any()
        assert set(rooms.room(states).tolist()) == {0, 1, 2, 3}
    assert torch.equal(tasks.start[:, 2:8], tasks.goal[:, 2:8])
    assert not (tasks.start[:, 8:] == tasks.goal[:, 8:]).any()  # where a distractor is tells nothing
    assert set(((rooms.room(tasks.goal) - rooms.room(tasks.start)) % 4).tolist()) == turns
    if kind == "same":
        assert (rooms.distance(tasks.start, tasks.goal) >= 10).all()
    assert rooms.reached(tasks.goal, tasks.goal).all()


def test_the_opposite_room_is_reached_through_two_doors_and_not_straight():
    rooms = FourRooms(rooms="opposite")
    tasks = rooms.tasks(100, generator())
    state = tasks.start
    for _ in range(60):
        state = rooms.step(state, rooms.towards(state, tasks.goal))
    assert rooms.reached(state, tasks.goal).sum() < 10
    state, index = tasks.start, torch.arange(100)
    doors, first = rooms.doors(state), rooms.room(tasks.start)
    for door in (first, (first + 1) % 4):  # clockwise: to this side of a door, through it
        at = doors[index, door]
        across = torch.stack([door % 2 == 0, door % 2 == 1], dim=-1) * torch.where(door < 2, 1.0, -1.0).unsqueeze(-1)
        for point in (at - 4.5 * across, at + 4.5 * across):
            for _ in range(30):
                state = rooms.step(state, rooms.space.project(point - state[:, :2]))
    for _ in range(30):
        state = rooms.step(state, rooms.towards(state, tasks.goal))
    assert rooms.reached(state, tasks.goal).float().mean() > 0.95  # some begin in a doorway


@pytest.mark.parametrize("walk", ["drift", "hold", "both"])
def test_walks_go_through_doors_and_the_same_seed_gives_the_same(walk):
    rooms = FourRooms(walk=walk, distractors=1)
    one, other = rooms.wander(5, 8, generator(3)), rooms.wander(5, 8, generator(3))
    assert torch.equal(one.states, other.states)
    assert torch.equal(one.actions, other.actions)
    assert not torch.equal(one.states, rooms.wander(5, 8, generator(4)).states)
    walks = rooms.wander(400, 64, generator())
    assert (walks.actions.norm(dim=-1) <= 3).all()
    torch.testing.assert_close(rooms.step(walks.states[:, :-1], walks.actions), walks.states[:, 1:])
    room = rooms.room(walks.states)
    assert (room != room[:, :1]).any(1).float().mean() > 0.3
    assert ((room - room[:, :1]) % 4 == 2).any(1).float().mean() > 0.02


def test_what_is_impossible():
    rooms = FourRooms(walk="both", distractors=1)
    walks = rooms.wander(2000, 9, generator())
    before, after = walks.states[:, -2], walks.states[:, -1]
    found = rooms.violations(before, walks.actions[:, -1], after)
    index, jumped = found["jump over the wall"]
    assert len(index) > 100
    turns = (rooms.room(jumped) - rooms.room(before[index])) % 4
    assert set(turns.tolist()) == {1, 3}
    assert not meets(jumped[:, :2], rooms.walls(jumped[:, 2:])).any()
    assert torch.equal(jumped[:, 2:], after[index, 2:])  # all else goes on
    index, moved = found["move into a wall"]
    assert len(index) > 20
    assert meets(moved[:, :2], rooms.walls(moved[:, 2:])).float().mean() > 0.9


def test_a_fixed_layout_is_the_same_in_each_episode():
    rooms = FourRooms(wall=(30.0, 30.0), door=(0.5, 0.5))
    layout = rooms.layouts(5, generator())
    expected = torch.tensor([30.0, 30.0, 15.5, 46.5, 46.5, 15.5])  # midway of 10 to 21, and of 39 to 54
    torch.testing.assert_close(layout, expected.expand(5, -1))


def test_it_is_trained_on():
    rooms = FourRooms(image_size=16, distractors=1)
    data = TrajectoryData(key="image", environment=rooms, episodes=16, length=12, window=8, batch_size=4, num_workers=0)
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (4, 8, 1, 16, 16)
    assert tuple(batch["labels"]) == rooms.state_names
    assert rooms.state_names[-4:] == ("distractor_x", "distractor_y", "distractor_vx", "distractor_vy")


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="rooms must be same, next, opposite or any, got 'other'"):
        FourRooms(rooms="other")
    with pytest.raises(ValueError, match="walk must be drift, hold or both, got 'run'"):
        FourRooms(walk="run")
    with pytest.raises(ValueError, match="distractors must be at least 0, got -1"):
        FourRooms(distractors=-1)
    with pytest.raises(ValueError, match=r"expected wall as a range within 24 to 40, got 20\.0 to 30\.0"):
        FourRooms(wall=(20.0, 30.0))
    with pytest.raises(ValueError, match=r"expected door as a range within 0 to 1, got 0\.5 to 2\.0"):
        FourRooms(door=(0.5, 2.0))
