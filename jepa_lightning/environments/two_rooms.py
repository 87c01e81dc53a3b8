"""Two Rooms: a dot, and a wall with a door between it and the goal."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_lightning.environments.base import Environment, Tasks, Wandering
from jepa_lightning.environments.spaces import Disc

SIZE = 64  # side of the world, in units
_BORDER = 4  # as near as the dot's centre comes to the world's edge
_WALL, _DOOR = 1.5, 5.0  # half the wall's thickness and half the door's height
_DOT = 1.5  # half the dot's size where it meets walls; the standard deviation of what is drawn
_SUBSTEPS = 6  # of an action; the dot stops before the first that is blocked
_LONGEST = 3.0

_TURN, _TURN_AT_WALL = 1 / 5, 1 / 4  # chance of another action in a step of an agent that holds them

Rooms = Literal["same", "other", "any"]
Walk = Literal["drift", "hold", "both"]


class TwoRooms(Environment):
    """A dot in a square of 64 units that a wall with a door divides; an action moves it by at most 3 units.

    An old problem in the form that world models are tried on (PLDM: Sobal et al. 2025, arXiv:2502.14819). A state is
    (x, y, x of the wall, y of the door); wall and door lie elsewhere in each episode and never move. A move ends before
    the first of six substeps that is blocked. Observations are grey: walls at 128, the dot a Gaussian of up to 255.

    Args:
        image_size: pixels a side of an observation.
        rooms: where a task's goal lies: in the "same" room as the start, at least 10 units off, in the "other" room, or
            "any".
        radius: a dot nearer than this to the goal has arrived.
        walk: how the agent wanders. Of "drift" the direction drifts, turns anywhere after a wall, and one step in four
            heads for the door. Of "hold" an action is held for 5 steps on average, for 4 where a wall stops it, so that
            the dot leans on walls; half of the actions are as long as they can be, and one in four heads for the door.
            Of "both" every second walk is held.
        wall: range of the wall's x.
        door: range of the door's y.

    Raises:
        ValueError: a setting is out of range.

    Examples:
        >>> import torch
        >>> from jepa_lightning.environments import TwoRooms
        >>> rooms = TwoRooms(rooms="other")
        >>> tasks = rooms.tasks(3, torch.Generator().manual_seed(0))
        >>> rooms.observe(tasks.start).shape
        torch.Size([3, 1, 64, 64])
        >>> before = torch.tensor([30.0, 50.0, 36.0, 20.0])  # left of the wall at 36, far from the door at 20
        >>> rooms.step(before, torch.tensor([3.0, 0.0]))[:2]
        tensor([32.5000, 50.0000])
    """

    name = "two_rooms"
    state_names = ("x", "y", "wall", "door")

    def __init__(
        self,
        *,
        image_size: int = SIZE,
        rooms: Rooms = "same",
        radius: float = 4.5,
        walk: Walk = "drift",
        wall: tuple[float, float] = (26.0, 38.0),
        door: tuple[float, float] = (14.0, 50.0),
    ) -> None:
        if rooms not in ("same", "other", "any"):
            raise ValueError(f"rooms must be same, other or any, got {rooms!r}")
        if walk not in ("drift", "hold", "both"):
            raise ValueError(f"walk must be drift, hold or both, got {walk!r}")
        if image_size < 8 or not radius > 0:
            raise ValueError(f"expected images of at least 8 pixels and a positive radius, got {image_size}, {radius}")
        for name, (low, high), edge in (("wall", wall, 20), ("door", door, 10)):
            if not edge <= low <= high <= SIZE - edge:
                raise ValueError(f"expected {name} as a range within {edge} to {SIZE - edge}, got {low} to {high}")
        self.image_size = image_size
        self.rooms = rooms
        self.radius = radius
        self.walk = walk
        self.wall, self.door = wall, door
        self.space = Disc(_LONGEST)

    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        """Move along a line, as far as nothing is in the way."""
        start, layout = states[..., :2], states[..., 2:]
        shares = torch.arange(1, _SUBSTEPS + 1, dtype=states.dtype).unsqueeze(-1) / _SUBSTEPS
        way = start.unsqueeze(-2) + actions.unsqueeze(-2) * shares  # (..., substeps, 2)
        free = (~blocked(way, layout.unsqueeze(-2))).to(states.dtype).cumprod(-1).sum(-1)  # substeps before a wall
        return torch.cat([start + actions * (free / _SUBSTEPS).unsqueeze(-1), layout], dim=-1)

    def observe(self, states: Tensor) -> Tensor:
        """Draw states (..., 4) as (..., 1, S, S) uint8."""
        pixels = (torch.arange(self.image_size, dtype=torch.float64) + 0.5) * SIZE / self.image_size - 0.5
        x, y, wall, door = (values.unsqueeze(-1) for values in states.double().unbind(-1))
        edge = (pixels < 1.5) | (pixels > SIZE - 2.5)
        solid = ((pixels - wall).abs() <= _WALL).unsqueeze(-2) & ((pixels - door).abs() > _DOOR).unsqueeze(-1)
        walls = 128 * (solid | edge | edge.unsqueeze(-1)).to(torch.uint8)
        across, down = (torch.exp(-((pixels - at) ** 2) / (2 * _DOT**2)).float() for at in (x, y))
        dot = (255 * down.unsqueeze(-1) * across.unsqueeze(-2)).to(torch.uint8)
        return torch.maximum(walls, dot).unsqueeze(-3)

    def distance(self, states: Tensor, goals: Tensor) -> Tensor:
        """Between the dots, in units."""
        return (states[..., :2] - goals[..., :2]).norm(dim=-1)

    def reached(self, states: Tensor, goals: Tensor) -> Tensor:
        """Whether the dots are nearer than the radius."""
        return self.distance(states, goals) < self.radius

    def towards(self, states: Tensor, goals: Tensor) -> Tensor:
        """The longest move that does not overshoot."""
        return self.space.project(goals[..., :2] - states[..., :2])

    def violations(self, states: Tensor, actions: Tensor, after: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """A dot within 8 units of the wall, none of them before the door, behind it; one that moves on in a wall."""
        place, layout = states[:, :2], states[:, 2:]
        gap = (place - layout).abs()
        beside = torch.nonzero((gap[:, 0] < 8) & (gap[:, 1] > _DOOR + 3)).squeeze(1)
        mirrored = states[beside].clone()
        mirrored[:, 0] = 2 * mirrored[:, 2] - mirrored[:, 0]
        moved = torch.cat([place + actions, layout], dim=-1)
        stopped = torch.nonzero((moved - after)[:, :2].norm(dim=-1) > 0.5).squeeze(1)
        return {"jump over the wall": (beside, mirrored), "move into a wall": (stopped, moved[stopped])}

    def tasks(self, count: int, generator: torch.Generator) -> Tasks:
        """Draw starts and goals, uniform in their rooms."""
        layout = self._layouts(count, generator)
        start = self._places(layout, generator)
        goal = self._places(layout, generator)
        left = start[:, 0] < layout[:, 0]
        while True:
            alike = (goal[:, 0] < layout[:, 0]) == left
            wrong = ~alike | ((goal - start).norm(dim=-1) < 10) if self.rooms == "same" else alike
            if self.rooms == "any" or not wrong.any():
                return Tasks(torch.cat([start, layout], -1), torch.cat([goal, layout], -1))
            goal[wrong] = self._places(layout[wrong], generator)

    def wander(self, count: int, length: int, generator: torch.Generator) -> Wandering:
        """Walks; see `walk`."""
        if length < 2:
            raise ValueError(f"expected trajectories of at least 2 observations, got {length}")
        layout = self._layouts(count, generator)
        state = torch.cat([self._places(layout, generator), layout], dim=-1)
        if self.walk != "both":
            return (self._drifting if self.walk == "drift" else self._holding)(state, length, generator)
        drift, hold = self._drifting(state[::2], length, generator), self._holding(state[1::2], length, generator)
        states, actions = state.new_zeros(count, length, 4), state.new_zeros(count, length - 1, 2)
        for start, walk in enumerate((drift, hold)):
            states[start::2], actions[start::2] = walk.states, walk.actions
        return Wandering(states, actions)

    def _drifting(self, state: Tensor, length: int, generator: torch.Generator) -> Wandering:
        """Walks whose direction drifts, from states (N, 4)."""
        count, layout = len(state), state[:, 2:]
        angle = 2 * math.pi * torch.rand(count, generator=generator)
        states, actions = [state], []
        for _ in range(length - 1):
            angle = angle + 0.5 * torch.randn(count, generator=generator)
            far = _LONGEST * torch.rand(count, 1, generator=generator)
            action = far * torch.stack([angle.cos(), angle.sin()], dim=-1)
            heading = F.normalize(layout - state[:, :2], dim=-1) * (1 + 2 * torch.rand(count, 1, generator=generator))
            action = torch.where(torch.rand(count, 1, generator=generator) < 0.25, heading, action)
            after = self.step(state, action)
            hit = (after[:, :2] - state[:, :2] - action).norm(dim=-1) > 1e-3
            angle = torch.where(hit, 2 * math.pi * torch.rand(count, generator=generator), angle)
            state = after
            states.append(state)
            actions.append(action)
        return Wandering(torch.stack(states, dim=1), torch.stack(actions, dim=1))

    def _holding(self, state: Tensor, length: int, generator: torch.Generator) -> Wandering:
        """Walks of held actions from states (N, 4)."""
        count = len(state)
        turn = torch.ones(count, dtype=torch.bool)
        action = torch.zeros(count, 2)
        states, actions = [state], []
        for _ in range(length - 1):
            angle = 2 * math.pi * torch.rand(count, generator=generator)
            share = (2 * torch.rand(count, 1, generator=generator)).clamp(max=1 - 1e-6)  # less than 1 when rounded
            door = F.normalize(state[:, 2:] - state[:, :2], dim=-1)
            ahead = torch.rand(count, 1, generator=generator) < 0.25
            drawn = _LONGEST * share * torch.where(ahead, door, torch.stack([angle.cos(), angle.sin()], dim=-1))
            action = torch.where(turn.unsqueeze(-1), drawn, action)
            after = self.step(state, action)
            hit = (after[:, :2] - state[:, :2] - action).norm(dim=-1) > 1e-3
            turn = torch.rand(count, generator=generator) < torch.where(hit, _TURN_AT_WALL, _TURN)
            state = after
            states.append(state)
            actions.append(action)
        return Wandering(torch.stack(states, dim=1), torch.stack(actions, dim=1))

    def _layouts(self, count: int, generator: torch.Generator) -> Tensor:
        low = torch.tensor([self.wall[0], self.door[0]])
        return low + (torch.tensor([self.wall[1], self.door[1]]) - low) * torch.rand(count, 2, generator=generator)

    def _places(self, layout: Tensor, generator: torch.Generator) -> Tensor:
        """Free places, uniform."""
        found = torch.full((len(layout), 2), -1.0)
        while (wrong := blocked(found, layout)).any():
            drawn = torch.rand(int(wrong.sum()), 2, generator=generator)
            found[wrong] = 5 + (SIZE - 11) * drawn
        return found


def blocked(places: Tensor, layout: Tensor) -> Tensor:
    """Whether a dot cannot be at places (..., 2) of layouts (..., 2): (...) bool."""
    outside = ((places < _BORDER) | (places > SIZE - 1 - _BORDER)).any(-1)
    gap = (places - layout).abs()
    return outside | ((gap[..., 0] <= _WALL + _DOT) & (gap[..., 1] > _DOOR - _DOT))
