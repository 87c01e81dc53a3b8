"""Where an agent is and what it wants, as an energy that also knows its levels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from jepa_lightning.planning.cost import Cost
from jepa_lightning.planning.world import World
from jepa_lightning.predictors.rollout import Past
from jepa_lightning.pretexts import HierarchicalRollout


@dataclass(frozen=True)
class Scene:
    """The energy of actions in the present state of some episodes, and what it is made of.

    Attributes:
        world: imagines.
        past: of B episodes.
        goal: (B, S, D) states of the first level to reach.
        cost: of imagined trajectories.
    """

    world: World
    past: Past
    goal: Tensor
    cost: Cost

    def __call__(self, actions: Tensor) -> Tensor:
        """Energies (B, C) of actions (B, C, H, A) of the first level; see `World.energy`."""
        return self.world.energy(self.past, self.goal, self.cost)(actions)

    def state(self, level: int) -> Tensor:
        """The present state (B, S, D) in a level."""
        return self.world.lift(self.past.states[:, -1], level=level)

    def imagine(self, level: int, actions: Tensor) -> Tensor:
        """The states of a level that follow actions (B, C, H, A) of it: (B, C, H, S, D).

        In the first level actions are those of the environment, and H is divided by a frame skip.
        """
        if level == 1:
            return self.world.imagine(self.past, actions)
        candidates = actions.shape[1]
        state = self.state(level).repeat_interleave(candidates, 0)
        rolled = hierarchy_of(self.world).rollout_at(level, state, actions.flatten(0, 1))
        return rolled.unflatten(0, (-1, candidates))


def hierarchy_of(world: World) -> HierarchicalRollout:
    """The pretext of a world with several levels.

    Raises:
        ValueError: it has one.
    """
    if not isinstance(world.pretext, HierarchicalRollout):
        raise ValueError(
            "expected a world of several levels, trained with the pretext HierarchicalRollout, got one of "
            f"{type(world.pretext).__name__}: use a planner of one level, such as CEM"
        )
    return world.pretext
