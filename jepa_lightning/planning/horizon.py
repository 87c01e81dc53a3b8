"""Receding horizon: plan, do the first actions, plan again."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from jepa_lightning.environments.spaces import ActionSpace
from jepa_lightning.planning.planners.base import Energy, Plan, Planner, best_of


class RecedingHorizon:
    """Executes the first actions of a plan, then plans again from the rest of it.

    Args:
        planner: finds plans.
        space: of the actions.
        execute: actions of a plan that are done before the next one is made.
        seed: of what the planner draws.
        warm: start a search from the last plan, shifted; False: from the centre of the space.

    Attributes:
        plan: the last one made, None before the first.
        plans: how many were made, of all episodes.
        first: the first plan of the episodes.

    Raises:
        ValueError: `execute` is not within 1 and the planner's horizon.
    """

    def __init__(
        self, planner: Planner, space: ActionSpace, *, execute: int = 4, seed: int = 0, warm: bool = True
    ) -> None:
        if not 1 <= execute <= planner.horizon:
            raise ValueError(f"expected to execute 1 to {planner.horizon} actions, the horizon, got {execute}")
        self.planner = planner
        self.space = space
        self.execute = execute
        self.seed = seed
        self.warm = warm
        self.reset()

    def reset(self) -> None:
        """New episodes begin."""
        self.plan: Plan | None = None
        self.first: Plan | None = None
        self.done = 0  # actions of the plan
        self.plans = 0
        self.generator = torch.Generator().manual_seed(self.seed)

    @property
    def due(self) -> bool:
        """Whether the next action needs a new plan."""
        return self.plan is None or self.done == self.execute

    def act(
        self,
        energy: Callable[[], Energy],
        batch: int,
        device: torch.device | str = "cpu",
        *,
        proposal: Callable[[], Tensor] | None = None,
    ) -> Tensor:
        """The next action of each episode, (B, A).

        Args:
            energy: makes the energy from the present state; called where a plan is due.
            batch: B, the episodes.
            device: where the energy is computed.
            proposal: makes actions (B, H, A) where a plan is due; the search begins with them where they are better
                than what it would begin with.
        """
        if self.due:
            self.plan = self.find(energy(), batch, device, proposal=proposal)
            self.first = self.first or self.plan
            self.done = 0
            self.plans += batch
        assert self.plan is not None
        self.done += 1
        return self.plan.actions[:, self.done - 1]

    def find(
        self,
        energy: Energy,
        batch: int,
        device: torch.device | str = "cpu",
        *,
        proposal: Callable[[], Tensor] | None = None,
    ) -> Plan:
        """Make a plan; see `act`."""
        start = self.planner.start(batch, self.space, device)
        if self.plan is not None and self.warm:
            start = self.plan.shifted(self.done, self.space.centre).to(device)
        if proposal is not None:
            both = torch.stack([start, self.space.project(proposal().to(start))], dim=1)
            start = best_of(both, energy(both))[0]
        return self.planner(energy, self.space, start, self.generator)

    def keep(self, index: Tensor) -> None:
        """Keep some of the episodes only, (B',) int64."""
        if self.plan is not None:
            self.plan = Plan(self.plan.actions[index], self.plan.energy[index])
