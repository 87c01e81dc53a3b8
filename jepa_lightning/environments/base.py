"""What every environment is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_lightning.environments.spaces import ActionSpace


@dataclass(frozen=True)
class Tasks:
    """Where episodes start, and where they are to end.

    Attributes:
        start: (N, P) states.
        goal: (N, P) states.
    """

    start: Tensor
    goal: Tensor


@dataclass(frozen=True)
class Wandering:
    """Trajectories of an agent that wants nothing.

    Attributes:
        states: (N, T, P).
        actions: (N, T - 1, A).
    """

    states: Tensor
    actions: Tensor


class Environment(ABC):
    """A simulated environment as functions of its state, for any number of episodes at once, on the CPU.

    It keeps no state of its own, so an oracle can try actions without touching the episode.
    """

    name: str
    """Of the environment, in reports."""

    space: ActionSpace
    """The actions that it takes."""

    state_names: tuple[str, ...]
    """What the P numbers of a state are."""

    ends: bool = True
    """Whether an episode is over when its goal is reached."""

    walks: int = 2000
    """Random walks from which a report tells what states hold and what surprises; fewer where drawing takes long."""

    @abstractmethod
    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        """States (..., P) after actions (..., A)."""

    @abstractmethod
    def observe(self, states: Tensor) -> Tensor:
        """Observations of states (..., P); of images (..., C, H, W) uint8."""

    @abstractmethod
    def distance(self, states: Tensor, goals: Tensor) -> Tensor:
        """How far states (..., P) are from goals (..., P), in the environment's units: (...)."""

    @abstractmethod
    def reached(self, states: Tensor, goals: Tensor) -> Tensor:
        """Whether states (..., P) count as being at goals (..., P): (...) bool."""

    @abstractmethod
    def tasks(self, count: int, generator: torch.Generator) -> Tasks:
        """Draw starts and goals."""

    @abstractmethod
    def wander(self, count: int, length: int, generator: torch.Generator) -> Wandering:
        """Draw trajectories of `length` observations to train on."""

    def rewards(self, states: Tensor, actions: Tensor) -> Tensor | None:
        """What is given for actions (..., A) in states (..., P): (...); None where nothing is."""
        return None

    def transition(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor | None]:
        """What `step` and `rewards` give, for environments that compute both in one."""
        return self.step(states, actions), self.rewards(states, actions)

    def towards(self, states: Tensor, goals: Tensor) -> Tensor | None:
        """Actions (..., A) that head straight for the goals, obstacles or not; None where that means nothing."""
        return None

    def violations(self, states: Tensor, actions: Tensor, after: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """What cannot follow, to see whether a model is surprised by it.

        Args:
            states: (N, P).
            actions: (N, A).
            after: (N, P) what truly follows.

        Returns:
            By the name of what is wrong: which of the N it can happen to, (n,) int64, and the impossible states (n, P)
            that follow there. Nothing by default.
        """
        return {}
