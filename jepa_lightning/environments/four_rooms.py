"""Four Rooms: a dot, two walls that cross, and a door in each of their four arms."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from jepa_lightning.environments.base import Tasks
from jepa_lightning.environments.rooms import SIZE, Guide, Rooms, Walk, Wall, check_range

_FIXED = 6  # numbers of a layout: where the walls are, and their doors
_NEAREST_EDGE, _NEAREST_CROSSING = 10, 9  # units of a door's middle from the world's edge, and from the other wall
_FASTEST = 1.5  # units a step of a distractor along each coordinate; it never stands still
_SLOWEST = 0.5
_DIM = 160  # brightness of a distractor, 255 that of the dot
_LOW, _HIGH = 4.0, SIZE - 5.0  # where distractors turn round

Apart = Literal["same", "next", "opposite", "any"]


class FourRooms(Rooms):
    """A dot in a square of 64 units, divided by two walls that cross; each of their four arms has a door.

    A problem for plans over many steps: the opposite room is two doors away. It is an old one of hierarchical
    reinforcement learning (Sutton et al. 1999, section 2), here with moves by up to 3 units and pictures of a new
    layout in each episode; the layouts of others differ, so their success rates cannot be compared with those here.

    A state is (x, y, x of one wall, y of the other, and of its door each arm's other coordinate: upper y, right x,
    lower y, left x); moves, drawing and walks are those of `TwoRooms`. A distractor adds (x, y, vx, vy): a dimmer dot
    that moves by itself, turns round at the world's edge, passes through walls and stops nobody. Its velocity is part
    of the state, not of the picture, so one observation does not tell where it goes; `distance` does not look at it.

    Rooms are numbered clockwise from the upper left one, 0 to 3; door k lies between room k and the next.

    Args:
        image_size: pixels a side of an observation.
        rooms: where a task's goal lies: in the "same" room as the start, at least 10 units off, in one "next" to it, in
            the "opposite" one, two doors away, or "any".
        radius: a dot nearer than this to the goal has arrived.
        walk: how the agent wanders; see `TwoRooms`. It heads for one of its room's doors, and having been there, for
            the next door on either side of it.
        wall: range of the x of one wall, and of the y of the other.
        door: range of where a door lies on its arm, from 0, nearest the edge, to 1, nearest the other wall.
        distractors: dots that move by themselves.

    Raises:
        ValueError: a setting is out of range.

    Examples:
        >>> import torch
        >>> from jepa_lightning.environments import FourRooms
        >>> rooms = FourRooms(rooms="opposite", distractors=1)
        >>> tasks = rooms.tasks(3, torch.Generator().manual_seed(0))
        >>> tasks.start.shape, rooms.observe(tasks.start).shape
        (torch.Size([3, 12]), torch.Size([3, 1, 64, 64]))
        >>> (rooms.room(tasks.goal) - rooms.room(tasks.start)).abs()
        tensor([2, 2, 2])
    """

    name = "four_rooms"

    def __init__(
        self,
        *,
        image_size: int = SIZE,
        rooms: Apart = "opposite",
        radius: float = 4.5,
        walk: Walk = "drift",
        wall: tuple[float, float] = (28.0, 36.0),
        door: tuple[float, float] = (0.0, 1.0),
        distractors: int = 0,
    ) -> None:
        if rooms not in ("same", "next", "opposite", "any"):
            raise ValueError(f"rooms must be same, next, opposite or any, got {rooms!r}")
        if distractors < 0:
            raise ValueError(f"distractors must be at least 0, got {distractors}")
        super().__init__(image_size=image_size, radius=radius, walk=walk)
        check_range("wall", wall, low=24, high=SIZE - 24)
        check_range("door", door, low=0, high=1)
        self.rooms = rooms
        self.wall, self.door = wall, door
        self.distractors = distractors
        layout = ("wall_x", "wall_y", "door_up", "door_right", "door_down", "door_left")
        moving = tuple(f"distractor_{what}" for what in ("x", "y", "vx", "vy"))
        numbers = [""] if distractors == 1 else [f"_{i}" for i in range(distractors)]
        self.state_names = ("x", "y", *layout, *(name + number for number in numbers for name in moving))

    def walls(self, layout: Tensor) -> list[Wall]:
        """One from top to bottom, one from left to right, each with two doors."""
        return [Wall(0, layout[..., 0], layout[..., 2:6:2]), Wall(1, layout[..., 1], layout[..., 3:6:2])]

    def layouts(self, count: int, generator: torch.Generator) -> Tensor:
        """Walls and doors, uniform, and distractors anywhere: (N, 6 + 4 for each)."""
        drawn = torch.rand(count, _FIXED, generator=generator)
        walls = self.wall[0] + (self.wall[1] - self.wall[0]) * drawn[:, :2]
        shares = self.door[0] + (self.door[1] - self.door[0]) * drawn[:, 2:]
        near, crossing = _NEAREST_EDGE, walls.flip(-1)  # an upright wall's doors are told by their y
        before = near + shares * (crossing - _NEAREST_CROSSING - near).repeat(1, 2)
        behind = SIZE - near - shares * (SIZE - near - crossing - _NEAREST_CROSSING).repeat(1, 2)
        doors = torch.stack([before[:, 0], behind[:, 1], behind[:, 2], before[:, 3]], dim=-1)
        moving = torch.rand(count, self.distractors, 2, 2, generator=generator)
        signs = torch.where(torch.rand(count, self.distractors, 2, generator=generator) < 0.5, -1.0, 1.0)
        place = _LOW + (_HIGH - _LOW) * moving[:, :, 0]
        velocity = signs * (_SLOWEST + (_FASTEST - _SLOWEST) * moving[:, :, 1])
        return torch.cat([walls, doors, torch.cat([place, velocity], dim=-1).flatten(1)], dim=-1)

    def others(self, layout: Tensor) -> Tensor:
        """Distractors move on, and turn round at the edge; walls and doors stay."""
        place, velocity = layout[..., _FIXED:].unflatten(-1, (self.distractors, 2, 2)).unbind(-2)
        moved = place + velocity
        inside = torch.where(moved < _LOW, 2 * _LOW - moved, torch.where(moved > _HIGH, 2 * _HIGH - moved, moved))
        turned = torch.where(inside == moved, velocity, -velocity)
        return torch.cat([layout[..., :_FIXED], torch.stack([inside, turned], dim=-2).flatten(-3)], dim=-1)

    def observe(self, states: Tensor) -> Tensor:
        """Draw states (..., P) as (..., 1, S, S) uint8: as those of `TwoRooms`, distractors a Gaussian of up to 160."""
        seen = super().observe(states)
        for start in range(2 + _FIXED, states.shape[-1], 4):
            seen = torch.maximum(seen, self.dot(states[..., start : start + 2].double(), _DIM).unsqueeze(-3))
        return seen

    def room(self, states: Tensor) -> Tensor:
        """Which room the dots of states (..., P) are in: (...) int64, clockwise from the upper left."""
        right, below = states[..., 0] >= states[..., 2], states[..., 1] >= states[..., 3]
        return torch.where(below, 3 - right.long(), right.long())

    def doors(self, states: Tensor) -> Tensor:
        """Where the doors of states (..., P) are: (..., 4, 2); door k lies between room k and the next."""
        x, y, up, right, down, left = states[..., 2 : 2 + _FIXED].unbind(-1)
        return torch.stack([torch.stack(at, -1) for at in ((x, up), (right, y), (x, down), (left, y))], dim=-2)

    def tasks(self, count: int, generator: torch.Generator) -> Tasks:
        """Draw starts and goals, uniform in their rooms; distractors are somewhere else in the goal."""
        found = super().tasks(count, generator)
        goal = torch.cat([found.goal[:, : 2 + _FIXED], self.layouts(count, generator)[:, _FIXED:]], dim=-1)
        return Tasks(found.start, goal)

    def wrong(self, start: Tensor, goal: Tensor, layout: Tensor) -> Tensor:
        """In the wrong room, or too near."""
        rooms = [self.room(torch.cat([place, layout], dim=-1)) for place in (start, goal)]
        turns = (rooms[1] - rooms[0]) % 4
        if self.rooms == "any":
            return torch.zeros(len(start), dtype=torch.bool)
        if self.rooms == "same":
            return (turns != 0) | ((goal - start).norm(dim=-1) < 10)
        return turns != 2 if self.rooms == "opposite" else turns % 2 == 0

    def guide(self, state: Tensor, generator: torch.Generator) -> Guide:
        """One of the room's two doors; from there the next one clockwise or the one before; anew in another room."""

        def one_of_two() -> Tensor:
            return torch.randint(2, (len(state),), generator=generator)

        heading = (self.room(state) - one_of_two()) % 4

        def door(states: Tensor) -> Tensor:
            nonlocal heading
            index, room, doors, drawn = torch.arange(len(states)), self.room(states), self.doors(states), one_of_two()
            there = (states[:, :2] - doors[index, heading]).norm(dim=-1) < 3
            near = ((states[:, None, :2] - doors).norm(dim=-1) < 8).any(-1)  # about to go through, perhaps
            turned = torch.where(there, heading + 2 * drawn - 1, heading) % 4
            lost = ~near & ((room - heading) % 4 > 1)
            heading = torch.where(lost, (room - drawn) % 4, turned)
            return doors[index, heading]

        return door
