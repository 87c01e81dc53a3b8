"""Costs: how good an imagined trajectory is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Reduce = Literal["min", "mean", "last"]


class Cost(nn.Module, ABC):
    """The energy of imagined trajectories; lower is better. Gradients flow through it."""

    level: int | None = None
    """Of the states that it is given, of a world with several levels; None where it looks at none, or at the first."""

    @abstractmethod
    def forward(self, states: Tensor, actions: Tensor, goal: Tensor) -> Tensor:
        """Energies of trajectories.

        Args:
            states: (..., H, S, D) that follow the actions.
            actions: (..., H, A) in the environment's units.
            goal: (..., S, D) the state to reach, which may be broadcast over candidates.

        Returns:
            (...).
        """


class DistanceCost(Cost):
    """A cost of distances to the goal, over time as `GoalDistance` says.

    Args:
        reduce: over time: min, mean or last.
        mean_weight: of the mean beside the minimum.

    Raises:
        ValueError: a setting is out of range.
    """

    def __init__(self, *, reduce: Reduce, mean_weight: float) -> None:
        super().__init__()
        if reduce not in ("min", "mean", "last"):
            raise ValueError(f"reduce must be min, mean or last, got {reduce!r}")
        if not mean_weight >= 0:
            raise ValueError(f"mean_weight must be at least 0, got {mean_weight}")
        self.reduce = reduce
        self.mean_weight = mean_weight

    @abstractmethod
    def distance(self, states: Tensor, goal: Tensor) -> Tensor:
        """Distances (...) of states (..., S, D) to goals (..., S, D), which may be broadcast."""

    def forward(self, states: Tensor, actions: Tensor, goal: Tensor) -> Tensor:
        """See `Cost.forward`."""
        return self.over_time(self.distance(states, goal.unsqueeze(-3)))

    def over_time(self, distance: Tensor) -> Tensor:
        """Distances (..., H) as an energy (...)."""
        if self.reduce == "last":
            return distance[..., -1]
        mean = distance.mean(-1)
        return mean if self.reduce == "mean" else distance.amin(-1) + self.mean_weight * mean


class GoalDistance(DistanceCost):
    """How far a trajectory stays from the goal: the root mean square over channels of state - goal.

    "min" is for reaching the goal at some time, wherever it leads later; with it, `mean_weight` times the mean over
    time pulls before anything is near. "last" is for being there at the end, "mean" for being near all the time, at the
    price of detours.

    A world with several levels (`HierarchicalRollout`) may be planned with in its first level and scored in a level
    above it: imagined states and the goal are re-encoded up to `level`, each of them. What an upper level keeps changes
    slowly, and its distances may tell more of the way that is left (the "cost ladder" of H-JEPA: Zhang et al. 2026,
    arXiv:2610.06805).

    Args:
        reduce: over time: min, mean or last.
        mean_weight: of the mean beside the minimum.
        level: of the states that are compared, from 1.

    Raises:
        ValueError: a setting is out of range.

    Examples:
        >>> import torch
        >>> from jepa_lightning.planning import GoalDistance
        >>> states = torch.tensor([3.0, 1.0, 2.0]).view(3, 1, 1)
        >>> float(GoalDistance(reduce="last")(states, torch.zeros(3, 2), torch.zeros(1, 1)))
        2.0
    """

    level: int

    def __init__(self, *, reduce: Reduce = "min", mean_weight: float = 0.02, level: int = 1) -> None:
        super().__init__(reduce=reduce, mean_weight=mean_weight)
        if level < 1:
            raise ValueError(f"level must be at least 1, got {level}")
        self.level = level

    def distance(self, states: Tensor, goal: Tensor) -> Tensor:
        """See `DistanceCost.distance`."""
        return (states - goal).square().mean((-1, -2)).clamp(min=1e-12).sqrt()


class ActionPenalty(Cost):
    """The mean over time of the squared length of actions, in units of the space's scale where it is given.

    Args:
        scale: what counts as a length of one, for each number of an action.

    Examples:
        >>> import torch
        >>> from jepa_lightning.planning import ActionPenalty
        >>> float(ActionPenalty(scale=[2.0, 2.0])(torch.zeros(1, 1, 1), torch.tensor([[2.0, 0.0]]), torch.zeros(1, 1)))
        1.0
    """

    scale: Tensor

    def __init__(self, *, scale: Sequence[float] = (1.0,)) -> None:
        super().__init__()
        if not scale or min(scale) <= 0:
            raise ValueError(f"expected a positive scale for each number of an action, got {list(scale)}")
        self.register_buffer("scale", torch.tensor(list(scale), dtype=torch.float32))

    def forward(self, states: Tensor, actions: Tensor, goal: Tensor) -> Tensor:
        """See `Cost.forward`."""
        return (actions / self.scale.to(actions)).square().sum(-1).mean(-1)


class WeightedSum(Cost):
    """Several costs, each with a weight.

    Args:
        costs: what is added.
        weights: of each.

    Raises:
        ValueError: their numbers differ, or they compare states of different levels.

    Examples:
        >>> import torch
        >>> from jepa_lightning.planning import ActionPenalty, GoalDistance, WeightedSum
        >>> cost = WeightedSum([GoalDistance(reduce="last"), ActionPenalty()], weights=[1.0, 0.5])
        >>> float(cost(torch.ones(1, 1, 1), torch.ones(1, 2), torch.zeros(1, 1)))
        2.0
    """

    def __init__(self, costs: list[Cost], *, weights: list[float]) -> None:
        super().__init__()
        if not costs or len(costs) != len(weights):
            raise ValueError(f"expected a weight for each of {len(costs)} costs, got {len(weights)}")
        levels = {cost.level for cost in costs if cost.level is not None}
        if len(levels) > 1:
            raise ValueError(f"expected costs that compare states of one level, got levels {sorted(levels)}")
        self.level = levels.pop() if levels else None
        self.costs = nn.ModuleList(costs)
        self.weights = list(weights)

    def forward(self, states: Tensor, actions: Tensor, goal: Tensor) -> Tensor:
        """See `Cost.forward`."""
        found = [w * cost(states, actions, goal) for w, cost in zip(self.weights, self.costs, strict=True)]
        return torch.stack(found).sum(0)
