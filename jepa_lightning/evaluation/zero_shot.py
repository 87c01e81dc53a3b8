"""Zero-shot classification: which class's prompts are nearest to a sample?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_lightning.evaluation.probes.protocols import wilson, with_interval


@dataclass(frozen=True)
class ZeroShot:
    """The accuracy of classifying samples by the nearest prompt.

    Attributes:
        label: that is predicted.
        query: modality of the samples.
        value: the accuracy, 0 to 1.
        low: lower end of its 95% interval (Wilson's, over samples).
        high: upper end.
        chance: what the most frequent class of these samples gets.
        samples: number of samples with a known class.
        classes: number of classes.
    """

    label: str
    query: str
    value: float
    low: float
    high: float
    chance: float
    samples: int
    classes: int

    def __str__(self) -> str:
        return with_interval(self.value, self.low, self.high)


def zero_shot(
    samples: Tensor, prompts: Sequence[Tensor], labels: Tensor, *, label: str = "label", query: str = "image"
) -> ZeroShot:
    """Classify samples by the nearest class, by cosine (CLIP, Radford et al. 2021, section 3.1).

    Of several prompts of a class, the mean of the unit vectors stands for it. Classes that are equally near share the
    sample, so features that are all alike get one in the number of classes.

    Args:
        samples: (n, D), of any modality.
        prompts: (P, D) of each class, in the order of their numbers; P may differ.
        labels: (n,) class of each sample; negative: unknown, and left out.
        label: name of the label.
        query: name of the samples' modality.

    Raises:
        ValueError: no sample has a class, or one has a class without prompts.

    Examples:
        >>> import torch
        >>> from jepa_lightning.evaluation.zero_shot import zero_shot
        >>> found = zero_shot(torch.eye(3), torch.eye(3).split(1), torch.tensor([0, 1, 0]))
        >>> f"{found.value:.3f}, chance {found.chance:.3f}"
        '0.667, chance 0.667'
    """
    known = labels >= 0
    samples, labels = samples[known], labels[known]
    if not len(labels) or int(labels.max()) >= len(prompts):
        most = int(labels.max()) if len(labels) else "none"
        raise ValueError(f"expected classes from 0 to {len(prompts) - 1} in the label {label!r}, got {most}")
    means = [F.normalize(of.double(), dim=1).mean(0) for of in prompts]
    cosines = F.normalize(samples.double(), dim=1) @ F.normalize(torch.stack(means), dim=1).T
    nearest = (cosines >= cosines.amax(1, keepdim=True) - 1e-6).double()
    right = nearest.gather(1, labels[:, None])[:, 0] / nearest.sum(1)
    count = len(labels)
    low, high = wilson(float(right.sum()), count)
    chance = float(labels.bincount().max()) / count
    return ZeroShot(label, query, float(right.mean()), low, high, chance, count, len(prompts))
