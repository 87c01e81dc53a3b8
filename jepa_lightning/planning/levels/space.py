"""The macro-actions of an upper level as a space to search."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jepa_lightning.environments.spaces import ActionSpace
from jepa_lightning.hierarchy.levels import MacroPrior


class MacroActions(ActionSpace):
    """Macro-actions near those of training: a search begins at their mean, in steps of their standard deviation.

    What is farther out than their quantiles is clamped: a predictor was never told such macro-actions.

    Args:
        prior: where those of training lie.

    Examples:
        >>> import torch
        >>> from jepa_lightning.hierarchy.levels import MacroPrior
        >>> from jepa_lightning.planning import MacroActions
        >>> one = torch.ones(2)
        >>> space = MacroActions(MacroPrior(mean=one, std=2 * one, low=-3 * one, high=4 * one))
        >>> space.project(torch.tensor([-5.0, 0.5]))
        tensor([-3.0000,  0.5000])
        >>> space.centre, space.scale
        (tensor([1., 1.]), tensor([2., 2.]))
    """

    def __init__(self, prior: MacroPrior) -> None:
        self.prior = prior
        self.dim = len(prior.mean)

    def project(self, actions: Tensor) -> Tensor:
        """Clamp each number to the prior's quantiles."""
        return actions.clamp(self.prior.low.to(actions), self.prior.high.to(actions))

    def sample(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Draw from a Gaussian with the prior's mean and standard deviation, clamped."""
        drawn = torch.randn(*shape, self.dim, generator=generator)
        return self.project(self.prior.mean.cpu() + self.prior.std.cpu() * drawn)

    @property
    def centre(self) -> Tensor:
        """The mean, within the quantiles."""
        return self.project(self.prior.mean)

    @property
    def scale(self) -> Tensor:
        """The standard deviation; of numbers that never varied, almost nothing."""
        return self.prior.std.clamp(min=1e-6)
