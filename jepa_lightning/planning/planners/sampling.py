"""Planners that try candidates: random shooting, the cross-entropy method, path integrals, choices."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_lightning.environments.spaces import ActionSpace, Discrete
from jepa_lightning.planning.planners.base import Energy, Planner, best_of, better_of, elite_of, normal


class RandomShooting(Planner):
    """Draw candidates uniformly from the space, and take the best.

    Args:
        samples: candidates of each episode.
        horizon: steps of a plan.
        hold: steps that an action is held.

    Raises:
        ValueError: a setting is out of range.

    Examples:
        >>> import torch
        >>> from jepa_lightning.environments import Box
        >>> from jepa_lightning.planning import RandomShooting
        >>> planner, space = RandomShooting(samples=500, horizon=1, hold=1), Box([-1.0], [1.0])
        >>> bowl = lambda actions: (actions - 0.5).square().sum((-1, -2))
        >>> plan = planner(bowl, space, planner.start(1, space), torch.Generator().manual_seed(0))
        >>> bool(abs(plan.actions - 0.5) < 0.01)
        True
    """

    def __init__(self, *, samples: int = 1024, horizon: int = 16, hold: int = 1) -> None:
        super().__init__(horizon=horizon, hold=hold)
        check_counts(samples=samples)
        self.samples = samples

    @torch.no_grad()
    def search(
        self, energy: Energy, space: ActionSpace, start: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The best of the start and the candidates."""
        drawn = space.sample((len(start), self.samples, start.shape[1]), generator).to(start)
        candidates = torch.cat([start.unsqueeze(1), drawn], dim=1)
        return best_of(candidates, energy(candidates))


