"""Costs with a network, which are fitted to a world on its walks."""

from __future__ import annotations

import copy
from abc import abstractmethod

import torch
from torch import Tensor, nn

from jepa_lightning.planning.cost import Cost
from jepa_lightning.planning.fitting import check_fitting, minimise
from jepa_lightning.planning.walks import Walks, draw
from jepa_lightning.planning.world import World


class LearnedCost(Cost):
    """A cost with a network, which is fitted to a world after training: LeCun's trainable critic (2022, section 3.1).

    The world's states stay as they are. A margin loss pushes the energy of what the walks show below that of what they
    do not show (LeCun et al. 2006, "A tutorial on energy-based learning": hinge loss).
    """

    level = 1
    steps: int
    batch_size: int
    learning_rate: float
    margin: float
    network: nn.Module | None

    def configure(
        self, *, steps: int, batch_size: int, learning_rate: float, width: int, depth: int, margin: float
    ) -> None:
        """Keep the settings of the fit.

        Raises:
            ValueError: a setting is out of range.
        """
        check_fitting(steps, batch_size, learning_rate)
        if min(width, depth) < 1 or not margin > 0:
            raise ValueError(
                f"expected width and depth of at least 1 and a positive margin, got {width}, {depth} and {margin}"
            )
        self.steps, self.batch_size, self.learning_rate = steps, batch_size, learning_rate
        self.width, self.depth, self.margin = width, depth, margin
        self.network = None

    @property
    def fitted(self) -> bool:
        """Whether it knows a world."""
        return self.network is not None

    def fit(self, world: World, walks: Walks, *, seed: int = 0) -> None:
        """Fit the cost to a world, from nothing, whatever it was fitted to before.

        Args:
            world: whose states it scores.
            walks: of that world, encoded (`encode_walks`).
            seed: of the weights and of what is drawn.

        Raises:
            ValueError: no observation of the walks has a next one.
        """
        follows, generator = walks.follows, torch.Generator().manual_seed(seed)
        if not len(follows):
            raise ValueError("expected walks of at least two observations to fit a cost to, got none")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = self.build(walks).to(world.device)
        self.network = network.train()

        def loss() -> Tensor:
            real, other = self.pairs(world, walks, draw(follows, self.batch_size, generator), generator)
            return (self.margin + real - other).relu().mean()

        minimise(network.parameters(), loss, steps=self.steps, learning_rate=self.learning_rate)
        network.requires_grad_(False).eval()

    @abstractmethod
    def build(self, walks: Walks) -> nn.Module:
        """The network, with fresh weights."""

    @abstractmethod
    def pairs(self, world: World, walks: Walks, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Energies of what should be low, and of what should be higher by the margin; both (..., n).

        Args:
            world: of the walks.
            walks: what is shown.
            index: (n,) observations, each of which another one follows.
            generator: of what is drawn.
        """

    def computed(self, *given: Tensor) -> Tensor:
        """What the network makes of what it is given."""
        if self.network is None:
            raise ValueError(
                f"expected a {type(self).__name__} that is fitted to the world, got a new one: call "
                "cost.fit(world, encode_walks(world, world.data())) first"
            )
        found: Tensor = self.network(*given)
        return found


def learned(cost: Cost) -> list[LearnedCost]:
    """The learned costs in a cost: itself, and those of a sum."""
    return [part for part in cost.modules() if isinstance(part, LearnedCost)]


def fitted_to(cost: Cost, world: World, walks: Walks, *, seed: int = 0, again: bool = False) -> Cost:
    """A copy of a cost whose learned costs are fitted to a world, or the cost itself if nothing is to be fitted.

    Args:
        cost: stays as it is.
        world: see `LearnedCost.fit`.
        walks: of that world.
        seed: of the fits.
        again: fit those, too, that are fitted already.
    """
    if all(part.fitted and not again for part in learned(cost)):
        return cost
    copied = copy.deepcopy(cost)
    for part in learned(copied):
        if again or not part.fitted:
            part.fit(world, walks, seed=seed)
    return copied
