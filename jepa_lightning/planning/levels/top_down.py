"""Planning from the top down: each level plans how to get where the level above wants to be next."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from jepa_lightning.environments.spaces import ActionSpace
from jepa_lightning.planning.cost import GoalDistance
from jepa_lightning.planning.levels.scene import Scene, hierarchy_of
from jepa_lightning.planning.levels.space import MacroActions
from jepa_lightning.planning.planners.base import Energy, Plan, Planner
from jepa_lightning.planning.planners.sampling import CEM
from jepa_lightning.planning.world import World


@dataclass(frozen=True)
class LevelPlan:
    """What one level planned.

    Attributes:
        level: from 1.
        plan: its actions, and how far from the aim they are believed to lead.
        aim: (B, S, D) state to reach.
        compared: level that distances to the aim are taken in.
        anchored: whether the aim is the goal itself, and not a state that the level above predicts.
        before: (B,) how far from the aim the present state is.
        states: (B, H, S, D) of this level that its actions are believed to lead to.
    """

    level: int
    plan: Plan
    aim: Tensor
    compared: int
    anchored: bool
    before: Tensor
    states: Tensor


class TopDown(Planner):
    """The top level plans to the goal, and each level below to the first state that the level above predicts.

    The planner of H-JEPA (Zhang et al. 2026, arXiv:2610.06805), for worlds of `HierarchicalRollout`. Every level is
    searched by a planner of its own, the upper ones over macro-actions (`MacroActions`):

    - The energy of the top level is the distance of its predicted states to the goal, in its own space.
    - A level below predicts its own states, re-encodes every one that the level above would have into that level, and
      is compared there with the state that the level above is to be in next (`ahead`). Where this is the last one that
      the level above predicts, and that level and all above it aim at the goal, the goal itself takes its place.
    - A level above the first whose horizon is 1 is skipped: the level below aims at the goal, and compares each of its
      states with it in the space of the highest level that is skipped.
    - Horizons shrink over an episode (`shrink`, `shrinking_horizons`), where the agent is told its budget.

    Distances are those of the cost, `GoalDistance`: with its `reduce` over the compared states.

    Deviations: there, distances are squared and taken of the last states (here `reduce="last"`; by default the nearest
    one), a level below another plans for the other's stride (here for its own horizon, a multiple of that), the first
    level shrinks to one step (here to what is executed), and the search is AdamW from draws of the prior, which
    `Gradient(std=1.0)` comes near to.

    Args:
        horizons: steps of each level, lowest first: of the environment in the first, of its own in each above it. As
            many as there are levels to plan in.
        search: plans in the first level; its horizon is replaced. `CEM` by default.
        above: planners of the levels above, lowest first; by default like the first. Their horizons are replaced, and
            they hold no macro-action for several steps.
        ahead: which of the states that a level predicts is the aim of the level below, from 1; its last one, where it
            predicts fewer. What is executed is best no longer than the way there: nothing is planned beyond.
        shrink: let horizons shrink.

    Raises:
        ValueError: a setting is out of range.

    Examples:
        >>> from jepa_lightning.planning import CEM, TopDown
        >>> planner = TopDown(horizons=[8, 4], search=CEM(hold=2), above=[CEM(samples=256)])
        >>> [(level.horizon, level.hold, level.samples) for level in planner.planners]
        [(8, 2, 128), (4, 1, 256)]
    """

    def __init__(
        self,
        *,
        horizons: list[int],
        search: Planner | None = None,
        above: list[Planner] | None = None,
        ahead: int = 1,
        shrink: bool = True,
    ) -> None:
        first = search or CEM()
        if len(horizons) < 2 or min(horizons) < 1:
            raise ValueError(f"expected horizons of at least 1 step, of 2 levels or more, got {list(horizons)}")
        upper = [first] * (len(horizons) - 1) if above is None else list(above)
        if len(upper) != len(horizons) - 1:
            raise ValueError(
                f"expected a planner for each of {len(horizons) - 1} levels above the first, got {len(upper)}: set "
                "above or horizons"
            )
        if ahead < 1:
            raise ValueError(f"ahead must be at least 1, got {ahead}")
        super().__init__(horizon=horizons[0], hold=first.hold)
        self.planners = [with_horizon(first, horizons[0], hold=first.hold)]
        self.planners += [with_horizon(one, steps, hold=1) for one, steps in zip(upper, horizons[1:], strict=True)]
        self.ahead = ahead
        self.shrink = shrink

    @property
    def horizons(self) -> tuple[int, ...]:
        """Steps of each level, lowest first."""
        return tuple(planner.horizon for planner in self.planners)

    def check(self, world: World) -> None:
        """See that it fits a world.

        Raises:
            ValueError: the world has one level, or fewer than there are planners, or a level's horizon is no multiple
                of the steps that one of the level above stands for.
        """
        strides, skip, horizons = hierarchy_of(world).strides, world.frame_skip, self.horizons
        if len(horizons) > world.levels:
            raise ValueError(f"expected horizons of at most {world.levels} levels, which the world has, got {horizons}")
        for level, (steps, above) in enumerate(pairwise(horizons), start=1):
            unit = strides[level - 1] * (skip if level == 1 else 1)
            if above > 1 and steps % unit:
                raise ValueError(
                    f"expected a horizon of level {level} that is a multiple of {unit}, which one step of level "
                    f"{level + 1} stands for, got {steps}"
                )
            if level > 1 and steps == 1 and above > 1:
                raise ValueError(
                    f"expected horizons of 1, which skip a level, at the top alone, got {horizons} (lowest first)"
                )

    def spaces(self, world: World, space: ActionSpace) -> list[ActionSpace]:
        """What is searched in each level, lowest first."""
        pretext = hierarchy_of(world)
        return [space, *(MacroActions(pretext.prior(level)) for level in range(2, len(self.planners) + 1))]

    def flat(self, world: World) -> Planner:
        """The first level's planner, over all steps that the top level sees."""
        strides = hierarchy_of(world).strides
        above = (math.prod(strides[:n]) * steps for n, steps in enumerate(self.horizons[1:], start=1))
        steps = max(self.horizon, world.frame_skip * max(above))
        unit = math.lcm(self.hold, world.frame_skip)
        return with_horizon(self.planners[0], -(-steps // unit) * unit, hold=self.hold)

    def __call__(self, energy: Energy, space: ActionSpace, start: Tensor, generator: torch.Generator) -> Plan:
        """Plan once, with the horizons as they are set; the plan is that of the first level.

        Args:
            energy: a `Scene`, which knows the world, its present state and the goal.
            space: of the actions of the first level.
            start: (B, H, A) of the first level; the others begin at the mean of their macro-actions.
            generator: on the CPU.

        Raises:
            ValueError: the energy is another function, or the world does not fit.
        """
        scene = scene_of(energy)
        self.check(scene.world)
        plans = self.descend(scene, self.spaces(scene.world, space), {1: start}, generator)
        return plans[-1].plan

    def search(
        self, energy: Energy, space: ActionSpace, start: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Search the first level alone, as its planner does."""
        return self.planners[0].search(energy, space, start, generator)

    @torch.no_grad()
    def descend(
        self,
        scene: Scene,
        spaces: Sequence[ActionSpace],
        starts: Mapping[int, Tensor],
        generator: torch.Generator,
        horizons: Sequence[int] | None = None,
    ) -> list[LevelPlan]:
        """Plan level by level.

        Args:
            scene: the present state, the goal and the world.
            spaces: of the actions of each level, lowest first.
            starts: by level, where its search begins, (B, H, A); elsewhere the centre of the space.
            generator: on the CPU.
            horizons: steps of each level, lowest first; None: as they are set.

        Returns:
            The plans, highest level first; skipped levels have none.

        Raises:
            ValueError: the cost is none of distances in the first level.
        """
        cost = scene.cost
        if not isinstance(cost, GoalDistance) or cost.level != 1:
            raise ValueError(
                "expected the cost GoalDistance with level 1, since each level is compared in a space of its own, got "
                f"{type(cost).__name__} with level {cost.level}"
            )
        world, strides = scene.world, hierarchy_of(scene.world).strides
        steps = self.horizons if horizons is None else tuple(horizons)
        compared = len(steps)  # of the top level itself, or the highest that is skipped
        aim, anchored, stride = world.lift(scene.goal, level=compared), True, 1
        found = []
        for level in range(max(n for n in range(1, len(steps) + 1) if n == 1 or steps[n - 1] > 1), 0, -1):
            planner = with_horizon(self.planners[level - 1], steps[level - 1], hold=self.planners[level - 1].hold)
            space = spaces[level - 1]
            start = starts.get(level)
            if start is None:
                start = planner.start(len(aim), space, aim.device)
            energy = self.energy(scene, level, aim, compared=compared, stride=stride)
            plan = planner(energy, space, start, generator)
            states = scene.imagine(level, plan.actions.unsqueeze(1))[:, 0]
            here = world.lift(scene.past.states[:, -1], level=compared).unsqueeze(1)
            found.append(LevelPlan(level, plan, aim, compared, anchored, cost(here, plan.actions, aim), states))
            index = min(self.ahead, states.shape[1]) - 1
            anchored = anchored and index == states.shape[1] - 1
            aim = world.lift(scene.goal, level=level) if anchored else states[:, index]
            compared, stride = level, strides[level - 2] if level > 1 else 1
        return found

    @staticmethod
    def energy(scene: Scene, level: int, aim: Tensor, *, compared: int, stride: int) -> Energy:
        """The energy of actions (B, C, H, A) of a level: how far its states stay from an aim.

        Args:
            scene: the present state and the world.
            level: whose actions they are.
            aim: (B, S, D) state to reach.
            compared: level of the aim, to which predicted states are re-encoded.
            stride: from one state that is compared to the next, the first of them after as many steps.
        """

        def energy(actions: Tensor) -> Tensor:
            states = scene.imagine(level, actions)[:, :, stride - 1 :: stride]
            return scene.cost(scene.world.lift(states, level=compared, since=level), actions, aim.unsqueeze(1))

        return energy


def with_horizon(planner: Planner, horizon: int, *, hold: int) -> Planner:
    """A planner that differs in its horizon and how long it holds actions.

    Raises:
        ValueError: the horizon is no multiple of `hold`.
    """
    if horizon % hold:
        raise ValueError(f"expected a horizon that is a multiple of hold, got {horizon} and {hold}")
    changed = copy.copy(planner)
    changed.horizon, changed.hold = horizon, hold
    return changed


def scene_of(energy: Energy) -> Scene:
    """The energy as a scene.

    Raises:
        ValueError: it is another function.
    """
    if not isinstance(energy, Scene):
        raise ValueError("TopDown plans with a world, got an energy that knows none: use Agent, or give it a Scene")
    return energy
