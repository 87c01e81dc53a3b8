"""What every planner is: it minimises a function of action sequences, and knows nothing else of a world."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_lightning.environments.spaces import ActionSpace

Energy = Callable[[Tensor], Tensor]
"""Actions (B, S, H, A) of S candidates for each of B episodes to their energies (B, S); lower is better."""


@dataclass(frozen=True)
class Plan:
    """What a planner found.

    Attributes:
        actions: (B, H, A), within the space.
        energy: (B,) of these.
    """

    actions: Tensor
    energy: Tensor

    def shifted(self, steps: int, fill: Tensor) -> Tensor:
        """The actions that are left after `steps`, with `fill` (A,) at the end: (B, H, A), to start the next search."""
        rest = self.actions[:, steps:]
        end = fill.to(rest).expand(len(rest), self.actions.shape[1] - rest.shape[1], -1)
        return torch.cat([rest, end], dim=1)


class Planner(ABC):
    """Searches action sequences of low energy, for all episodes of a batch at once.

    A search is over `horizon` / `hold` actions, each held for `hold` steps: fewer numbers to find, and candidates
    that get somewhere. The start is among the candidates, so a plan is never worse than the one it starts from.
    Energies that are NaN count as infinite.

    Args:
        horizon: steps H of a plan.
        hold: steps that an action is held; must divide the horizon.

    Raises:
        ValueError: a setting is out of range.
    """

    continuous_only: bool = False
    """Whether it needs actions that can be averaged or moved a little."""

    def __init__(self, *, horizon: int, hold: int) -> None:
        if horizon < 1 or hold < 1 or horizon % hold:
            raise ValueError(f"expected a horizon that is a multiple of hold, got {horizon} and {hold}")
        self.horizon = horizon
        self.hold = hold

    def start(self, batch: int, space: ActionSpace, device: torch.device | str = "cpu") -> Tensor:
        """Where a search begins that has nothing better: the centre of the space, (B, H, A)."""
        return space.centre.to(device).repeat(batch, self.horizon, 1)

    def __call__(self, energy: Energy, space: ActionSpace, start: Tensor, generator: torch.Generator) -> Plan:
        """Find a plan.

        Args:
            energy: of actions (B, S, H, A); called on `start`'s device.
            space: of the actions.
            start: (B, H, A), best the last plan, shifted.
            generator: on the CPU; whatever is drawn comes from it.

        Raises:
            ValueError: the start does not fit, or the space is one that the planner cannot search.
        """
        if start.ndim != 3 or start.shape[1:] != (self.horizon, space.dim):
            raise ValueError(
                f"expected a start (B, {self.horizon}, {space.dim}), horizon and width of an action, got "
                f"{tuple(start.shape)}"
            )
        if self.continuous_only and space.choices:
            raise ValueError(f"{type(self).__name__} needs actions in a continuum, got choices: use Categorical")

        def of_knots(knots: Tensor) -> Tensor:
            found = energy(knots.repeat_interleave(self.hold, dim=-2))
            if found.shape != knots.shape[:2]:
                raise ValueError(f"expected energies {tuple(knots.shape[:2])}, got {tuple(found.shape)}")
            return torch.where(found.isnan(), math.inf, found)

        knots, value = self.search(of_knots, space, space.project(start[:, :: self.hold]), generator)
        return Plan(knots.repeat_interleave(self.hold, dim=1), value)

    @abstractmethod
    def search(
        self, energy: Energy, space: ActionSpace, start: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The best actions (B, K, A) found and their energies (B,), for an energy of (B, S, K, A) from (B, K, A)."""


def normal(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal numbers from the CPU's generator on another tensor's device."""
    return torch.randn(shape, generator=generator).to(like)


def best_of(actions: Tensor, energies: Tensor) -> tuple[Tensor, Tensor]:
    """The candidate of lowest energy of each episode: (B, K, A) and (B,) of (B, S, K, A) and (B, S)."""
    value, index = energies.min(dim=1)
    return actions[torch.arange(len(actions), device=actions.device), index], value


def elite_of(actions: Tensor, energies: Tensor, count: int) -> Tensor:
    """The `count` candidates of lowest energy of each episode: (B, count, K, A) of (B, S, K, A) and (B, S)."""
    chosen = energies.topk(count, dim=1, largest=False).indices
    return actions.gather(1, chosen[..., None, None].expand(-1, -1, *actions.shape[2:]))


def better_of(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """For each episode the plan of lower energy, the first where both are alike."""
    wins = other[1] < one[1]
    return torch.where(wins[:, None, None], other[0], one[0]), torch.where(wins, other[1], one[1])
