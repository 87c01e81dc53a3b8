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


def lidar(views: Tensor, *, delta: float = 1e-4) -> Tensor:
    """Measure LiDAR: the effective rank of what tells samples apart, not their views (Thilak et al. 2023).

    RankMe counts all directions that features vary in. LiDAR (arXiv:2312.04000) takes the views of a sample
    as a class, and counts the directions of linear discriminant analysis: exp of the entropy of the normalised
    eigenvalues of W^-1/2 B W^-1/2. W is the covariance within samples plus `delta` on its diagonal, and B that of the
    samples' means. A direction that varies with the augmentation alone counts little.

    Computed in float64 (on the CPU where a device has none); between 1 and min(n - 1, D). It is NaN if the features are
    not finite. The paper takes 10 to 50 views a sample; few make W a rough estimate, good for following a run.

    Args:
        views: (n, V, D) features of V views, augmentations or masks of each of n samples.
        delta: added to the diagonal of W, 1e-4 in the paper.

    Returns:
        A 0-dimensional float64 tensor.

    Raises:
        ValueError: fewer than 2 samples or views, or a `delta` that is not above 0.

    Examples:
        >>> import torch
        >>> from jepa_lightning.evaluation import effective_rank, lidar
        >>> generator = torch.Generator().manual_seed(0)
        >>> samples = torch.randn(200, 1, 16, generator=generator) * (torch.arange(16) < 4)  # differ in 4 directions
        >>> views = samples + torch.randn(200, 10, 16, generator=generator)
        >>> round(float(effective_rank(views.flatten(0, 1)))), round(float(lidar(views)))
        (16, 8)
    """
    if views.ndim != 3 or min(views.shape[:2]) < 2:
        raise ValueError(
            f"expected features (n, V, D) of at least 2 views of at least 2 samples, got the shape {tuple(views.shape)}"
        )
    if not delta > 0:
        raise ValueError(f"delta must be above 0, got {delta:g}")
    views = views.detach()
    views = views.cpu().double() if views.device.type == "mps" else views.double()
    if not views.isfinite().all():
        return views.new_tensor(torch.nan)
    count, each, dim = views.shape
    means = views.mean(1)
    apart = (views - means.unsqueeze(1)).flatten(0, 1)
    within = apart.T @ apart / (count * (each - 1)) + delta * torch.eye(dim, dtype=views.dtype, device=views.device)
    # With W = L L^T, the eigenvalues are the squared singular values of L^-1 (means - mean)^T over n - 1.
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(within), (means - means.mean(0)).T, upper=False)
    eigenvalues = torch.linalg.svdvals(whitened).square()
    share = eigenvalues / eigenvalues.sum().clamp(min=torch.finfo(views.dtype).tiny)
    return torch.exp(-torch.special.xlogy(share, share).sum())
