"""An actor that is trained on the plans of a planner."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_lightning.data.trajectories import blocks
from jepa_lightning.environments import ActionSpace
from jepa_lightning.planning.actor import Actor
from jepa_lightning.planning.actor_training import ActorTraining, imitation
from jepa_lightning.planning.cost import Cost, GoalDistance
from jepa_lightning.planning.learned_cost import fitted_to
from jepa_lightning.planning.planners import CEM, Planner
from jepa_lightning.planning.walks import Walks
from jepa_lightning.planning.world import World

_PLANS = 50  # that are made at once


class Distil(ActorTraining):
    """Do what a planner would: Mode-2 becomes Mode-1 (LeCun 2022, section 3.1.3).

    Plans are made once, before the first step, from observations of the walks to other states of their episodes, each
    by itself and with nothing to start from; the actor learns their first actions, by the squared error in units of
    the space's scale.

    Args:
        steps: of the optimiser.
        batch_size: pairs of a state and a goal in each.
        learning_rate: the highest.
        width: of the actor's hidden layers.
        depth: of its hidden layers.
        planner: makes the plans; `CEM` by default.
        cost: of imagined trajectories; `GoalDistance` by default. A learned one is fitted to the world first, unless it
            is already.
        pairs: number of plans, at most one for each observation.

    Raises:
        ValueError: a setting is out of range, or the planner's horizon is no multiple of the world's frame skip.

    Examples:
        >>> from jepa_lightning.planning import CEM, Distil
        >>> Distil(planner=CEM(samples=32)).pairs
        1000
    """

    def __init__(
        self,
        *,
        steps: int = 1000,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        width: int = 256,
        depth: int = 2,
        planner: Planner | None = None,
        cost: Cost | None = None,
        pairs: int = 1000,
    ) -> None:
        super().__init__(steps=steps, batch_size=batch_size, learning_rate=learning_rate, width=width, depth=depth)
        if pairs < 1:
            raise ValueError(f"pairs must be at least 1, got {pairs}")
        self.planner, self.cost, self.pairs = planner or CEM(), cost or GoalDistance(), pairs

    @torch.no_grad()
    def prepare(
        self, world: World, walks: Walks, space: ActionSpace, follows: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Plan from some of the observations; see `ActorTraining.prepare`."""
        skip = world.frame_skip
        if self.planner.horizon % skip:
            raise ValueError(
                f"expected a planner's horizon that is a multiple of {skip}, the world's frame skip, got "
                f"{self.planner.horizon}"
            )
        chosen = follows[torch.randperm(len(follows), generator=generator)[: self.pairs].to(follows.device)]
        self.goal = torch.zeros_like(walks.first)
        self.goal[chosen] = walks.same_episode(chosen, generator)
        self.planned = torch.zeros_like(walks.actions)
        cost = fitted_to(self.cost, world, walks, seed=generator.initial_seed())
        for part in chosen.split(_PLANS):
            start = self.planner.start(len(part), space, world.device)
            energy = world.energy(walks.past(part, world), walks.goals[self.goal[part]], cost)
            plan = self.planner(energy, space, start, generator)
            self.planned[part] = blocks(plan.actions[:, :skip].to(self.planned), skip)[:, 0]
        return chosen

    def loss(self, actor: Actor, world: World, walks: Walks, index: Tensor, generator: torch.Generator) -> Tensor:
        """See `ActorTraining.loss`."""
        return imitation(actor, walks.states[index], walks.goals[self.goal[index]], self.planned[index])
