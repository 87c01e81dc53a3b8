"""Rooms: a dot in a square that walls with doors divide; what `TwoRooms` and `FourRooms` share."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_lightning.environments.base import Environment, Tasks, Wandering
from jepa_lightning.environments.spaces import Disc

SIZE = 64  # side of the world, in units
BORDER = 4  # as near as the dot's centre comes to the world's edge
WALL, DOOR = 1.5, 5.0  # half the wall's thickness and half the door's height
DOT = 1.5  # half the dot's size where it meets walls; the standard deviation of what is drawn
_SUBSTEPS = 6  # of an action; the dot stops before the first that is blocked
_LONGEST = 3.0

_TURN, _TURN_AT_WALL = 1 / 5, 1 / 4  # chance of another action in a step of an agent that holds them

Walk = Literal["drift", "hold", "both"]
Guide = Callable[[Tensor], Tensor]
"""States (N, P) of a walk to the doors (N, 2) that it heads for now and then; called once a step."""


@dataclass(frozen=True)
class Wall:
    """A wall across the whole square, with doors.

    Attributes:
        axis: of the coordinate that it stops: 0 for a wall from top to bottom.
        at: (...) where it crosses that axis.
        doors: (..., n) the other coordinate of its doors.
    """

    axis: int
    at: Tensor
    doors: Tensor


class Rooms(Environment):
    """A dot in a square of 64 units with walls that have doors; an action moves it by at most 3 units.

    A state begins with the dot's (x, y); what follows tells where the walls and doors are (`walls`), and whatever else
    there is (`others`). A move ends before the first of six substeps that is blocked.

    Args:
        image_size: pixels a side of an observation.
        radius: a dot nearer than this to the goal has arrived.
        walk: how the agent wanders; see `TwoRooms`.

    Raises:
        ValueError: a setting is out of range.
    """

    def __init__(self, *, image_size: int, radius: float, walk: Walk) -> None:
        if walk not in ("drift", "hold", "both"):
            raise ValueError(f"walk must be drift, hold or both, got {walk!r}")
        if image_size < 8 or not radius > 0:
            raise ValueError(f"expected images of at least 8 pixels and a positive radius, got {image_size}, {radius}")
        self.image_size = image_size
        self.radius = radius
        self.walk = walk
        self.space = Disc(_LONGEST)

    @abstractmethod
    def walls(self, layout: Tensor) -> list[Wall]:
        """The walls of what follows the dot's place in a state, (..., P - 2)."""

    @abstractmethod
    def layouts(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw what follows the dot's place in a state: (N, P - 2)."""

    @abstractmethod
    def wrong(self, start: Tensor, goal: Tensor, layout: Tensor) -> Tensor:
        """Whether places (N, 2) are no start and goal of a task: (N,) bool."""

    @abstractmethod
    def guide(self, state: Tensor, generator: torch.Generator) -> Guide:
        """What walks from states (N, P) head for."""

    def others(self, layout: Tensor) -> Tensor:
        """What follows the dot's place in a state, one step later: the same, unless something moves by itself."""
        return layout

    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        """Move along a line, as far as nothing is in the way."""
        start, layout = states[..., :2], states[..., 2:]
        shares = torch.arange(1, _SUBSTEPS + 1, dtype=states.dtype).unsqueeze(-1) / _SUBSTEPS
        way = start.unsqueeze(-2) + actions.unsqueeze(-2) * shares  # (..., substeps, 2)
        stopped = meets(way, self.walls(layout.unsqueeze(-2)))
        free = (~stopped).to(states.dtype).cumprod(-1).sum(-1)  # substeps before a wall
        return torch.cat([start + actions * (free / _SUBSTEPS).unsqueeze(-1), self.others(layout)], dim=-1)

    def observe(self, states: Tensor) -> Tensor:
        """Draw states (..., P) as (..., 1, S, S) uint8: walls at 128, the dot a Gaussian of up to 255."""
        exact = states.double()
        pixels = self.pixels
        edge = (pixels < 1.5) | (pixels > SIZE - 2.5)
        solid = edge | edge.unsqueeze(-1)
        for wall in self.walls(exact[..., 2:]):
            across = (pixels - wall.at.unsqueeze(-1)).abs() <= WALL
            between = ((pixels - wall.doors.unsqueeze(-1)).abs() > DOOR).all(-2)  # (..., S): no door there
            rows, columns = (between, across) if wall.axis == 0 else (across, between)
            solid = solid | (rows.unsqueeze(-1) & columns.unsqueeze(-2))
        return torch.maximum(128 * solid.to(torch.uint8), self.dot(exact[..., :2], 255)).unsqueeze(-3)

    @property
    def pixels(self) -> Tensor:
        """(S,) where pixels lie, in units."""
        return (torch.arange(self.image_size, dtype=torch.float64) + 0.5) * SIZE / self.image_size - 0.5

    def dot(self, places: Tensor, brightness: int) -> Tensor:
        """Dots at places (..., 2) float64, drawn as (..., S, S) uint8."""
        across, down = (
            torch.exp(-((self.pixels - at.unsqueeze(-1)) ** 2) / (2 * DOT**2)).float() for at in places.unbind(-1)
        )
        return (brightness * down.unsqueeze(-1) * across.unsqueeze(-2)).to(torch.uint8)

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
        """A dot within 8 units of a wall, none of them before a door, behind it; one that moves on in a wall."""
        place, layout = states[:, :2], states[:, 2:]
        walls = self.walls(layout)
        index, jumped = [], []
        for wall in walls:
            near = (place[:, wall.axis] - wall.at).abs() < 8
            beside = near & ((place[:, 1 - wall.axis, None] - wall.doors).abs() > DOOR + 3).all(-1)
            for other in walls:
                if other is not wall:  # not in a door of another wall, behind which that wall may be
                    beside &= (place[:, other.axis] - other.at).abs() > WALL + DOT
            found = torch.nonzero(beside).squeeze(1)
            mirrored = after[found].clone()
            mirrored[:, :2] = place[found]
            mirrored[:, wall.axis] = 2 * wall.at[found] - mirrored[:, wall.axis]
            index.append(found)
            jumped.append(mirrored)
        moved = torch.cat([place + actions, after[:, 2:]], dim=-1)
        stopped = torch.nonzero((moved - after)[:, :2].norm(dim=-1) > 0.5).squeeze(1)
        return {
            "jump over the wall": (torch.cat(index), torch.cat(jumped)),
            "move into a wall": (stopped, moved[stopped]),
        }

    def tasks(self, count: int, generator: torch.Generator) -> Tasks:
        """Draw starts and goals, uniform in their rooms."""
        layout = self.layouts(count, generator)
        start = self.places(layout, generator)
        goal = self.places(layout, generator)
        while (wrong := self.wrong(start, goal, layout)).any():
            goal[wrong] = self.places(layout[wrong], generator)
        return Tasks(torch.cat([start, layout], -1), torch.cat([goal, layout], -1))

    def wander(self, count: int, length: int, generator: torch.Generator) -> Wandering:
        """Walks; see `walk`."""
        if length < 2:
            raise ValueError(f"expected trajectories of at least 2 observations, got {length}")
        layout = self.layouts(count, generator)
        state = torch.cat([self.places(layout, generator), layout], dim=-1)
        if self.walk != "both":
            return (self._drifting if self.walk == "drift" else self._holding)(state, length, generator)
        drift, hold = self._drifting(state[::2], length, generator), self._holding(state[1::2], length, generator)
        states, actions = state.new_zeros(count, length, state.shape[1]), state.new_zeros(count, length - 1, 2)
        for start, walk in enumerate((drift, hold)):
            states[start::2], actions[start::2] = walk.states, walk.actions
        return Wandering(states, actions)

    def _drifting(self, state: Tensor, length: int, generator: torch.Generator) -> Wandering:
        """Walks whose direction drifts, from states (N, P)."""
        count, guide = len(state), self.guide(state, generator)
        angle = 2 * math.pi * torch.rand(count, generator=generator)
        states, actions = [state], []
        for _ in range(length - 1):
            angle = angle + 0.5 * torch.randn(count, generator=generator)
            far = _LONGEST * torch.rand(count, 1, generator=generator)
            action = far * torch.stack([angle.cos(), angle.sin()], dim=-1)
            ahead = F.normalize(guide(state) - state[:, :2], dim=-1)
            heading = ahead * (1 + 2 * torch.rand(count, 1, generator=generator))
            action = torch.where(torch.rand(count, 1, generator=generator) < 0.25, heading, action)
            after = self.step(state, action)
            hit = (after[:, :2] - state[:, :2] - action).norm(dim=-1) > 1e-3
            angle = torch.where(hit, 2 * math.pi * torch.rand(count, generator=generator), angle)
            state = after
            states.append(state)
            actions.append(action)
        return Wandering(torch.stack(states, dim=1), torch.stack(actions, dim=1))

    def _holding(self, state: Tensor, length: int, generator: torch.Generator) -> Wandering:
        """Walks of held actions from states (N, P)."""
        count, guide = len(state), self.guide(state, generator)
        turn = torch.ones(count, dtype=torch.bool)
        action = torch.zeros(count, 2)
        states, actions = [state], []
        for _ in range(length - 1):
            angle = 2 * math.pi * torch.rand(count, generator=generator)
            share = (2 * torch.rand(count, 1, generator=generator)).clamp(max=1 - 1e-6)  # less than 1 when rounded
            door = F.normalize(guide(state) - state[:, :2], dim=-1)
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

    def places(self, layout: Tensor, generator: torch.Generator) -> Tensor:
        """Free places (N, 2), uniform."""
        walls = self.walls(layout)
        found = torch.full((len(layout), 2), -1.0)
        while (wrong := meets(found, walls)).any():
            drawn = torch.rand(int(wrong.sum()), 2, generator=generator)
            found[wrong] = 5 + (SIZE - 11) * drawn
        return found


def meets(places: Tensor, walls: Sequence[Wall]) -> Tensor:
    """Whether a dot cannot be at places (..., 2) between walls: (...) bool."""
    found = ((places < BORDER) | (places > SIZE - 1 - BORDER)).any(-1)
    for wall in walls:
        beside = ((places[..., 1 - wall.axis, None] - wall.doors).abs() > DOOR - DOT).all(-1)
        found = found | (((places[..., wall.axis] - wall.at).abs() <= WALL + DOT) & beside)
    return found


def check_range(name: str, bounds: tuple[float, float], *, low: float, high: float) -> None:
    """See that a setting is a range within others.

    Raises:
        ValueError: it is not; it is named.
    """
    if not low <= bounds[0] <= bounds[1] <= high:
        raise ValueError(f"expected {name} as a range within {low} to {high}, got {bounds[0]} to {bounds[1]}")
