"""Receding horizon of plans from the top down."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from jepa_lightning.environments.spaces import ActionSpace
from jepa_lightning.planning.horizon import RecedingHorizon
from jepa_lightning.planning.levels.scene import hierarchy_of
from jepa_lightning.planning.levels.schedule import shrinking_horizons
from jepa_lightning.planning.levels.top_down import LevelPlan, TopDown, scene_of
from jepa_lightning.planning.planners.base import Energy, Plan, best_of
from jepa_lightning.planning.world import World


class TopDownHorizon(RecedingHorizon):
    """Executes the first actions of the first level's plan, then plans again in all levels.

    Each level's search begins with the rest of its last plan. Where that is no whole number of the level's steps, each
    macro-action is made of the two that shared its time, in proportion; a search that begins a part of a step off has
    to find its way anew.

    Args:
        planner: finds plans.
        space: of the actions of the first level.
        world: imagines.
        execute: actions of a plan that are done before the next one is made.
        seed: of what the planners draw.
        warm: start searches from the last plans.
        budget: steps of an episode, over whose plans the horizons shrink; None: they do not.

    Attributes:
        levels: what each level planned last, highest first.
        first_levels: the same of the first plan.

    Raises:
        ValueError: the planner does not fit the world, or `execute` is not within 1 and its horizon.
    """

    planner: TopDown

    def __init__(
        self,
        planner: TopDown,
        space: ActionSpace,
        world: World,
        *,
        execute: int = 4,
        seed: int = 0,
        warm: bool = True,
        budget: int | None = None,
    ) -> None:
        super().__init__(planner, space, execute=execute, seed=seed, warm=warm)
        planner.check(world)
        self.spaces = planner.spaces(world, space)
        skip, sizes = world.frame_skip, hierarchy_of(world).strides
        self.sizes = [skip * math.prod(sizes[:level]) for level in range(len(planner.planners))]
        self.calls = None if budget is None or not planner.shrink else -(-budget // execute)

    def reset(self) -> None:
        """New episodes begin."""
        super().reset()
        self.call = 0
        self.levels: list[LevelPlan] = []
        self.first_levels: list[LevelPlan] = []
        self.last: dict[int, Plan] = {}

    @property
    def horizons(self) -> tuple[int, ...]:
        """Steps of each level in the next plan, lowest first."""
        steps = self.planner.horizons
        if self.calls is None:
            return steps
        unit = math.lcm(self.planner.hold, self.sizes[0])  # what the first level shrinks by
        least = [-(-self.execute // unit), *(1 for _ in steps[1:])]
        found = shrinking_horizons(self.call, self.calls, [steps[0] // unit, *steps[1:]], least)
        return (found[0] * unit, *found[1:])

    def find(
        self,
        energy: Energy,
        batch: int,
        device: torch.device | str = "cpu",
        *,
        proposal: Callable[[], Tensor] | None = None,
    ) -> Plan:
        """Plan in all levels.

        Args:
            energy: a `Scene`.
            batch: B, the episodes.
            device: where the energy is computed.
            proposal: makes actions (B, H, A) of the first level; its search begins with them where they are nearer to
                the goal, by the cost, than what it would begin with.

        Raises:
            ValueError: the energy is another function.
        """
        scene, steps = scene_of(energy), self.horizons
        starts = {
            level: self.rest(level, horizon).to(device) for level, horizon in enumerate(steps, 1) if level in self.last
        }
        if proposal is not None:
            lowest = starts.get(1, self.planner.start(batch, self.space, device)[:, : steps[0]])
            both = torch.stack([lowest, self.space.project(proposal().to(lowest))[:, : steps[0]]], dim=1)
            starts[1] = best_of(both, scene(both))[0]
        self.levels = self.planner.descend(scene, self.spaces, starts, self.generator, steps)
        self.first_levels = self.first_levels or self.levels
        self.last = {found.level: found.plan for found in self.levels} if self.warm else {}
        self.call += 1
        return self.levels[-1].plan

    def rest(self, level: int, horizon: int) -> Tensor:
        """What is left of a level's last plan, as long as its horizon is now."""
        plan, centre = self.last[level], self.spaces[level - 1].centre
        whole, part = divmod(self.done, self.sizes[level - 1])

        def after(steps: int) -> Tensor:
            left = plan.shifted(min(steps, plan.actions.shape[1]), centre)[:, :horizon]
            return torch.cat([left, centre.to(left).expand(len(left), horizon - left.shape[1], -1)], dim=1)

        return torch.lerp(after(whole), after(whole + 1), part / self.sizes[level - 1]) if part else after(whole)

    def keep(self, index: Tensor) -> None:
        """Keep some of the episodes only, (B',) int64."""
        super().keep(index)
        self.last = {level: Plan(plan.actions[index], plan.energy[index]) for level, plan in self.last.items()}
