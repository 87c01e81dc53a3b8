"""A learned distance to the goal: what lies before what in the walks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jepa_lightning.planning.cost import DistanceCost, Reduce
from jepa_lightning.planning.fitting import Standardised, mlp
from jepa_lightning.planning.learned_cost import LearnedCost
from jepa_lightning.planning.walks import Walks, below
from jepa_lightning.planning.world import World


class TemporalDistance(LearnedCost, DistanceCost):
    """How many steps lie between a state and the goal, as far as the order of the walks' states tells.

    Of two states of a walk before a third one, the later is to be nearer to it by a margin. The distance is one of two
    embeddings, so that a goal is at distance zero from itself: the root mean square between their first halves, and by
    how much the state's second half exceeds the goal's at most, which lets the way back be longer than the way there
    (a metric residual network: Liu et al. 2023, arXiv:2208.08133).

    Args:
        reduce: over time, as of `GoalDistance`: min, mean or last.
        mean_weight: of the mean beside the minimum.
        steps: of the optimiser.
        batch_size: triples of states in each.
        learning_rate: the highest.
        width: of the hidden layers, and of each half of an embedding.
        depth: number of hidden layers.
        margin: between the two distances.

    Raises:
        ValueError: a setting is out of range; when called: it is not fitted.

    Examples:
        >>> from jepa_lightning.planning import TemporalDistance
        >>> TemporalDistance(reduce="mean").fitted
        False
    """

    def __init__(
        self,
        *,
        reduce: Reduce = "min",
        mean_weight: float = 0.02,
        steps: int = 1000,
        batch_size: int = 256,
        learning_rate: float = 1e-3,
        width: int = 64,
        depth: int = 2,
        margin: float = 1.0,
    ) -> None:
        super().__init__(reduce=reduce, mean_weight=mean_weight)
        how = {"steps": steps, "batch_size": batch_size, "width": width, "depth": depth}
        self.configure(**how, learning_rate=learning_rate, margin=margin)

    def build(self, walks: Walks) -> nn.Module:
        """See `LearnedCost.build`."""
        scale = Standardised(walks.states.flatten(1))
        return nn.Sequential(scale, mlp([len(scale.mean), *[self.width] * self.depth, 2 * self.width]))

    def pairs(self, world: World, walks: Walks, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """See `LearnedCost.pairs`."""
        last = walks.last[index]
        later = index + 1 + below(last - index, generator)
        goal = later + below(last + 1 - later, generator)
        seen = torch.cat([walks.states[torch.cat([index, later])], walks.goals[goal]])
        before, after, there = self.embedded(seen).chunk(3)
        return self.between(after, there), self.between(before, there)

    def distance(self, states: Tensor, goal: Tensor) -> Tensor:
        """See `DistanceCost.distance`."""
        return self.between(self.embedded(states), self.embedded(goal))

    def embedded(self, states: Tensor) -> Tensor:
        """Embeddings (..., 2 width) of states (..., S, D)."""
        return self.computed(states.flatten(-2).float())

    def between(self, here: Tensor, there: Tensor) -> Tensor:
        """Distances (...) from embeddings to embeddings."""
        apart, excess = (here - there).chunk(2, dim=-1)
        return apart.square().mean(-1).clamp(min=1e-12).sqrt() + excess.relu().amax(-1)
