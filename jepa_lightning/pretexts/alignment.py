"""Pull the pooled representations of a sample's modalities together, and apart from those of other samples."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_lightning.names.shown import ShownModule
from jepa_lightning.regularizers.gather import gather_over_ranks
from jepa_lightning.schedules import Schedule


class Alignment(ShownModule, nn.Module, ABC):
    """A term of the loss on the pooled representations of several modalities of the same samples.

    Args:
        weight: weight in the loss, a number or a schedule.

    Attributes:
        collapses: whether it is smallest where all representations are one, so that a regularizer is needed.
    """

    collapses: bool = False

    def __init__(self, *, weight: float | Schedule = 0.1) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, vectors: Sequence[Tensor]) -> Tensor:
        """Compute a scalar, the mean over all pairs of modalities.

        Args:
            vectors: (B, D) of each modality, row by row of the same samples.
        """
        with torch.autocast(vectors[0].device.type, enabled=False):  # autocast would multiply in half precision
            prepared = [self.prepare(vector.float()) for vector in vectors]
            return torch.stack([self.pair(one, other) for one, other in combinations(prepared, 2)]).mean()

    def prepare(self, vectors: Tensor) -> Tensor:
        """Return what pairs are compared by: unit vectors of the samples of all ranks, (B, D)."""
        return gather_over_ranks(F.normalize(vectors, dim=1))

    @abstractmethod
    def pair(self, one: Tensor, other: Tensor) -> Tensor:
        """Compute a scalar of two modalities, (B, D) each."""


class InfoNCE(Alignment):
    """Tell a sample's other modality among those of the batch, both ways (van den Oord et al. 2018; CLIP).

    The loss of CLIP (Radford et al. 2021, figure 3): cross-entropy over the cosines of pooled representations times a
    learned scale. With several processes, the samples of all are told apart; value and gradient are those of one
    process with the whole batch. Two samples of a batch with the same caption count as different, as in CLIP.

    Args:
        weight: weight in the loss, a number or a schedule.
        temperature: where the learned temperature starts; CLIP's 0.07. It does not fall below 0.01.

    Raises:
        ValueError: a temperature that is not above 0.

    Examples:
        >>> import torch
        >>> from jepa_lightning.pretexts import InfoNCE
        >>> vectors = torch.eye(4)
        >>> round(float(InfoNCE()([vectors, vectors])), 4), round(float(InfoNCE()([vectors, vectors.roll(1, 0)])), 2)
        (0.0, 14.29)
    """

    def __init__(self, *, weight: float | Schedule = 0.1, temperature: float = 0.07) -> None:
        super().__init__(weight=weight)
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.scale = nn.Parameter(torch.tensor([-math.log(temperature)]))

    def pair(self, one: Tensor, other: Tensor) -> Tensor:
        """Compute the mean cross-entropy of both directions."""
        logits = self.scale.clamp(max=math.log(100)).exp() * (one @ other.T)
        right = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


class Sigmoid(Alignment):
    """Tell of every pair of the batch whether it is one sample's (SigLIP, Zhai et al. 2023, arXiv:2303.15343).

    Binary cross-entropy over the cosines of pooled representations times a learned scale plus a learned bias, summed
    over all pairs and divided by the number of samples. With several processes as `InfoNCE`.

    Args:
        weight: weight in the loss, a number or a schedule.
        scale: where the learned scale starts; 10 in the paper.
        bias: where the learned bias starts; -10 in the paper.

    Raises:
        ValueError: a scale that is not above 0.

    Examples:
        >>> import torch
        >>> from jepa_lightning.pretexts import Sigmoid
        >>> vectors = torch.eye(4)
        >>> round(float(Sigmoid()([vectors, vectors])), 3)  # each pair at an even chance, and no others
        0.693
    """

    def __init__(self, *, weight: float | Schedule = 0.1, scale: float = 10.0, bias: float = -10.0) -> None:
        super().__init__(weight=weight)
        if not 0 < scale < math.inf:
            raise ValueError(f"scale must be above 0, got {scale}")
        self.scale = nn.Parameter(torch.tensor([math.log(scale)]))
        self.bias = nn.Parameter(torch.tensor([bias]))

    def pair(self, one: Tensor, other: Tensor) -> Tensor:
        """Compute the sum over all pairs, divided by B."""
        logits = self.scale.exp() * (one @ other.T) + self.bias
        same = 2 * torch.eye(len(logits), device=logits.device) - 1
        return -F.logsigmoid(same * logits).sum() / len(logits)


class Nearness(Alignment):
    """Pull a sample's modalities together by the mean squared difference, and leave the rest to a regularizer.

    As in VICReg with two networks (Bardes et al. 2022) and LeJEPA: without `VICReg` or `SIGReg` on the context all
    representations become one, so a run without a regularizer is refused.

    Args:
        weight: weight in the loss, a number or a schedule.

    Examples:
        >>> import torch
        >>> from jepa_lightning.pretexts import Nearness
        >>> float(Nearness()([torch.zeros(4, 8), torch.ones(4, 8)]))
        1.0
    """

    collapses = True

    def prepare(self, vectors: Tensor) -> Tensor:
        """Return them as they are: the mean over ranks is that of all samples."""
        return vectors

    def pair(self, one: Tensor, other: Tensor) -> Tensor:
        """Compute the mean squared difference."""
        return F.mse_loss(one, other)
