"""Whether a representation has collapsed."""

import numpy as np
import pytest
import torch

from jepa_lightning.evaluation.collapse import collapse


def noise(*sizes, seed=0):
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("features", "verdict"),
    [
        (noise(100, 16), "healthy"),
        (1000 * noise(100, 16), "healthy"),  # in whatever scale
        (1e-6 * noise(100, 16), "healthy"),
        (torch.ones(100, 16), "collapsed"),
        (torch.zeros(100, 16), "collapsed"),
        (torch.ones(100, 16) + 0.001 * noise(100, 16), "collapsed"),  # little spread, in all directions
        (noise(100, 1) * noise(16, seed=1), "collapsed"),  # much of it, in one
        (noise(100, 16).index_fill(0, torch.tensor([3]), torch.inf), "diverged"),
    ],
)
def test_verdicts(features, verdict):
    assert collapse(features).verdict == verdict


def test_the_spectrum_is_that_of_the_covariance():
    features = noise(50, 6) * torch.tensor([3.0, 2, 1, 1, 0.5, 0.1]) + 7
    found = collapse(features)
    values = np.linalg.eigvalsh(np.cov(features.double().numpy().T))[::-1]
    np.testing.assert_allclose(found.spectrum, values / values.sum(), rtol=1e-5)
    assert found.std == pytest.approx(float(features.std(0).mean()))
    assert len(collapse(noise(5, 20)).spectrum) == 4


def test_uniformity_and_alignment_against_a_plain_loop():
    features, views = noise(20, 5), noise(20, 5) + 0.3 * noise(20, 5, seed=1)
    unit = features / features.norm(dim=1, keepdim=True)
    other = views / views.norm(dim=1, keepdim=True)
    pairs = [float(torch.exp(-2 * (unit[i] - unit[j]).square().sum())) for i in range(20) for j in range(i)]
    found = collapse(features, views)
    assert found.uniformity == pytest.approx(np.log(np.mean(pairs)), rel=1e-4)
    assert found.alignment == pytest.approx(float((unit - other).square().sum(1).mean()), rel=1e-5)
    assert collapse(torch.ones(20, 5)).uniformity == pytest.approx(0, abs=1e-5)
    assert collapse(features).alignment is None
    assert collapse(features, features).alignment == 0


def test_mistakes_are_told():
    with pytest.raises(ValueError, match="at least 2 samples"):
        collapse(noise(1, 4))
    with pytest.raises(ValueError, match="expected views like the features"):
        collapse(noise(5, 4), noise(4, 4))
