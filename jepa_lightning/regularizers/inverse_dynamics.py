"""Inverse dynamics: which action led from one state to the next."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_lightning.pretexts.base import Outcome
from jepa_lightning.regularizers.base import On, Regularizer, RegularizerSpec
from jepa_lightning.schedules import Schedule


class InverseDynamics(Regularizer):
    """Mean squared error of an MLP that tells the action between two successive states from both.

    It keeps in the state what actions change (Pathak et al. 2017, arXiv:1705.05363; a term of PLDM: Sobal et al. 2025,
    arXiv:2502.14819), which variance terms alone do not: they are content with scenery. Actions are those of the
    outcome, which `Rollout` standardises, so the value is the share of their variance that is not told: 1 where the
    state knows nothing of actions.

    Args:
        spec: widths, given by the module; it needs that of an action.
        width: of the hidden layers.
        depth: number of hidden layers, each followed by GELU.
        linear: a linear map of both states in place of the MLP. It asks for a state that an action shifts by the same
            amount wherever it is done, as it does a place; that is learned sooner, and distances keep their meaning.
        on: which representations: context or target.
        weight: a number or a schedule. Too small a weight never leaves the plateau at 1.

    Raises:
        ValueError: a setting is out of range, or the pretext has no actions.

    Examples:
        >>> import torch
        >>> from jepa_lightning.pretexts import Outcome
        >>> from jepa_lightning.regularizers import InverseDynamics, RegularizerSpec
        >>> from jepa_lightning.tokens import Latents
        >>> inverse = InverseDynamics(RegularizerSpec(dim=16, out=16, actions=2), width=32)
        >>> outcome = Outcome(context=[Latents(values=torch.randn(12, 1, 16))], actions=torch.randn(3, 3, 2))
        >>> inverse(outcome).shape
        torch.Size([])
    """

    name = "inverse_dynamics"

    def __init__(
        self,
        spec: RegularizerSpec,
        *,
        width: int = 256,
        depth: int = 2,
        linear: bool = False,
        on: On = "context",
        weight: float | Schedule = 1.0,
    ) -> None:
        super().__init__(spec, on=on, weight=weight)
        if min(width, depth) < 1:
            raise ValueError(f"width and depth must be at least 1, got {width} and {depth}")
        if not spec.actions:
            raise ValueError("InverseDynamics tells actions, and this pretext has none: use the pretext Rollout")
        sizes = [2 * self.dim] + ([] if linear else [width] * depth)
        layers = [nn.Sequential(nn.Linear(before, after), nn.GELU()) for before, after in pairwise(sizes)]
        self.head = nn.Sequential(*layers, nn.Linear(sizes[-1], spec.actions))

    def forward(self, outcome: Outcome) -> Tensor:
        """The mean over transitions, channels of the action, and contexts."""
        errors = []
        for latents in self.looked_at(outcome):
            states = outcome.by_trajectory(latents)
            pairs = torch.cat([states[:, :-1], states[:, 1:]], dim=-1)
            told = self.head(pairs.to(self.head[-1].weight.dtype))  # type: ignore[arg-type]
            errors.append(F.mse_loss(told.float(), outcome.actions.float()))  # type: ignore[union-attr]
        return torch.stack(errors).mean()