class CEM(Planner):
    """The cross-entropy method: draw from a Gaussian, move it to the best candidates, again (Rubinstein 1999).

    What it returns is the best candidate it has seen, and not the mean of the last Gaussian: the mean of two good ways
    around an obstacle leads into it. Few elites keep to one way.

    Args:
        samples: candidates of each episode and iteration.
        elites: the best so many move the Gaussian.
        iterations: how often it is moved.
        std: its standard deviation at the start, in units of the space's scale.
        min_std: which it does not fall below.
        horizon: steps of a plan.
        hold: steps that an action is held.

    Raises:
        ValueError: a setting is out of range, or the space is one of choices.

    Examples:
        >>> import torch
        >>> from jepa_lightning.environments import Disc
        >>> from jepa_lightning.planning import CEM
        >>> planner, space = CEM(horizon=4, hold=2), Disc(3.0)
        >>> goal = torch.tensor([4.0, 2.0])
        >>> energy = lambda actions: (actions.sum(-2) - goal).norm(dim=-1)  # where the moves lead
        >>> plan = planner(energy, space, planner.start(1, space), torch.Generator().manual_seed(0))
        >>> bool(plan.energy < 0.5)  # of 4.5 without a move
        True
    """

    continuous_only = True

    def __init__(
        self,
        *,
        samples: int = 128,
        elites: int = 8,
        iterations: int = 4,
        std: float = 1.0,
        min_std: float = 0.05,
        horizon: int = 16,
        hold: int = 4,
    ) -> None:
        super().__init__(horizon=horizon, hold=hold)
        check_counts(samples=samples, elites=elites, iterations=iterations)
        if not 2 <= elites <= samples or not 0 < min_std <= std:
            raise ValueError(
                f"expected 2 to {samples} elites and a std of at least min_std, got {elites}, {std} and {min_std}"
            )
        self.samples, self.elites, self.iterations = samples, elites, iterations
        self.std, self.min_std = std, min_std

    @torch.no_grad()
    def search(
        self, energy: Energy, space: ActionSpace, start: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The best candidate seen."""
        batch, knots, dim = start.shape
        scale = space.scale.to(start)
        mean, std = start, (self.std * scale).expand_as(start)
        best = start, energy(start.unsqueeze(1)).squeeze(1)
        for _ in range(self.iterations):
            noise = normal((batch, self.samples, knots, dim), generator, start)
            drawn = space.project(mean.unsqueeze(1) + std.unsqueeze(1) * noise)
            drawn[:, 0] = best[0]
            found = energy(drawn)
            best = better_of(best, best_of(drawn, found))
            elite = elite_of(drawn, found, self.elites)
            mean, std = elite.mean(1), elite.std(1).maximum(self.min_std * scale)
        return best


class MPPI(Planner):
    """Model predictive path integral control: the mean of all candidates, each weighted by its energy (Williams 2017).

    The weight of a candidate is exp(-(energy - lowest) / (temperature x the energies' standard deviation)).

    Deviations: there, the temperature is in units of the energy, which those of latent distances are not known in; and
    what is returned is the better of the last mean and the best candidate seen.

    Args:
        samples: candidates of each episode and iteration.
        iterations: how often the mean is moved.
        temperature: small for the best candidates alone.
        std: of the noise on the mean, in units of the space's scale.
        horizon: steps of a plan.
        hold: steps that an action is held.

    Raises:
        ValueError: a setting is out of range, or the space is one of choices.

    Examples:
        >>> import torch
        >>> from jepa_lightning.environments import Disc
        >>> from jepa_lightning.planning import MPPI
        >>> planner, space = MPPI(horizon=4, hold=2), Disc(3.0)
        >>> goal = torch.tensor([4.0, 2.0])
        >>> energy = lambda actions: (actions.sum(-2) - goal).norm(dim=-1)
        >>> plan = planner(energy, space, planner.start(1, space), torch.Generator().manual_seed(0))
        >>> bool(plan.energy < 0.5)
        True
    """

    continuous_only = True

    def __init__(
        self,
        *,
        samples: int = 128,
        iterations: int = 4,
        temperature: float = 0.1,
        std: float = 0.5,
        horizon: int = 16,
        hold: int = 4,
    ) -> None:
        super().__init__(horizon=horizon, hold=hold)
        check_counts(samples=samples, iterations=iterations)
        if not temperature > 0 or not std > 0:
            raise ValueError(f"expected a positive temperature and std, got {temperature} and {std}")
        self.samples, self.iterations = samples, iterations
        self.temperature, self.std = temperature, std

    @torch.no_grad()
    def search(
        self, energy: Energy, space: ActionSpace, start: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The better of the last mean and the best candidate seen."""
        std = self.std * space.scale.to(start)
        mean = start
        best = start, energy(start.unsqueeze(1)).squeeze(1)
        for _ in range(self.iterations):
            noise = normal((len(start), self.samples, *start.shape[1:]), generator, start)
            drawn = space.project(mean.unsqueeze(1) + std * noise)
            drawn[:, 0] = mean
            found = energy(drawn)
            best = better_of(best, best_of(drawn, found))
            weight = self.weights(found)
            mean = space.project((weight[..., None, None] * drawn).sum(1))
        return better_of(best, (mean, energy(mean.unsqueeze(1)).squeeze(1)))

    def weights(self, energies: Tensor) -> Tensor:
        """The weights (B, S) of candidates of such energies; those that are infinite have none."""
        finite = energies.isfinite()
        lowest = energies.amin(1, keepdim=True).clamp(max=torch.finfo(energies.dtype).max)
        above = torch.where(finite, energies - lowest, 0.0)
        count = finite.sum(1, keepdim=True).clamp(min=1)
        spread = ((above - above.sum(1, keepdim=True) / count).square() * finite).sum(1, keepdim=True) / count
        scaled = above / (self.temperature * spread.sqrt()).clamp(min=torch.finfo(energies.dtype).tiny)
        weight = torch.where(finite, torch.exp(-scaled), 0.0)
        return weight / weight.sum(1, keepdim=True).clamp(min=torch.finfo(energies.dtype).tiny)


class Categorical(Planner):
    """The cross-entropy method on choices: draw each by its probability, move these to the best candidates, again.

    Args:
        samples: candidates of each episode and iteration.
        elites: the best so many move the probabilities.
        iterations: how often they are moved.
        momentum: share of the old probabilities that stays.
        horizon: steps of a plan.
        hold: steps that a choice is held.

    Raises:
        ValueError: a setting is out of range, or the space is not one of choices.

    Examples:
        >>> import torch
        >>> from jepa_lightning.environments import Discrete
        >>> from jepa_lightning.planning import Categorical
        >>> planner, space = Categorical(horizon=3, hold=1), Discrete(4)
        >>> energy = lambda actions: (actions.argmax(-1) - torch.tensor([2, 0, 3])).abs().sum(-1).float()
        >>> plan = planner(energy, space, planner.start(1, space), torch.Generator().manual_seed(0))
        >>> plan.actions.argmax(-1)
        tensor([[2, 0, 3]])
    """

    def __init__(
        self,
        *,
        samples: int = 128,
        elites: int = 16,
        iterations: int = 4,
        momentum: float = 0.2,
        horizon: int = 16,
        hold: int = 1,
    ) -> None:
        super().__init__(horizon=horizon, hold=hold)
        check_counts(samples=samples, elites=elites, iterations=iterations)
        if elites > samples or not 0 < momentum < 1:
            raise ValueError(f"expected at most {samples} elites and a momentum in 0 to 1, got {elites}, {momentum}")
        self.samples, self.elites, self.iterations = samples, elites, iterations
        self.momentum = momentum

    @torch.no_grad()
    def search(
        self, energy: Energy, space: ActionSpace, start: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The best candidate seen; the start is tried, and the search begins with all choices alike."""
        if not isinstance(space, Discrete):
            raise ValueError(f"Categorical searches choices, got the space {type(space).__name__}: use CEM")
        batch, knots, dim = start.shape
        chances = torch.full_like(start, 1 / dim)
        best = start, energy(start.unsqueeze(1)).squeeze(1)
        for _ in range(self.iterations):
            flat = chances.reshape(-1, dim).cpu()
            index = torch.multinomial(flat, self.samples, replacement=True, generator=generator)
            index = index.to(start.device).view(batch, knots, self.samples).transpose(1, 2)
            drawn = torch.nn.functional.one_hot(index, dim).to(start.dtype)
            found = energy(drawn)
            best = better_of(best, best_of(drawn, found))
            elite = elite_of(drawn, found, self.elites)
            chances = self.momentum * chances + (1 - self.momentum) * elite.mean(1)
        return best


def check_counts(**counts: int) -> None:
    """See that settings are at least 1.

    Raises:
        ValueError: one is not; it is named.
    """
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
