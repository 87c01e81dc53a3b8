"""How an actor is trained: on the frozen states of the walks that the world was trained on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_lightning.data.trajectories import Episodes, TrajectoryData, blocks
from jepa_lightning.environments import ActionSpace
from jepa_lightning.planning.actor import Actor
from jepa_lightning.planning.cost import Cost, GoalDistance
from jepa_lightning.planning.world import World
from jepa_lightning.predictors.rollout import Past

_PART = 512  # observations that are encoded at once


@dataclass(frozen=True)
class Walks:
    """Encoded episodes, behind each other.

    Attributes:
        states: (M, S, D) as the predictor takes them.
        goals: (M, S, D) the same as states to reach, see `World.encode_goal`.
        actions: (M, A) after each observation, with a frame skip k blocks (M, k A); zeros after an episode's last.
        first: (M,) int64, where each observation's episode begins.
        last: (M,) int64, where it ends.
    """

    states: Tensor
    goals: Tensor
    actions: Tensor
    first: Tensor
    last: Tensor

    def past(self, index: Tensor, world: World) -> Past:
        """What the predictor sees at observations (n,)."""
        when = index.unsqueeze(1) + torch.arange(1 - world.history, 1, device=index.device)
        valid = when >= self.first[index].unsqueeze(1)
        states = self.states[when.clamp(min=0)] * valid[..., None, None]
        if world.history == 1:
            return Past(states=states, positions=world.positions)
        done = world.pretext.standardized(self.actions[when[:, :-1].clamp(min=0)]) * valid[:, :-1, None]
        return Past(states=states, valid=valid, positions=world.positions, actions=done)

    def same_episode(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """For each of the observations (n,) one drawn from its episode, (n,) int64."""
        first = self.first[index]
        return first + below(self.last[index] + 1 - first, generator)


def encode_walks(world: World, data: TrajectoryData) -> Walks:
    """Encode all training episodes of a data module once; with a frame skip k every k-th observation of them."""
    train = data.load()["train"]
    assert isinstance(train, Episodes)
    observe = world.observations or data.batch_transform()
    states, goals = [], []
    skip = world.frame_skip
    seen = [episode.observations[::skip] for episode in train.episodes]
    for part in torch.cat(seen).split(_PART):
        both = world.encode_both({observe.key: observe.prepare(part)})
        states.append(both[0])
        goals.append(both[1])
    done = [
        episode.actions[: (len(part) - 1) * skip].float() for episode, part in zip(train.episodes, seen, strict=True)
    ]
    actions = [F.pad(blocks(part, skip), (0, 0, 0, 1)) for part in done]
    length = torch.tensor([len(part) for part in seen])
    end = length.cumsum(0)
    places = [(end - length).repeat_interleave(length), (end - 1).repeat_interleave(length)]
    moved = [values.to(world.device) for values in (torch.cat(actions), *places)]
    return Walks(torch.cat(states), torch.cat(goals), *moved)


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
        if min(steps, batch_size) < 1 or not learning_rate > 0:
            raise ValueError(
                f"expected steps and batch_size of at least 1 and a positive learning_rate, got {steps}, {batch_size} "
                f"and {learning_rate}"
            )
        self.steps, self.batch_size, self.learning_rate = steps, batch_size, learning_rate
        self.width, self.depth = width, depth

    @torch.enable_grad()
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
        optimizer = torch.optim.Adam(actor.parameters(), lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        follows = torch.nonzero(walks.last > torch.arange(len(walks.last), device=walks.last.device)).squeeze(1)
        follows = self.prepare(world, walks, space, follows, generator)
        for _ in range(self.steps):
            drawn = torch.randint(len(follows), (self.batch_size,), generator=generator).to(follows.device)
            loss = self.loss(actor, world, walks, follows[drawn], generator)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(actor.parameters(), 1.0)
            optimizer.step()
            schedule.step()
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
        cost: of imagined trajectories; by default the mean distance to the goal on the way.

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

    def loss(self, actor: Actor, world: World, walks: Walks, index: Tensor, generator: torch.Generator) -> Tensor:
        """See `ActorTraining.loss`."""
        if actor.space.choices:
            raise ValueError("Imagine needs actions in a continuum, got choices: use Imitate")
        goal = walks.goals[walks.same_episode(index, generator)]
        actions, states = actor.imagine(world, walks.past(index, world), goal, horizon=self.horizon)
        return world.score(self.cost, states, actions, goal).mean()


def imitation(actor: Actor, states: Tensor, goals: Tensor, actions: Tensor) -> Tensor:
    """The squared error of an actor's actions, in units of the space's scale."""
    error = actor(states, goals) - actions
    return (error / actor.space.scale.to(error)).square().mean()


def below(limits: Tensor, generator: torch.Generator) -> Tensor:
    """A whole number below each limit, (n,) int64."""
    drawn = torch.rand(len(limits), generator=generator, dtype=torch.float64).to(limits.device)
    return (drawn * limits).long().minimum(limits - 1)
