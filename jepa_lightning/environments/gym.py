"""Environments of gymnasium that can be set to a state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jepa_lightning.environments.base import Environment, Tasks, Wandering
from jepa_lightning.environments.gymnasium import as_asked, make, picture, space_of


class Gym(Environment):
    """An environment of gymnasium whose whole state is the vector `env.unwrapped.state`: classic control.

    Observations are what it renders, (3, S, S) uint8, or with `pictures` false the numbers of its state. Since it can
    be set to any state, an oracle can try actions. Of a state, each angle counts as its cosine and sine. The time limit
    does not hold; an episode lasts as long as `jepa-plan`'s budget, whether its goal is reached before or not, and
    rewards are added up to the return.

    For other environments record episodes by `jepa-collect`, or subclass and override `put` and `get`.

    Args:
        id: of the environment.
        pictures: False: an observation is the state itself, (P,) float32, for the modality `Vector`.
        image_size: pixels a side of a picture.
        angles: which numbers of its state are angles.
        goal: the numbers of its state to reach; None: where a random walk of `away` steps ends.
        measured: which numbers of its state the distance to the goal looks at; None: all.
        radius: nearer than this counts as reached.
        away: steps of these walks.
        hold: steps that a random action is held.
        walks: random walks that `jepa-plan` draws to tell what states hold and what surprises; a picture takes some
            milliseconds.

    Raises:
        ValueError: gymnasium does not know the id, the environment has no such state, or a setting does not fit it.
        ImportError: gymnasium is not installed.

    Examples:
        >>> import torch
        >>> from jepa_lightning.environments import Gym
        >>> pendulum = Gym(id="Pendulum-v1", image_size=32, angles=[0], goal=[0, 0])
        >>> tasks = pendulum.tasks(3, torch.Generator().manual_seed(0))
        >>> pendulum.observe(tasks.start).shape, pendulum.state_names
        (torch.Size([3, 3, 32, 32]), ('cos_0', 'sin_0', 'state_1'))
    """

    ends = False

    def __init__(
        self,
        *,
        id: str,
        pictures: bool = True,
        image_size: int = 64,
        angles: Sequence[int] = (),
        goal: Sequence[float] | None = None,
        measured: Sequence[int] | None = None,
        radius: float = 0.3,
        away: int = 20,
        hold: int = 4,
        walks: int = 200,
    ) -> None:
        if ":" in id:  # what stands before it would be imported, of a stored configuration as well
            raise ValueError(f"expected an id without a module, got {id}: import the module, which registers it")
        if image_size < 8 or not radius > 0 or min(away, hold, walks) < 1:
            raise ValueError(
                "expected images of at least 8 pixels, a positive radius, and away, hold and walks of at least 1, got "
                f"{image_size}, {radius}, {away}, {hold} and {walks}"
            )
        self.name = self.id = id
        self.pictures = pictures
        self.image_size, self.radius, self.away, self.hold, self.walks = image_size, radius, away, hold, walks
        self._env = make(id)
        self.space = space_of(self._env)
        self._env.reset(seed=0)
        size = len(self.get())
        for name, chosen in (("angles", angles), ("measured", measured or ())):
            if not all(0 <= number < size for number in chosen):
                raise ValueError(f"expected {name} below {size}, the numbers of a state of {id}, got {list(chosen)}")
        if goal is not None and len(goal) != size:
            raise ValueError(f"expected a goal of {size} numbers, as a state of {id} has, got {list(goal)}")
        self.angles = list(angles)
        self.goal = None if goal is None else list(goal)
        self.measured = list(range(size) if measured is None else measured)
        columns = [[f"cos_{i}", f"sin_{i}"] if i in self.angles else [f"state_{i}"] for i in range(size)]
        self.state_names = tuple(name for part in columns for name in part)
        self._of = [i for i, part in enumerate(columns) for _ in part]  # the number that a column is made of

    def get(self) -> np.ndarray[Any, Any]:
        """The numbers of the state that the environment is in.

        Raises:
            ValueError: it does not have them as a vector.
        """
        state = getattr(self._env.unwrapped, "state", None)
        if not isinstance(state, np.ndarray | list | tuple) or np.ndim(state) != 1:
            raise ValueError(
                f"expected an environment whose state is a vector, `env.unwrapped.state`, got {self.id}: record "
                f"episodes with jepa-collect --env {self.id}, or subclass Gym and override put and get"
            )
        return np.asarray(state, dtype=np.float64)

    def put(self, state: np.ndarray[Any, Any]) -> None:
        """Set the environment to a state of so many numbers."""
        env = self._env.unwrapped
        env.state = state
        for name in ("last_u", "steps_beyond_terminated"):  # an arrow in the picture; whether an episode had ended
            if hasattr(env, name):
                setattr(env, name, None)

    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        """One step of each, one after another."""
        return self.transition(states, actions)[0]

    def rewards(self, states: Tensor, actions: Tensor) -> Tensor | None:
        """What the environment gives for actions."""
        return self.transition(states, actions)[1]

    def transition(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor | None]:
        """Both, of one simulation."""
        lead = states.shape[:-1]
        actions = self.space.project(actions).expand(*lead, -1).reshape(-1, self.space.dim)
        after, rewards = [], []
        for state, action in zip(self._folded(states).reshape(-1, len(set(self._of))), actions, strict=True):
            self.put(state)
            _, reward, *_ = self._env.unwrapped.step(as_asked(self.space, self._env, action))
            after.append(self.get())
            rewards.append(float(reward))
        return self._unfolded(np.stack(after)).view(*lead, -1), torch.tensor(rewards).view(lead)

    def _folded(self, states: Tensor) -> np.ndarray[Any, Any]:
        """States (..., P) as the environment has them."""
        columns = states.double().unbind(-1)
        found = []
        for number in dict.fromkeys(self._of):
            first = self._of.index(number)
            angle = number in self.angles
            found.append(torch.atan2(columns[first + 1], columns[first]) if angle else columns[first])
        return torch.stack(found, dim=-1).numpy()

    def _unfolded(self, numbers: np.ndarray[Any, Any]) -> Tensor:
        """The environment's numbers (..., n) as states (..., P)."""
        values = torch.from_numpy(numbers)
        columns = [
            part
            for i, value in enumerate(values.unbind(-1))
            for part in ((value.cos(), value.sin()) if i in self.angles else (value,))
        ]
        return torch.stack(columns, dim=-1).float()

    def observe(self, states: Tensor) -> Tensor:
        """Pictures (..., 3, S, S) uint8, or the states themselves (..., P) float32."""
        if not self.pictures:
            return states.float()
        found = []
        for state in self._folded(states).reshape(-1, len(set(self._of))):
            self.put(state)
            found.append(picture(self._env, self.image_size))
        return torch.stack(found).view(*states.shape[:-1], 3, self.image_size, self.image_size)

    def distance(self, states: Tensor, goals: Tensor) -> Tensor:
        """Euclidean, of the numbers that are measured; an angle's cosine and sine."""
        seen = [column for column, number in enumerate(self._of) if number in self.measured]
        return (states[..., seen] - goals[..., seen]).norm(dim=-1)

    def reached(self, states: Tensor, goals: Tensor) -> Tensor:
        """Whether they are nearer than the radius."""
        return self.distance(states, goals) < self.radius

    def tasks(self, count: int, generator: torch.Generator) -> Tasks:
        """Starts as the environment draws them."""
        walks = self.wander(count, self.away + 1, generator)
        start = walks.states[:, 0]
        if self.goal is None:
            return Tasks(start, walks.states[:, -1])
        return Tasks(start, self._unfolded(np.array(self.goal, dtype=np.float64)).expand_as(start).clone())

    def wander(self, count: int, length: int, generator: torch.Generator) -> Wandering:
        """Random actions, each held for some steps."""
        if length < 2:
            raise ValueError(f"expected trajectories of at least 2 observations, got {length}")
        starts = []
        for seed in torch.randint(2**31 - 1, (count,), generator=generator).tolist():
            self._env.reset(seed=seed)
            starts.append(self.get())
        drawn = self.space.sample((count, -(-(length - 1) // self.hold)), generator)
        actions = drawn.repeat_interleave(self.hold, dim=1)[:, : length - 1]
        states = [self._unfolded(np.stack(starts))]
        for action in actions.unbind(1):
            states.append(self.step(states[-1], action))
        return Wandering(torch.stack(states, dim=1), actions)
