"""Push-T of gym-pusht: a disc pushes a T."""

from __future__ import annotations

import math
import weakref
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jepa_lightning.config.extras import extra
from jepa_lightning.environments.base import Tasks, Wandering
from jepa_lightning.environments.gym import Gym
from jepa_lightning.environments.gymnasium import shrunk
from jepa_lightning.environments.spaces import Disc

_SIDE = 512.0
_NEAR, _TURNED = 20.0, math.pi / 9


class PushT(Gym):
    """A disc that pushes a block of the shape of a T over a table (Chi et al. 2023, "Diffusion Policy"), by gym-pusht.

    Needs `pip install "jepa-lightning[pusht]"`. The table has a side of 512. An action is where the disc is drawn to in
    a tenth of a second, from where it is: a vector no longer than `reach`, cut off at the table's edge. Each step
    of a held action covers 0.4 of it. (The environment's own actions are places on the table.)

    A goal is where a walk of `away` steps ends, if the block was moved on it: walks that leave it where it is are no
    tasks. A state is as far from its goal as the larger of two numbers: the distance of disc and block together over
    20, and the angle of the block over 20 degrees. Below 1 the goal is reached, as in DINO-WM (Zhou et al. 2024,
    arXiv:2411.04983). How fast disc and block are does not count, nor does the T of light green in the pictures, the
    environment's own goal.

    A state is all that the simulator can be set to: place and velocity of disc and block, and the block's angle, as
    cosine and sine. What it remembers of contacts is neither read nor set, and is forgotten before each step: a step
    depends on its state alone, so that an oracle's trials are what will follow, but for steps that press the block
    against a wall, which can differ a little. Episodes therefore differ from those simulated without a break, most
    where a push lasts.

    Walks hold an action for `hold` steps. A share `near` of the actions goes full length for a random point about the
    block, others anywhere.

    Args:
        image_size: pixels a side of an observation.
        reach: the longest action.
        away: steps of the walks that end in goals.
        hold: steps that an action of a walk is held.
        near: share of a walk's actions that go for the block.
        walks: walks from which a report tells what states hold; a picture takes some milliseconds.

    Raises:
        ImportError: gym-pusht is not installed.
        ValueError: a setting is out of range.

    Examples:
        >>> import torch
        >>> from jepa_lightning.environments import PushT
        >>> push = PushT(image_size=32)
        >>> tasks = push.tasks(2, torch.Generator().manual_seed(0))
        >>> push.observe(tasks.start).shape, push.reached(tasks.start, tasks.goal).tolist()
        (torch.Size([2, 3, 32, 32]), [False, False])
    """

    ends = True

    def __init__(
        self,
        *,
        image_size: int = 64,
        reach: float = 30.0,
        away: int = 25,
        hold: int = 5,
        near: float = 0.75,
        walks: int = 1000,
    ) -> None:
        with extra("pusht", who="Push-T needs", packages=("gym_pusht",), broken="gym-pusht does not load ({})".format):
            import gym_pusht  # noqa: F401  which registers the environment
        if not 0 <= near <= 1:
            raise ValueError(f"expected a share near from 0 to 1, got {near}")
        settings: dict[str, Any] = {"away": away, "hold": hold, "walks": walks}
        super().__init__(id="gym_pusht/PushT-v0", image_size=image_size, angles=[9], radius=1.0, **settings)
        weakref.finalize(self, vars(self._env.unwrapped).clear)  # pymunk complains where Python ends before it does
        self.name = "pusht"
        self.near = near
        self.space = Disc(reach)
        disc = "x", "y", "speed_x", "speed_y"
        block = "block_x", "block_y", "block_speed_x", "block_speed_y", "block_spin", "block_cos", "block_sin"
        self.state_names = (*disc, *block)

    def get(self) -> np.ndarray[Any, Any]:
        """Place and velocity of the disc; place, velocity, angular velocity and angle of the block."""
        disc, block = self._env.unwrapped.agent, self._env.unwrapped.block
        still = *block.position, *block.velocity, block.angular_velocity, block.angle
        return np.array([*disc.position, *disc.velocity, *still])

    def put(self, state: np.ndarray[Any, Any]) -> None:
        """Set disc and block, and forget all contacts."""
        env, numbers = self._env.unwrapped, [float(number) for number in state]
        disc, block, table = env.agent, env.block, env.space
        shapes = [*block.shapes, *disc.shapes]
        table.remove(*shapes)
        table.step(env.dt)  # without shapes: what a contact had still to push apart is gone
        disc.position, disc.velocity = tuple(numbers[:2]), tuple(numbers[2:4])
        block.angle = numbers[9]  # about the centre of mass, so before the place
        block.position, block.velocity, block.angular_velocity = tuple(numbers[4:6]), tuple(numbers[6:8]), numbers[8]
        table.add(*shapes)

    def transition(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor | None]:
        """The next states, and no rewards."""
        lead = states.shape[:-1]
        states = states.expand(*lead, -1)
        drawn = self.space.project(actions).expand(*lead, -1)
        places = (states[..., :2] + drawn).clamp(0, _SIDE).double().reshape(-1, 2)
        after = []
        for state, place in zip(self._folded(states).reshape(-1, 10), places.tolist(), strict=True):
            self.put(state)
            self._draw(*place)
            after.append(self.get())
        return self._unfolded(np.stack(after)).view(*lead, -1), None

    def rewards(self, states: Tensor, actions: Tensor) -> Tensor | None:
        """None: what the environment rewards is its own goal."""
        return None

    def _draw(self, x: float, y: float) -> None:
        """What the environment's own step does with the place (x, y), without the reward, most of its time."""
        env = self._env.unwrapped
        disc, pull, slow, dt = env.agent, env.k_p, env.k_v, env.dt
        for _ in range(int(1 / (dt * env.control_hz))):
            (at_x, at_y), (speed_x, speed_y) = disc.position, disc.velocity
            disc.velocity = (
                speed_x + (pull * (x - at_x) - slow * speed_x) * dt,
                speed_y + (pull * (y - at_y) - slow * speed_y) * dt,
            )
            env.space.step(dt)

    def observe(self, states: Tensor) -> Tensor:
        """Pictures (..., 3, S, S) uint8 without a trace of the action; averaged over areas."""
        shown, found = self._env.unwrapped, []
        kind, width, height = shown.obs_type, shown.observation_width, shown.observation_height
        shown.obs_type, shown.observation_width, shown.observation_height = "pixels", int(_SIDE), int(_SIDE)
        for state in self._folded(states).reshape(-1, 10):
            self.put(state)
            found.append(shrunk(shown.get_obs(), (self.image_size, self.image_size)))
        shown.obs_type, shown.observation_width, shown.observation_height = kind, width, height
        return torch.stack(found).view(*states.shape[:-1], 3, self.image_size, self.image_size)

    def distance(self, states: Tensor, goals: Tensor) -> Tensor:
        """The larger of places over 20 and of the block's angle over 20 degrees."""
        places = [0, 1, 4, 5]
        apart = (states[..., places] - goals[..., places]).norm(dim=-1) / _NEAR
        return torch.maximum(apart, self.turned(states, goals) / _TURNED)

    def turned(self, states: Tensor, goals: Tensor) -> Tensor:
        """By how many radians the block is turned, from 0 to pi."""
        cosine = (states[..., 9:] * goals[..., 9:]).sum(-1)
        sine = states[..., 9] * goals[..., 10] - states[..., 10] * goals[..., 9]
        return torch.atan2(sine, cosine).abs()

    def moved(self, states: Tensor, goals: Tensor) -> Tensor:
        """Whether the block lies elsewhere in the goals, farther off than what counts as reached."""
        pushed = (states[..., 4:6] - goals[..., 4:6]).norm(dim=-1) > _NEAR
        return pushed | (self.turned(states, goals) > _TURNED)

    def towards(self, states: Tensor, goals: Tensor) -> Tensor:
        """To the disc's place in the goal, whether the block is in its place or not."""
        return self.space.project(goals[..., :2] - states[..., :2])

    def tasks(self, count: int, generator: torch.Generator) -> Tasks:
        """Starts and ends of walks that moved the block."""
        starts, goals, missing = [], [], count
        while missing > 0:
            walks = self.wander(max(8, 2 * missing), self.away + 1, generator).states
            chosen = walks[self.moved(walks[:, 0], walks[:, -1])][:missing]
            starts.append(chosen[:, 0])
            goals.append(chosen[:, -1])
            missing -= len(chosen)
        return Tasks(torch.cat(starts), torch.cat(goals))

    def wander(self, count: int, length: int, generator: torch.Generator) -> Wandering:
        """Walks that often meet the block."""
        states = [super().wander(count, 2, generator).states[:, 0]]
        actions: list[Tensor] = []
        while len(states) < length:
            if len(actions) % self.hold == 0:
                about = states[-1][:, 4:6] + 50 * torch.randn(count, 2, generator=generator)
                there = about - states[-1][:, :2]
                there = there * (self.space.scale / there.norm(dim=1, keepdim=True).clamp(min=1e-6))
                anywhere = self.space.sample((count,), generator)
                held = torch.where(torch.rand(count, 1, generator=generator) < self.near, there, anywhere)
            actions.append(held)
            states.append(self.step(states[-1], held))
        return Wandering(torch.stack(states, dim=1), torch.stack(actions, dim=1))
