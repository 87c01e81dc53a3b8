"""What acts in an environment: an agent with a world model, and the controls it is compared with."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from jepa_lightning.environments import Environment, Tasks
from jepa_lightning.planning.cost import Cost, DistanceCost, GoalDistance
from jepa_lightning.planning.horizon import RecedingHorizon
from jepa_lightning.planning.planners.base import Energy, Planner


class Policy(ABC):
    """Chooses actions for some episodes at once. A control may look at the states; an agent asks for observations."""

    @property
    def plans(self) -> int:
        """How many plans it has made since the episodes began, of all of them; 0 of one that does not plan."""
        return 0

    def reset(self, environment: Environment, tasks: Tasks) -> None:
        """New episodes begin."""
        self.environment = environment
        self.goals = tasks.goal

    @abstractmethod
    def act(self, states: Tensor) -> Tensor:
        """Actions (B, A) in states (B, P)."""

    def keep(self, index: Tensor) -> None:
        """Keep some of the episodes only, (B',) int64."""
        self.goals = self.goals[index]


class DoNothing(Policy):
    """Stays where it is: the share of tasks that solve themselves."""

    def act(self, states: Tensor) -> Tensor:
        """Zeros, or the nearest action."""
        return self.environment.space.project(torch.zeros(len(states), self.environment.space.dim))


class RandomActions(Policy):
    """Random actions, each held for a while: what happens by chance.

    Args:
        hold: steps.
        seed: of what is drawn.
    """

    def __init__(self, *, hold: int = 4, seed: int = 0) -> None:
        self.hold = hold
        self.seed = seed

    def reset(self, environment: Environment, tasks: Tasks) -> None:
        """New episodes begin."""
        super().reset(environment, tasks)
        self.generator = torch.Generator().manual_seed(self.seed)
        self.step = 0

    def act(self, states: Tensor) -> Tensor:
        """The action that is held, or a new one."""
        if self.step % self.hold == 0:
            self.action = self.environment.space.sample((len(states),), self.generator)
        self.step += 1
        return self.action

    def keep(self, index: Tensor) -> None:
        """Keep some of the episodes only."""
        super().keep(index)
        self.action = self.action[index]


class StraightLine(Policy):
    """One random action, as long as the space allows, kept for the whole episode: a straight line anywhere.

    Args:
        seed: of what is drawn.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def reset(self, environment: Environment, tasks: Tasks) -> None:
        """New episodes begin."""
        super().reset(environment, tasks)
        space = environment.space
        drawn = space.sample((len(tasks.start),), torch.Generator().manual_seed(self.seed))
        self.action = space.project(space.centre + 1e3 * (drawn - space.centre))

    def act(self, states: Tensor) -> Tensor:
        """The same as before."""
        return self.action

    def keep(self, index: Tensor) -> None:
        """Keep some of the episodes only."""
        super().keep(index)
        self.action = self.action[index]


class Towards(Policy):
    """Knows where it is and where the goal is, and heads straight for it, whatever lies between."""

    def act(self, states: Tensor) -> Tensor:
        """See `Environment.towards`."""
        actions = self.environment.towards(states, self.goals)
        if actions is None:
            raise ValueError(f"the environment {self.environment.name} has no straight way to a goal")
        return actions


class Oracle(Policy):
    """The same planner with the true dynamics and the true distance: what the planner is capable of.

    Args:
        planner: finds plans.
        cost: says how distances over time count; `GoalDistance` by default, and for any other cost.
        execute: actions of a plan that are done.
        seed: of what the planner draws.
    """

    def __init__(self, planner: Planner, *, cost: Cost | None = None, execute: int = 4, seed: int = 0) -> None:
        self.planner, self.execute, self.seed = planner, execute, seed
        self.cost = cost if isinstance(cost, DistanceCost) else GoalDistance()

    def reset(self, environment: Environment, tasks: Tasks) -> None:
        """New episodes begin."""
        super().reset(environment, tasks)
        self.loop = RecedingHorizon(self.planner, environment.space, execute=self.execute, seed=self.seed)

    def act(self, states: Tensor) -> Tensor:
        """The next action of the plan."""
        return self.loop.act(lambda: self.energy(states), len(states))

    @property
    def plans(self) -> int:
        """See `Policy.plans`."""
        return self.loop.plans

    def energy(self, states: Tensor) -> Energy:
        """The true energy of actions (B, C, H, A) in states (B, P)."""

        def energy(actions: Tensor) -> Tensor:
            way = simulate(self.environment, states.unsqueeze(1).expand(-1, actions.shape[1], -1), actions)
            return self.cost.over_time(self.environment.distance(way, self.goals[:, None, None].expand_as(way)))

        return energy

    def keep(self, index: Tensor) -> None:
        """Keep some of the episodes only."""
        super().keep(index)
        self.loop.keep(index)


def simulate(environment: Environment, states: Tensor, actions: Tensor) -> Tensor:
    """The true states (..., H, P) that follow actions (..., H, A) from states (..., P)."""
    way = []
    for action in actions.unbind(-2):
        states = environment.step(states, action)
        way.append(states)
    return torch.stack(way, dim=-2)
