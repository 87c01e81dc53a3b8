"""Planning by gradient descent through the world."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_lightning.environments.spaces import ActionSpace
from jepa_lightning.planning.planners.base import Energy, Planner, best_of, better_of, normal
from jepa_lightning.planning.planners.sampling import check_counts


class Gradient(Planner):
    """Adam on the actions, from several starts, with the gradient of the energy through the predictor and the cost.

    After each step actions are projected on the space. The best of all that was seen is returned. It goes downhill: a
    way around an obstacle is found only by a start that lies on it.

    Args:
        restarts: starts of each episode: the given one, and noise around it.
        iterations: steps of Adam.
        learning_rate: in units of the space's scale.
        std: of the noise, in units of the space's scale.
        horizon: steps of a plan.
        hold: steps that an action is held.

    Raises:
        ValueError: a setting is out of range, the space is one of choices, or the energy has no gradient.

    Examples:
        >>> import torch
        >>> from jepa_lightning.environments import Disc
        >>> from jepa_lightning.planning import Gradient
        >>> planner, space = Gradient(iterations=60, horizon=4, hold=2), Disc(3.0)
        >>> goal = torch.tensor([4.0, 2.0])
        >>> energy = lambda actions: (actions.sum(-2) - goal).square().sum(-1)
        >>> plan = planner(energy, space, planner.start(1, space), torch.Generator().manual_seed(0))
        >>> bool(plan.energy < 0.01)
        True
    """

    continuous_only = True

    def __init__(
        self,
        *,
        restarts: int = 8,
        iterations: int = 20,
        learning_rate: float = 0.1,
        std: float = 0.5,
        horizon: int = 16,
        hold: int = 4,
    ) -> None:
        super().__init__(horizon=horizon, hold=hold)
        check_counts(restarts=restarts, iterations=iterations)
        if not learning_rate > 0 or not std > 0:
            raise ValueError(f"expected a positive learning_rate and std, got {learning_rate} and {std}")
        self.restarts, self.iterations = restarts, iterations
        self.learning_rate, self.std = learning_rate, std

    @torch.enable_grad()
    def search(
        self, energy: Energy, space: ActionSpace, start: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The best actions seen on the way of any start."""
        scale = space.scale.to(start)
        noise = normal((len(start), self.restarts, *start.shape[1:]), generator, start) * self.std
        noise[:, 0] = 0
        actions = space.project(start.unsqueeze(1) + noise * scale)
        units = (actions / scale).detach().requires_grad_()
        optimizer = torch.optim.Adam([units], lr=self.learning_rate)
        best: tuple[Tensor, Tensor] | None = None
        for step in range(self.iterations + 1):
            found = energy(units * scale)
            seen = best_of((units * scale).detach(), found.detach())
            best = seen if best is None else better_of(best, seen)
            if step == self.iterations:
                break
            if not found.requires_grad:
                raise ValueError("Gradient needs an energy with a gradient, got one without: use CEM or MPPI")
            units.grad = torch.autograd.grad(torch.where(found.isfinite(), found, 0.0).sum(), units)[0].nan_to_num()
            optimizer.step()
            with torch.no_grad():
                units.copy_(space.project(units * scale) / scale)
        assert best is not None
        return best
