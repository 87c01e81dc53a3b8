"""Two Rooms: a dot, and a wall with a door between it and the goal."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from jepa_lightning.environments.rooms import SIZE, Guide, Rooms, Walk, Wall, check_range, meets

Apart = Literal["same", "other", "any"]


class TwoRooms(Rooms):
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
        rooms: Apart = "same",
        radius: float = 4.5,
        walk: Walk = "drift",
        wall: tuple[float, float] = (26.0, 38.0),
        door: tuple[float, float] = (14.0, 50.0),
    ) -> None:
        if rooms not in ("same", "other", "any"):
            raise ValueError(f"rooms must be same, other or any, got {rooms!r}")
        super().__init__(image_size=image_size, radius=radius, walk=walk)
        check_range("wall", wall, low=20, high=SIZE - 20)
        check_range("door", door, low=10, high=SIZE - 10)
        self.rooms = rooms
        self.wall, self.door = wall, door

    def walls(self, layout: Tensor) -> list[Wall]:
        """One from top to bottom, with a door."""
        return [Wall(0, layout[..., 0], layout[..., 1:])]

    def layouts(self, count: int, generator: torch.Generator) -> Tensor:
        """Where the wall and its door are, (N, 2), uniform."""
        low = torch.tensor([self.wall[0], self.door[0]])
        return low + (torch.tensor([self.wall[1], self.door[1]]) - low) * torch.rand(count, 2, generator=generator)

    def wrong(self, start: Tensor, goal: Tensor, layout: Tensor) -> Tensor:
        """In the wrong room, or too near."""
        alike = (goal[:, 0] < layout[:, 0]) == (start[:, 0] < layout[:, 0])
        if self.rooms == "any":
            return torch.zeros_like(alike)
        return ~alike | ((goal - start).norm(dim=-1) < 10) if self.rooms == "same" else alike

    def guide(self, state: Tensor, generator: torch.Generator) -> Guide:
        """The door."""
        return lambda states: states[:, 2:]


def blocked(places: Tensor, layout: Tensor) -> Tensor:
    """Whether a dot cannot be at places (..., 2) of layouts (..., 2): (...) bool."""
    return meets(places, [Wall(0, layout[..., 0], layout[..., 1:])])
