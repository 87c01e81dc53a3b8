"""The part of a training set on which a probe chooses its settings."""

from __future__ import annotations

import torch
from torch import Tensor


def held_out(labels: Tensor, *, seed: int = 0) -> Tensor:
    """Choose a fifth of each class at random, at least one sample, but none of a class of one.

    Args:
        labels: (n,) classes; or values of floating point, of which a fifth is chosen.
        seed: of the choice.

    Returns:
        (n,) bool, on the CPU.
    """
    generator, held = torch.Generator().manual_seed(seed), torch.zeros(len(labels), dtype=torch.bool)
    strata = torch.zeros(len(labels)) if labels.is_floating_point() else labels.cpu()
    for name in strata.unique():
        members = (strata == name).nonzero().squeeze(1)
        members = members[torch.randperm(len(members), generator=generator)]
        held[members[: max(1, len(members) // 5) if len(members) > 1 else 0]] = True
    return held


def random_fifth(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Choose a fifth of `count` samples at random, always the same: the numbers of these, and of the others."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).to(device)
    return order[: count // 5], order[count // 5 :]
