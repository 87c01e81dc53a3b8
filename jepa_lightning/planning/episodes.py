"""Closed loop: episodes of a policy in an environment, and what became of them."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_lightning.environments import Environment, Tasks
from jepa_lightning.evaluation.probes.protocols import interval, wilson
from jepa_lightning.planning.policies import Policy


@dataclass(frozen=True)
class Outcomes:
    """What became of episodes.

    Attributes:
        steps: (N,) int64 after which each goal was reached; 0 where it was not.
        decisions: how many actions were chosen.
        plans: how many plans were made for them.
        seconds: of computing that the policy took for them.
        returns: (N,) sums of the rewards of each episode; None where nothing is rewarded.
    """

    steps: Tensor
    decisions: int
    plans: int
    seconds: float
    returns: Tensor | None = None

    @property
    def reached(self) -> Tensor:
        """(N,) bool."""
        return self.steps > 0

    def summary(self) -> dict[str, float | int | list[float] | None]:
        """Success, its interval, steps to the goal and milliseconds an action and a plan, as plain numbers.

        `return` and `return_interval` (Student's t, 95%) where there are rewards.
        """
        count, total = int(self.reached.sum()), len(self.steps)
        rewarded: dict[str, float | list[float]] = {}
        if self.returns is not None:
            found = interval(self.returns.double().numpy()) if total > 1 else None
            rewarded["return"] = float(self.returns.double().mean())
            rewarded["return_interval"] = [found.low, found.high] if found else [float("nan")] * 2
        return {
            **rewarded,
            "success": count / total,
            "interval": list(wilson(count, total)),
            "reached": count,
            "episodes": total,
            "steps": float(self.steps[self.reached].float().mean()) if count else None,
            "ms_an_action": 1000 * self.seconds / max(self.decisions, 1),
            "ms_a_plan": 1000 * self.seconds / self.plans if self.plans else None,
        }


@torch.no_grad()
def run_episodes(environment: Environment, tasks: Tasks, policy: Policy, *, budget: int) -> Outcomes:
    """Let a policy act until each goal is reached, or the budget is spent.

    An episode ends at the first step after which its goal counts as reached, or with the budget alone where the
    environment's do not end there (`Environment.ends`).

    Args:
        environment: to act in.
        tasks: where episodes start and are to end; none of them solved at the start.
        policy: acts.
        budget: steps of an episode, at most.
    """
    policy.reset(environment, tasks)
    states, goals = tasks.start, tasks.goal
    steps = torch.zeros(len(states), dtype=torch.int64)
    running = torch.arange(len(states))
    seconds, decisions = 0.0, 0
    returns: Tensor | None = None
    for step in range(1, budget + 1):
        if not len(running):
            break
        began = time.process_time()
        actions = environment.space.project(policy.act(states))
        seconds += time.process_time() - began
        decisions += len(running)
        after, rewards = environment.transition(states, actions)
        if rewards is not None:
            returns = torch.zeros(len(steps)) if returns is None else returns
            returns[running] += rewards
        states = after
        there = environment.reached(states, goals)
        first = running[there]
        steps[first] = torch.where(steps[first] == 0, step, steps[first])
        left = torch.nonzero(~there if environment.ends else torch.ones_like(there)).squeeze(1)
        if len(left) < len(running):
            running, states, goals = running[left], states[left], goals[left]
            policy.keep(left)
    return Outcomes(steps, decisions, policy.plans, seconds, returns)


def unsolved(environment: Environment, tasks: Tasks) -> tuple[Tasks, int]:
    """The tasks that are not solved where they start, and how many were."""
    open_ = ~environment.reached(tasks.start, tasks.goal)
    return Tasks(tasks.start[open_], tasks.goal[open_]), int((~open_).sum())
