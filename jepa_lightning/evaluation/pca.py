"""Principal components of features, and features as colours."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def principal_components(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the axes along which features vary most.

    Args:
        features: (n, D).

    Returns:
        Mean (D,), singular values (k,) in falling order and axes (k, D) of length 1, k being the lesser of n and D.
    """
    mean = features.mean(0)
    _, sizes, axes = torch.linalg.svd(features - mean, full_matrices=False)
    return mean, sizes, axes


def pca_colours(features: Tensor, valid: Tensor | None = None) -> Tensor:
    """Show the first three principal components of token features as colours (as in DINOv2's figures).

    Args:
        features: (B, N, D), D at least 3; the components are common to all samples.
        valid: (B, N) bool, False for padding; its colours are meaningless.

    Returns:
        (B, N, 3) float32 in 0-1, each component stretched between its 2nd and 98th percentile. The sign of a component
        is chosen so that its largest loading is positive, which makes pictures of successive steps comparable.
    """
    tokens = features.detach().float().cpu()
    tokens = tokens.where(tokens.isfinite(), 0.0)  # of a diverged model there is still a picture
    used = tokens.flatten(0, 1) if valid is None else tokens[valid.cpu()]
    if not len(used):
        return tokens.new_zeros(*tokens.shape[:-1], 3)
    mean, _, axes = principal_components(used)
    axes = F.pad(axes[:3], (0, 0, 0, max(0, 3 - len(axes))))  # of few tokens, or narrow ones, some colours stay dark
    signs = axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    axes = axes * torch.where(signs == 0, 1.0, signs)
    scores = (used - mean) @ axes.T
    low, high = scores.quantile(0.02, dim=0), scores.quantile(0.98, dim=0)
    return (((tokens - mean) @ axes.T - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
