"""How many dimensions a set of features uses."""

from __future__ import annotations

import torch
from torch import Tensor


def effective_rank(features: Tensor) -> Tensor:
    """Measure RankMe (Garrido et al. 2023, equation 1): exp of the entropy of (n, D)'s normalised singular values.

    The features are centred first, so that a constant offset does not count as a dimension (the paper does not centre).
    Computed in float32; between 1 (collapsed) and min(n - 1, D); NaN if the features are not finite; 0-dimensional.
    """
    features = features.float()
    if not features.isfinite().all():
        return features.new_tensor(torch.nan)
    singular = torch.linalg.svdvals(features - features.mean(0))
    share = singular / singular.sum().clamp(min=1e-12)
    return torch.exp(-torch.special.xlogy(share, share).sum())
