"""A learned energy of transitions: what follows in the walks, and what never does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_lightning.data.trajectories import blocks
from jepa_lightning.planning.fitting import Standardised, mlp
from jepa_lightning.planning.learned_cost import LearnedCost
from jepa_lightning.planning.walks import Walks
from jepa_lightning.planning.world import World

Corruption = Literal["action", "state", "imagined"]


class TransitionEnergy(LearnedCost):
    """How implausible the imagined transitions are: the mean over time of a free energy E(s, a, s') of at least 0.

    Transitions of the walks are to have a lower one, by a margin, than corrupted ones. It knows nothing of a goal: add
    it to a distance by `WeightedSum`. The first transition of a plan, from the present state, is not scored, since a
    cost is given the states that follow. `World.surprise` needs no fit and scores observed transitions; of a state that
    the same predictor has imagined it has nothing to say. In one room the agent reached fewer goals with it, the fewer
    the larger its weight (docs/world-models.md, "A cost that is learned").

    Args:
        corrupt: what stands in a corrupted transition's place: "action", the action of another one; "state", another
            state of the same episode for the next; "imagined", what the world predicts for the next.
        steps: of the optimiser.
        batch_size: transitions in each.
        learning_rate: the highest.
        width: of the hidden layers.
        depth: number of hidden layers.
        margin: between the two energies.

    Raises:
        ValueError: a setting is out of range; when called: it is not fitted.

    Examples:
        >>> from jepa_lightning.planning import GoalDistance, TransitionEnergy, WeightedSum
        >>> WeightedSum([GoalDistance(), TransitionEnergy()], weights=[1.0, 0.1]).level
        1
    """

    def __init__(
        self,
        *,
        corrupt: Sequence[Corruption] = ("action", "state"),
        steps: int = 1000,
        batch_size: int = 256,
        learning_rate: float = 1e-3,
        width: int = 256,
        depth: int = 2,
        margin: float = 1.0,
    ) -> None:
        super().__init__()
        known = get_args(Corruption)
        if not corrupt or not set(corrupt) <= set(known):
            raise ValueError(f"expected corrupt to name some of {', '.join(known)}, got {list(corrupt)}")
        self.corrupt = list(corrupt)
        how = {"steps": steps, "batch_size": batch_size, "width": width, "depth": depth}
        self.configure(**how, learning_rate=learning_rate, margin=margin)

    def build(self, walks: Walks) -> nn.Module:
        """See `LearnedCost.build`."""
        states, actions = Standardised(walks.states.flatten(1)), Standardised(walks.actions[walks.follows])
        size = 3 * len(states.mean) + len(actions.mean)
        return _OfTransitions(states, actions, mlp([size, *[self.width] * self.depth, 1]))

    def pairs(self, world: World, walks: Walks, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """See `LearnedCost.pairs`."""
        states, actions, following = walks.states[index], walks.actions[index], walks.goals[index + 1]
        found = []
        for kind in self.corrupt:
            act, end = actions, following
            if kind == "action":
                act = actions.roll(1, 0)
            elif kind == "state":
                end = walks.goals[walks.same_episode(index, generator)]
            else:
                done = actions.unflatten(-1, (world.frame_skip, -1)).unsqueeze(1)
                end = world.imagine(walks.past(index, world), done)[:, 0, 0]
            found.append(self.computed(states, act, end))
        return self.computed(states, actions, following), torch.stack(found)

    def forward(self, states: Tensor, actions: Tensor, goal: Tensor) -> Tensor:
        """See `Cost.forward`; zeros where there is one state only."""
        if states.shape[-3] == 1:
            return states.new_zeros(states.shape[:-3])
        done = blocks(actions, actions.shape[-2] // states.shape[-3])
        return self.computed(states[..., :-1, :, :], done[..., 1:, :].to(states), states[..., 1:, :, :]).mean(-1)


class _OfTransitions(nn.Module):
    """Energies (...) of transitions: states (..., S, D), actions (..., A), next states (..., S, D)."""

    def __init__(self, states: Standardised, actions: Standardised, layers: nn.Module) -> None:
        super().__init__()
        self.states, self.actions, self.layers = states, actions, layers

    def forward(self, states: Tensor, actions: Tensor, following: Tensor) -> Tensor:
        here, there = (self.states(part.flatten(-2).float()) for part in (states, following))
        seen = torch.cat([here, there, there - here, self.actions(actions)], dim=-1)
        return F.softplus(self.layers(seen)).squeeze(-1)
