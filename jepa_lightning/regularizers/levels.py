"""A regularizer of the levels above the first."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from jepa_lightning.pretexts.base import Outcome
from jepa_lightning.regularizers.base import Regularizer, RegularizerFactory, RegularizerSpec
from jepa_lightning.regularizers.sigreg import SIGReg


class UpperLevels(Regularizer):
    """The sum of a regularizer over the levels above the first, of a pretext that has some (`HierarchicalRollout`).

    Each level has a regularizer of its own, which sees that level's states, and its macro-actions, without gradient, as
    actions. Other regularizers see the first level alone. The weight is that of the regularizer.

    Args:
        spec: widths, given by the module; it needs those of the macro-actions.
        regularizer: builds the regularizer of one level.

    Raises:
        ValueError: the pretext has no levels above the first.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from jepa_lightning.pretexts import Outcome
        >>> from jepa_lightning.regularizers import RegularizerSpec, UpperLevels, VICReg
        >>> from jepa_lightning.tokens import Latents
        >>> spec = RegularizerSpec(dim=8, out=8, actions=2, upper_actions=(4,))
        >>> upper = UpperLevels(spec, regularizer=partial(VICReg, covariance=0.0, weight=0.5))
        >>> upper.name, upper.weight
        ('upper_vicreg', 0.5)
        >>> still = Outcome(context=[Latents(values=torch.zeros(12, 1, 8))], actions=torch.zeros(4, 2, 4))
        >>> round(float(upper(Outcome(levels=[still], context=[Latents(values=torch.randn(20, 1, 8))]))), 2)
        0.99
    """

    name = "upper"

    def __init__(self, spec: RegularizerSpec, *, regularizer: RegularizerFactory = SIGReg) -> None:
        if not spec.upper_actions:
            raise ValueError(
                "UpperLevels looks at levels above the first, and this pretext has none: use the pretext "
                "HierarchicalRollout, or the regularizer itself"
            )
        made = [regularizer(replace(spec, actions=width, upper_actions=())) for width in spec.upper_actions]
        super().__init__(spec, on=made[0].on, weight=made[0].weight)
        self.parts = nn.ModuleList(made)
        self.name = f"upper_{made[0].name}"

    def forward(self, outcome: Outcome) -> Tensor:
        """The sum over levels; levels of fewer states than the regularizer needs are left out."""
        found = []
        for part, level in zip(self.parts, outcome.levels, strict=True):
            part.seed = self.seed  # type: ignore[assignment]
            if level.batch_size >= part.min_samples:  # type: ignore[operator]
                found.append(part(level))
        return torch.stack(found).sum() if found else outcome.nothing()
