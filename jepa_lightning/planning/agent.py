"""The agent: perceives, remembers, imagines, and acts."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from jepa_lightning.environments import ActionSpace, Environment, Tasks
from jepa_lightning.modality import Batch
from jepa_lightning.planning.actor import Actor, Reactive
from jepa_lightning.planning.cost import Cost, GoalDistance
from jepa_lightning.planning.horizon import RecedingHorizon
from jepa_lightning.planning.levels import Scene, TopDown, TopDownHorizon
from jepa_lightning.planning.memory import Memory
from jepa_lightning.planning.planners.base import Energy, Planner
from jepa_lightning.planning.policies import Policy
from jepa_lightning.planning.world import World

_log = logging.getLogger(__name__)


class Agent:
    """Acts by imagining what follows its actions ("Mode-2": LeCun 2022, section 3.1.2).

    Any number of episodes at once. It sees observations and a goal's observation, and nothing else. An action is one
    step of the environment, also where the world has a frame skip k and imagines k of them at once: it then looks at
    every k-th observation.

    Args:
        world: encodes and imagines.
        space: of the actions.
        planner: finds actions of low energy.
        cost: of imagined trajectories; `GoalDistance` by default.
        execute: actions of a plan that are done before the next one is made; best a multiple of the planner's `hold`,
            or a held action is cut.
        memory: of the last states and actions; by default as many states as the world's predictor sees.
        seed: of what the planner draws.
        warm: start a search from the last plan, shifted.
        actor: proposes where a search starts: what it would do in imagination.
        budget: steps of an episode, over which the horizons of `TopDown` shrink; None: they do not.

    Raises:
        ValueError: the memory holds fewer states than the predictor sees, `execute` exceeds the planner's horizon, one
            of both is no multiple of the world's frame skip, or the world has not the levels that the cost or the
            planner asks for.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from jepa_lightning import JEPA
        >>> from jepa_lightning.encoders import ConvEncoder
        >>> from jepa_lightning.environments import Disc
        >>> from jepa_lightning.planning import Agent, CEM, World
        >>> from jepa_lightning.predictors import ResidualPredictor
        >>> from jepa_lightning.pretexts import Rollout
        >>> from modalities.image import Image
        >>> image = Image(image_size=32, patch_size=32, channels=1, encoder=partial(ConvEncoder, dim=8, width=2))
        >>> world = World(JEPA(image, pretext=Rollout(action_dim=2), predictor=ResidualPredictor))
        >>> agent = Agent(world, Disc(3.0), CEM(samples=16))
        >>> agent.reset({"image": torch.randn(5, 1, 32, 32)})  # the goals of five episodes
        >>> agent.act({"image": torch.randn(5, 1, 32, 32)}).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        world: World,
        space: ActionSpace,
        planner: Planner,
        *,
        cost: Cost | None = None,
        execute: int = 4,
        memory: Memory | None = None,
        seed: int = 0,
        warm: bool = True,
        actor: Actor | None = None,
        budget: int | None = None,
    ) -> None:
        self.world = world
        self.actor = None if actor is None else actor.to(world.device)
        self.cost = cost or GoalDistance()
        self.memory = memory or Memory(world.history)
        self.done: list[Tensor] = []  # since the last look
        if self.memory.capacity != world.history:
            raise ValueError(
                f"expected a memory of {world.history} states, which the predictor sees, got {self.memory.capacity}"
            )
        if (self.cost.level or 1) > world.levels:
            raise ValueError(
                f"expected a cost in level 1 to {world.levels}, which the world has, got {self.cost.level}: set "
                "cost.level, or train with HierarchicalRollout"
            )
        if execute % planner.hold:
            _log.warning(
                "execute is %d and no multiple of hold, %d: a held action is cut, and the rest of it searched anew",
                execute,
                planner.hold,
            )
        if execute % world.frame_skip or planner.horizon % world.frame_skip:
            raise ValueError(
                f"expected execute and the planner's horizon as multiples of {world.frame_skip}, the world's frame "
                f"skip, got {execute} and {planner.horizon}"
            )
        loop: dict[str, Any] = {"execute": execute, "seed": seed, "warm": warm}
        self.loop = (
            TopDownHorizon(planner, space, world, budget=budget, **loop)
            if isinstance(planner, TopDown)
            else RecedingHorizon(planner, space, **loop)
        )

    def reset(self, goal: Tensor | Batch) -> None:
        """New episodes begin, with observations of their goals."""
        self.memory.clear()
        self.done = []
        self.loop.reset()
        self.goal = self.world.encode_goal(goal)

    @property
    def looks(self) -> bool:
        """Whether the next action depends on what is observed: within a block of actions it does not."""
        return self.loop.due or self.loop.done % self.world.frame_skip == 0

    def act(self, observation: Tensor | Batch | None) -> Tensor:
        """The next action of each episode, (B, A) in the environment's units, on the CPU.

        Args:
            observation: of all episodes; None is enough where the agent does not look.

        Raises:
            ValueError: there is none, and it looks.
        """
        if self.loop.due or (self.memory.capacity > 1 and self.looks):
            if observation is None:
                raise ValueError("expected an observation, since a plan or the memory is due, got None")
            self.memory.write(self.world.encode(observation), self._told())
        device = self.world.device

        def energy() -> Energy:
            return Scene(self.world, self.memory.past(self.world.positions), self.goal, self.cost)

        proposal = None if self.actor is None else self.proposal
        action = self.loop.act(energy, len(self.goal), device, proposal=proposal)
        self.done.append(action)
        return action.cpu()

    def _told(self) -> Tensor | None:
        """What was done since the last look, (B, A) as the predictor is told it; None unless it was one step of it."""
        done, self.done = self.done, []
        return self.world.told(torch.stack(done, dim=1))[:, 0] if len(done) == self.world.frame_skip else None

    @torch.no_grad()
    def proposal(self) -> Tensor:
        """What the actor would do in imagination, (B, H, A)."""
        assert self.actor is not None
        past, planner = self.memory.past(self.world.positions), self.loop.planner
        return self.actor.imagine(self.world, past, self.goal, horizon=planner.horizon, hold=planner.hold)[0]

    @property
    def plans(self) -> int:
        """How many plans were made since the episodes began."""
        return self.loop.plans

    def keep(self, index: Tensor) -> None:
        """Keep some of the episodes only, (B',) int64."""
        self.goal = self.goal[index.to(self.goal.device)]
        self.memory.keep(index.to(self.goal.device))
        self.done = [action[index.to(action.device)] for action in self.done]
        self.loop.keep(index.to(self.goal.device))


class Deliberate(Policy):
    """An agent as a policy: it is shown the observations of the states, where it looks.

    Args:
        agent: acts.
    """

    def __init__(self, agent: Agent | Reactive) -> None:
        self.agent = agent

    def reset(self, environment: Environment, tasks: Tasks) -> None:
        """Show the goals."""
        super().reset(environment, tasks)
        self.agent.reset(environment.observe(tasks.goal))

    @property
    def plans(self) -> int:
        """See `Policy.plans`."""
        return self.agent.plans

    @torch.no_grad()
    def act(self, states: Tensor) -> Tensor:
        """Show the states, and ask."""
        return self.agent.act(self.environment.observe(states) if self.agent.looks else None)

    def keep(self, index: Tensor) -> None:
        """Keep some of the episodes only."""
        super().keep(index)
        self.agent.keep(index)
