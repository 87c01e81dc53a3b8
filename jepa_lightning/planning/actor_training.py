"""How an actor is trained: on the frozen states of the walks that the world was trained on."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from jepa_lightning.environments import ActionSpace
from jepa_lightning.planning.actor import Actor
from jepa_lightning.planning.cost import Cost, GoalDistance
from jepa_lightning.planning.fitting import check_fitting, minimise
from jepa_lightning.planning.learned_cost import fitted_to
from jepa_lightning.planning.walks import Walks, below, draw
from jepa_lightning.planning.world import World


class ActorTraining(ABC):
    """Trains an actor; Adam with a cosine learning rate.

    Args:
        steps: of the optimiser.
        batch_size: pairs of a state and a goal in each.
        learning_rate: the highest.
        width: of the actor's hidden layers.
        depth: of its hidden layers.

    Raises:
        ValueError: a setting is out of range.
    """

    def __init__(self, *, steps: int, batch_size: int, learning_rate: float, width: int, depth: int) -> None:
        check_fitting(steps, batch_size, learning_rate)
        self.steps, self.batch_size, self.learning_rate = steps, batch_size, learning_rate
        self.width, self.depth = width, depth

    def __call__(self, world: World, walks: Walks, space: ActionSpace, *, seed: int = 0) -> Actor:
        """Train an actor.

        Args:
            world: whose states it sees.
            walks: to train on.
            space: of the environment's actions; the actor's are blocks of them where the world has a frame skip.
            seed: of the weights and of what is drawn.
        """
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            own = world.block_space(space)
            actor = Actor(walks.states[0].numel(), own, width=self.width, depth=self.depth).to(world.device)
        actor.standardize_by(walks.states)
        follows = self.prepare(world, walks, space, walks.follows, generator)

        def loss() -> Tensor:
            return self.loss(actor, world, walks, draw(follows, self.batch_size, generator), generator)

        minimise(actor.parameters(), loss, steps=self.steps, learning_rate=self.learning_rate)
        return actor.requires_grad_(False).eval()

    def prepare(
        self, world: World, walks: Walks, space: ActionSpace, follows: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Which of the observations `follows` (n,), none of them the last of its episode, are trained on: here all."""
        return follows

    @abstractmethod
    def loss(self, actor: Actor, world: World, walks: Walks, index: Tensor, generator: torch.Generator) -> Tensor:
        """A loss of the actor at observations (n,), none of them the last of its episode."""


class Imitate(ActorTraining):
    """Do what the walk did, taking a later state of it for the goal: hindsight (Ghosh et al. 2019, arXiv:1912.06088).

    The squared error of actions in units of the space's scale. It needs no predictor, and it is as good as the walks
    are on the way to where they led.

    Args:
        steps: of the optimiser.
        batch_size: pairs of a state and a goal in each.
        learning_rate: the highest.
        width: of the actor's hidden layers.
        depth: of its hidden layers.
        within: steps that the goal lies ahead at most; None: anywhere later in the episode.

    Raises:
        ValueError: a setting is out of range.

    Examples:
        >>> from jepa_lightning.planning import Imitate
        >>> Imitate(steps=1000).within is None
        True
    """

    def __init__(
        self,
        *,
        steps: int = 2000,
        batch_size: int = 256,
        learning_rate: float = 1e-3,
        width: int = 256,
        depth: int = 2,
        within: int | None = None,
    ) -> None:
        super().__init__(steps=steps, batch_size=batch_size, learning_rate=learning_rate, width=width, depth=depth)
        if within is not None and within < 1:
            raise ValueError(f"within must be at least 1, got {within}")
        self.within = within

    def loss(self, actor: Actor, world: World, walks: Walks, index: Tensor, generator: torch.Generator) -> Tensor:
        """See `ActorTraining.loss`."""
        ahead = walks.last[index] - index
        if self.within is not None:
            ahead = ahead.clamp(max=self.within)
        goal = index + 1 + below(ahead, generator)
        return imitation(actor, walks.states[index], walks.goals[goal], walks.actions[index])


class Imagine(ActorTraining):
    """Lower the cost of what follows in imagination, by its gradient through cost and predictor.

    Goals are any states of the same episode. Only states of the walks are used, not their actions.

    Args:
        steps: of the optimiser.
        batch_size: pairs of a state and a goal in each.
        learning_rate: the highest.
        width: of the actor's hidden layers.
        depth: of its hidden layers.
        horizon: steps of the environment that are imagined.
        cost: of imagined trajectories; by default the mean distance to the goal on the way. A learned one is fitted to
            the world first, unless it is already.

    Raises:
        ValueError: a setting is out of range, or the space is one of choices.

    Examples:
        >>> from jepa_lightning.planning import Imagine
        >>> Imagine(horizon=8).cost.reduce
        'mean'
    """

    def __init__(
        self,
        *,
        steps: int = 300,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        width: int = 256,
        depth: int = 2,
        horizon: int = 16,
        cost: Cost | None = None,
    ) -> None:
        super().__init__(steps=steps, batch_size=batch_size, learning_rate=learning_rate, width=width, depth=depth)
        if horizon < 1:
            raise ValueError(f"horizon must be at least 1, got {horizon}")
        self.horizon = horizon
        self.cost = cost or GoalDistance(reduce="mean")

    def prepare(
        self, world: World, walks: Walks, space: ActionSpace, follows: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Fit a learned cost to the world, unless it is fitted already; see `ActorTraining.prepare`."""
        self.fitted = fitted_to(self.cost, world, walks, seed=generator.initial_seed())
        return follows

    def loss(self, actor: Actor, world: World, walks: Walks, index: Tensor, generator: torch.Generator) -> Tensor:
        """See `ActorTraining.loss`."""
        if actor.space.choices:
            raise ValueError("Imagine needs actions in a continuum, got choices: use Imitate")
        goal = walks.goals[walks.same_episode(index, generator)]
        actions, states = actor.imagine(world, walks.past(index, world), goal, horizon=self.horizon)
        return world.score(self.fitted, states, actions, goal).mean()


def imitation(actor: Actor, states: Tensor, goals: Tensor, actions: Tensor) -> Tensor:
    """The squared error of an actor's actions, in units of the space's scale."""
    error = actor(states, goals) - actions
    return (error / actor.space.scale.to(error)).square().mean()
