"""Terms on trajectories: variance over samples and over time apart, slowness, straightness."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_lightning.pretexts.base import Outcome
from jepa_lightning.regularizers.base import On, Regularizer, RegularizerSpec
from jepa_lightning.regularizers.vicreg import VICReg
from jepa_lightning.schedules import Schedule

Over = Literal["batch", "time"]


class TrajectoryVICReg(VICReg):
    """VICReg's variance and covariance terms over the samples of a batch, or over the time of a trajectory.

    `VICReg` itself takes the states of all trajectories together, and is content where they differ between trajectories
    alone: a state that holds the scenery, and nothing that moves. Here "time" takes each state's deviation from the
    mean of its trajectory, so that something must vary within them (`std_t` in PLDM: Sobal et al. 2025,
    arXiv:2502.14819); "batch" the deviation from the mean over the batch at each time.

    Args:
        spec: widths, given by the module.
        over: "time" or "batch".
        variance: weight of the variance term.
        covariance: weight of the covariance term.
        target_std: target standard deviation of the variance term.
        on: representations to regularize: context, target or predicted.
        weight: weight of both terms together, a number or a schedule.
        gather: compute statistics over the samples of all ranks instead of each rank's own.

    Raises:
        ValueError: a setting is out of range, or the outcome holds no trajectories.

    Examples:
        >>> import torch
        >>> from jepa_lightning.pretexts import Outcome
        >>> from jepa_lightning.regularizers import RegularizerSpec, TrajectoryVICReg
        >>> from jepa_lightning.tokens import Latents
        >>> still = torch.randn(8, 1, 1, 16).expand(-1, 5, -1, -1).flatten(0, 1)  # 8 states that do not move, 5 times
        >>> outcome = Outcome(context=[Latents(values=still)], actions=torch.zeros(8, 4, 2))
        >>> round(float(TrajectoryVICReg(RegularizerSpec(dim=16, out=16), covariance=0.0)(outcome)), 2)
        0.99
    """

    name = "trajectory_vicreg"

    def __init__(
        self,
        spec: RegularizerSpec,
        *,
        over: Over = "time",
        variance: float = 1.0,
        covariance: float = 0.04,
        target_std: float = 1.0,
        on: On = "context",
        weight: float | Schedule = 1.0,
        gather: bool = False,
    ) -> None:
        if over not in ("batch", "time"):
            raise ValueError(f"over must be batch or time, got {over!r}")
        shared = {"variance": variance, "covariance": covariance, "target_std": target_std}
        super().__init__(spec, on=on, weight=weight, gather=gather, **shared)
        self.over = over
        self.min_samples = 1

    def forward(self, outcome: Outcome) -> Tensor:
        """Weighted sum of the two terms; zero for a single trajectory over the batch, which tells nothing."""
        values = [self.of_states(outcome.by_trajectory(latents)) for latents in self.looked_at(outcome)]
        return values[0] if len(values) == 1 else torch.stack(values).mean()

    def of_states(self, states: Tensor) -> Tensor:
        """The terms of states (B, T, D) in float32."""
        axis = 0 if self.over == "batch" else 1
        with torch.autocast(states.device.type, enabled=False):
            states = states / self.target_std
            if self.over == "time":
                spread = states - states.mean(1, keepdim=True)
                count = self.total(states.new_full((), states.shape[0] * (states.shape[1] - 1)))
                covariance = self.total(torch.einsum("btd,bte->de", spread, spread)).unsqueeze(0) / count
            else:
                samples = self.total(states.new_full((), len(states)))
                spread = states - self.total(states.sum(axis)) / samples
                count = samples - 1
                covariance = self.total(torch.einsum("btd,bte->tde", spread, spread)) / count.clamp(min=1)
            found = self.weighted(covariance.diagonal(dim1=-2, dim2=-1), covariance)
        return torch.where(count > 0, found, 0.0)


class TemporalSimilarity(Regularizer):
    """Mean square distance of successive states: slowness (Wiskott and Sejnowski 2002), a term of PLDM.

    It makes distances of states follow those in time, and lets a state forget what moves: give it a small weight.

    Args:
        spec: widths, given by the module.
        on: which representations: context or target.
        weight: a number or a schedule.

    Raises:
        ValueError: the outcome holds no trajectories.

    Examples:
        >>> import torch
        >>> from jepa_lightning.pretexts import Outcome
        >>> from jepa_lightning.regularizers import RegularizerSpec, TemporalSimilarity
        >>> from jepa_lightning.tokens import Latents
        >>> line = torch.arange(4.0).view(4, 1, 1)  # one trajectory of four states, one apart
        >>> outcome = Outcome(context=[Latents(values=line)], actions=torch.zeros(1, 3, 2))
        >>> float(TemporalSimilarity(RegularizerSpec(dim=1, out=1))(outcome))
        1.0
    """

    name = "temporal_similarity"

    def forward(self, outcome: Outcome) -> Tensor:
        """The mean over states, channels and contexts."""
        steps = [outcome.by_trajectory(latents).diff(dim=1) for latents in self.looked_at(outcome)]
        return torch.stack([step.square().mean() for step in steps]).mean()


class Straightening(Regularizer):
    """One minus the cosine of successive changes of the state: straight ways (Hénaff et al. 2019).

    Where ways are straight, a step of the predictor is easy and distances between states are those along the way.

    Args:
        spec: widths, given by the module.
        on: which representations: context or target.
        weight: a number or a schedule.

    Raises:
        ValueError: the outcome holds no trajectories of at least three states.

    Examples:
        >>> import torch
        >>> from jepa_lightning.pretexts import Outcome
        >>> from jepa_lightning.regularizers import RegularizerSpec, Straightening
        >>> from jepa_lightning.tokens import Latents
        >>> corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]).unsqueeze(1)
        >>> outcome = Outcome(context=[Latents(values=corner)], actions=torch.zeros(1, 2, 2))
        >>> float(Straightening(RegularizerSpec(dim=2, out=2))(outcome))
        1.0
    """

    name = "straightening"

    def forward(self, outcome: Outcome) -> Tensor:
        """The mean over pairs of successive changes, and contexts."""
        bends = []
        for latents in self.looked_at(outcome):
            steps = outcome.by_trajectory(latents).diff(dim=1)
            if steps.shape[1] < 2:
                raise ValueError("Straightening needs trajectories of at least 3 observations: raise data.window")
            bends.append(1 - F.cosine_similarity(steps[:, 1:], steps[:, :-1], dim=-1).mean())
        return torch.stack(bends).mean()
