"""The effective rank against RankMe's formula in float64."""

import math

import numpy as np
import pytest
import torch

from jepa_lightning.evaluation import effective_rank


def rankme(features, eps=1e-7):
    """Garrido et al. 2023, equation 1, on centred features, in numpy float64."""
    z = np.asarray(features, dtype=np.float64)
    sigma = np.linalg.svd(z - z.mean(0), compute_uv=False)
    p = sigma / np.abs(sigma).sum() + eps
    return math.exp(-(p * np.log(p)).sum())


def spectrum(values, rows=50, dim=20, seed=0):
    """Centred features (rows, dim) with these singular values."""
    rng = np.random.default_rng(seed)
    left = rng.normal(size=(rows, len(values)))
    left, _ = np.linalg.qr(left - left.mean(0))
    right, _ = np.linalg.qr(rng.normal(size=(dim, len(values))))
    return torch.tensor(left * np.asarray(values) @ right.T, dtype=torch.float32)


@pytest.mark.parametrize("shape", [(40, 8), (8, 40), (30, 30)])
def test_it_is_rankme(shape):
    features = np.random.default_rng(0).normal(size=shape) @ np.diag(np.logspace(0, -3, shape[1])) + 7
    found = float(effective_rank(torch.tensor(features, dtype=torch.float32)))
    assert found == pytest.approx(rankme(features), rel=1e-3)


@pytest.mark.parametrize("rank", [1, 2, 7, 20])
def test_equal_singular_values_count_fully(rank):
    assert float(effective_rank(spectrum([3.0] * rank))) == pytest.approx(rank, rel=1e-3)


def test_a_known_spectrum():
    shares = [0.5, 0.25, 0.25]
    expected = math.exp(0.5 * math.log(2) + 0.5 * math.log(4))
    assert float(effective_rank(spectrum(shares))) == pytest.approx(expected, rel=1e-3)


def test_scale_and_offset_do_not_count():
    features = spectrum([3.0, 2.0, 1.0])
    rank = float(effective_rank(features))
    assert float(effective_rank(100 * features)) == pytest.approx(rank, rel=1e-3)
    assert float(effective_rank(features + 5)) == pytest.approx(rank, rel=1e-3)


def test_collapsed_features_have_rank_one():
    assert float(effective_rank(torch.ones(50, 8))) == pytest.approx(1.0)
    assert float(effective_rank(torch.zeros(50, 8))) == pytest.approx(1.0)
    line = torch.linspace(-1, 1, 50)[:, None] * torch.randn(8, generator=torch.Generator().manual_seed(0))
    assert float(effective_rank(line + 3)) == pytest.approx(1.0, rel=1e-2)


def test_it_is_computed_in_float32():
    features = torch.randn(60, 12, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert effective_rank(features).dtype == torch.float32
    assert torch.equal(effective_rank(features), effective_rank(features.float()))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_diverged_model_has_no_rank(bad):
    features = torch.randn(10, 4)
    features[3, 1] = bad
    assert effective_rank(features).isnan()
