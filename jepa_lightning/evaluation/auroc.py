"""How well a number tells broken samples from the same ones unbroken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from jepa_lightning.evaluation.probes.protocols import with_interval

_DRAWS = 100  # of the bootstrap


@dataclass(frozen=True)
class Detection:
    """The area under the ROC curve, 0.5 by chance.

    Attributes:
        auroc: the area.
        low: lower end of its 95% interval (the bootstrap's over pairs, percentiles).
        high: upper end.
        pairs: number of broken samples, and of true ones.
    """

    auroc: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return with_interval(self.auroc, self.low, self.high)


def detect(true: Tensor, broken: Tensor, *, seed: int = 0) -> Detection:
    """Compute the AUROC of the scores of broken samples against those of the same samples unbroken.

    Args:
        true: (n,) scores, larger where a sample is less plausible.
        broken: (n,) likewise, sample by sample.
        seed: of the bootstrap.

    Examples:
        >>> import torch
        >>> from jepa_lightning.evaluation.auroc import detect
        >>> detect(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.9, 0.8, 0.25])).auroc  # doctest: +ELLIPSIS
        0.888...
    """
    scores = torch.stack([true, broken], dim=1).cpu()
    generator = torch.Generator().manual_seed(seed)
    drawn = [_auroc(scores[torch.randint(len(scores), (len(scores),), generator=generator)]) for _ in range(_DRAWS)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Detection(_auroc(scores), float(low), float(high), len(scores))


def _auroc(scores: Tensor) -> float:
    return float(binary_auroc(scores.flatten(), torch.arange(2).repeat(len(scores)), validate_args=False))
