"""How well a world model's surprise tells true transitions from broken ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_lightning.environments import Environment, Wandering
from jepa_lightning.evaluation.auroc import detect
from jepa_lightning.planning.world import World

_PART = 500  # walks that are encoded at once


@dataclass(frozen=True)
class Broken:
    """Walks whose last transition is broken.

    Attributes:
        name: of what is wrong.
        index: (n,) int64, the walks that could be broken in this way.
        last: (n, P) their last states.
        action: (n, k, A) their last block of k actions.
    """

    name: str
    index: Tensor
    last: Tensor
    action: Tensor


def break_walks(
    environment: Environment, walks: Wandering, generator: torch.Generator, *, frame_skip: int = 1
) -> Iterator[Broken]:
    """Break the last transition of walks (N, T, ...), in each way that there is.

    "teleport" puts an earlier state of the same walk in the last one's place, "other action" another walk's actions in
    the place of the last `frame_skip` ones; the environment knows others (`Environment.violations`).
    """
    count, length = walks.states.shape[:2]
    every = torch.arange(count)
    last, action = walks.states[:, -1], walks.actions[:, -frame_skip:]
    when = torch.randint(max(length // 2, 1), (count,), generator=generator)
    yield Broken("teleport", every, walks.states[every, when], action)
    yield Broken("other action", every, last, action.roll(int(torch.randint(1, count, (), generator=generator)), 0))
    for name, (index, states) in environment.violations(walks.states[:, -2], action[:, -1], last).items():
        yield Broken(name, index, states, action[index])


def detection(
    world: World, environment: Environment, *, walks: int = 2000, length: int = 9, seed: int = 0
) -> dict[str, dict[str, float | int]]:
    """AUROC of `World.surprise` on broken transitions against the same ones unbroken.

    0.5 is chance. The interval is the bootstrap's over walks (95%, percentiles).

    Args:
        world: is surprised.
        environment: draws the walks and breaks them.
        walks: number of walks.
        length: observations of a walk, as the world takes them, a frame skip apart; only the last transition is
            scored.
        seed: of what is drawn.

    Returns:
        `auroc`, `low`, `high` and the number of `transitions` by what is wrong; what fewer than 20 walks show is left
        out.
    """
    generator = torch.Generator().manual_seed(seed)
    skip = world.frame_skip
    drawn = environment.wander(walks, (length - 1) * skip + 1, generator)
    true = _last_surprise(world, environment, drawn.states, drawn.actions)
    found: dict[str, dict[str, float | int]] = {}
    for broken in break_walks(environment, drawn, generator, frame_skip=skip):
        if len(broken.index) < 20:
            continue
        states = torch.cat([drawn.states[broken.index, :-1], broken.last.unsqueeze(1)], 1)
        actions = torch.cat([drawn.actions[broken.index, :-skip], broken.action], 1)
        scores = _last_surprise(world, environment, states, actions)
        told = detect(true[broken.index], scores, seed=seed)
        found[broken.name] = {"auroc": told.auroc, "low": told.low, "high": told.high, "transitions": told.pairs}
    return found


def _last_surprise(world: World, environment: Environment, states: Tensor, actions: Tensor) -> Tensor:
    """(N,) surprise of the last transitions of walks; what the predictor does not look back on is not encoded."""
    steps = world.history * world.frame_skip
    seen = states[:, -1 - steps :: world.frame_skip]
    parts = zip(seen.split(_PART), actions[:, -steps:].split(_PART), strict=True)
    return torch.cat([world.surprise(environment.observe(part), done)[:, -1].cpu() for part, done in parts])
