"""What an agent believes of its first plans, and what becomes of them: the sharpest diagnosis of a world model.

What tells most of a model is where its plans fail. A planner searches for holes in the dynamics, and one that has
found a way through a wall believes to arrive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_lightning.environments import Environment, Tasks
from jepa_lightning.evaluation.probes.classification import standardise
from jepa_lightning.evaluation.probes.regression import choose_penalty, fit_ridge
from jepa_lightning.planning.agent import Agent
from jepa_lightning.planning.levels import TopDownHorizon
from jepa_lightning.planning.policies import simulate
from jepa_lightning.planning.world import World

_PART = 500  # states that are observed and encoded at once


@dataclass(frozen=True)
class Readout:
    """A linear map from states of a world to those of the environment, for looking only.

    Attributes:
        weight: (P, D).
        bias: (P,).
        r2: (P,) share of the variance that it explains, on states that it was not fitted on.
    """

    weight: Tensor
    bias: Tensor
    r2: Tensor

    def __call__(self, states: Tensor) -> Tensor:
        """States (..., S, D) of the world, averaged over tokens, as states (..., P) of the environment."""
        return F.linear(states.mean(-2), self.weight, self.bias)


@torch.no_grad()
def encode_states(world: World, environment: Environment, states: Tensor) -> Tensor:
    """What the world makes of observations of states (N, P): (N, S, D), a part after the other."""
    return torch.cat([world.encode(environment.observe(part)) for part in states.split(_PART)])


@torch.no_grad()
def fit_readouts(
    world: World, environment: Environment, levels: Iterable[int] = (1,), *, samples: int = 2000, seed: int = 0
) -> dict[int, Readout]:
    """Fit ridge regressions on what walks of 8 observations end with, and score them on a quarter as many others.

    Args:
        world: encodes, once for all levels.
        environment: draws the walks.
        levels: of the states that are read.
        samples: number of walks.
        seed: of what is drawn.

    Returns:
        A readout for each level.
    """
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for count in (samples, max(samples // 4, 8)):
        states = environment.wander(count, 8, generator).states[:, -1]
        parts.append((encode_states(world, environment, states), states))
    (train, known), (test, truth) = parts
    found = {}
    for level in levels:
        features, asked = (world.lift(states, level=level).mean(1).cpu() for states in (train, test))
        found[level] = _fit(features, asked, known, truth, device=world.device)
    return found


def _fit(train: Tensor, test: Tensor, known: Tensor, truth: Tensor, *, device: torch.device) -> Readout:
    """Read the environment's states `known` in features (N, D), scored on others."""
    centre, spread = known.mean(0), known.std(0).clamp(min=1e-6)
    scaled, asked = standardise(train, test)
    values = (known - centre) / spread
    weight, bias = fit_ridge(scaled, values, penalty=choose_penalty(scaled, values))
    error = (F.linear(asked, weight, bias) * spread + centre - truth).square().mean(0)
    mean, std = train.mean(0), train.std(0).clamp(min=1e-6)
    weight = weight * spread.unsqueeze(1)  # back to the environment's units, then to features as they are
    bias = bias * spread + centre - (weight / std) @ mean
    return Readout((weight / std).to(device), bias.to(device), 1 - error / truth.var(0, correction=0))


@torch.no_grad()
def believed_and_achieved(
    agent: Agent, environment: Environment, tasks: Tasks, readout: Readout
) -> dict[str, float | int]:
    """Of the first plans: how many lead to the goal in imagination, and how many when they are done blindly.

    Args:
        agent: plans.
        environment: where they are tried.
        tasks: where episodes start and are to end.
        readout: of the imagined states.

    Returns:
        Shares `believed` and `achieved`, and `error`, the mean distance at a plan's end of what was imagined from what
        is true, in the environment's units.
    """
    agent.reset(environment.observe(tasks.goal))
    agent.act(environment.observe(tasks.start))
    plan, world = agent.loop.first, agent.world
    assert plan is not None
    past = agent.memory.past(world.positions)
    imagined = readout(world.imagine(past, plan.actions.unsqueeze(1))[:, 0]).cpu()  # (B, H / frame skip, P)
    true = simulate(environment, tasks.start, plan.actions.cpu())  # (B, H, P)

    def arrive(way: Tensor) -> float:
        return float(environment.reached(way, tasks.goal.unsqueeze(1).expand_as(way)).any(1).float().mean())

    return {
        "believed": arrive(imagined),
        "achieved": arrive(true),
        "error": float(environment.distance(imagined[:, -1], true[:, -1]).mean()),
        "plans": len(true),
    }


@torch.no_grad()
def believed_by_level(
    agent: Agent, environment: Environment, tasks: Tasks, readouts: Mapping[int, Readout]
) -> list[dict[str, Any]]:
    """What each level believes of the first plans, of an agent that plans from the top down; nothing of another.

    Args:
        agent: has planned (`believed_and_achieved`).
        environment: tells what a state is.
        tasks: where the episodes started and were to end.
        readouts: of the states of each level that planned.

    Returns:
        For each level that planned, highest first: its `level` and `horizon`, the environment's `steps` that one of its
        steps stands for, whether it aims at the `goal`, in which level it was `compared` with its aim, its mean
        distance there `before`, and as far as its plan is believed to lead, `planned`; and the share of plans some
        state of which reads as `believed` to be at the goal.
    """
    if not isinstance(agent.loop, TopDownHorizon):
        return []
    found: list[dict[str, Any]] = []
    for one in agent.loop.first_levels:
        way = readouts[one.level](one.states).cpu()  # (B, H, P)
        there = environment.reached(way, tasks.goal.unsqueeze(1).expand_as(way)).any(1)
        row: dict[str, Any] = {"level": one.level, "horizon": one.plan.actions.shape[1]}
        row["steps"] = 1 if one.level == 1 else agent.loop.sizes[one.level - 1]
        row |= {"goal": one.anchored, "compared": one.compared}
        row |= {"before": float(one.before.mean()), "planned": float(one.plan.energy.mean())}
        found.append(row | {"believed": float(there.float().mean())})
    return found
