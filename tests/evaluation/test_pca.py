"""Features as colours, against scikit-learn's PCA."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from jepa_lightning.evaluation.pca import pca_colours


def features(seed=0):
    generator = torch.Generator().manual_seed(seed)
    scales = torch.tensor([5.0, 3.0, 2.0, 0.3, 0.2, 0.1])
    return torch.randn(4, 30, 6, generator=generator) * scales + 2


def reference(tokens):
    """(n, D) to (n, 3) in 0-1, up to the sign of each component."""
    scores = PCA(3).fit_transform(tokens.double().numpy())
    low, high = np.quantile(scores, [0.02, 0.98], axis=0)
    return ((scores - low) / (high - low)).clip(0, 1)


def assert_same_up_to_sign(found, expected):
    for component in range(3):
        ways = [np.abs(found[:, component] - e).max() for e in (expected[:, component], 1 - expected[:, component])]
        assert min(ways) < 1e-3


def test_colours_are_the_first_three_components():
    x = features()
    found = pca_colours(x)
    assert found.shape == (4, 30, 3)
    assert found.dtype == torch.float32
    assert_same_up_to_sign(found.flatten(0, 1).numpy(), reference(x.flatten(0, 1)))


def test_colours_fill_zero_to_one():
    found = pca_colours(features()).flatten(0, 1)
    assert found.min() == 0
    assert found.max() == 1
    for component in range(3):  # 2% lie at each end
        assert ((found[:, component] > 0) & (found[:, component] < 1)).float().mean() == pytest.approx(0.96, abs=0.02)


def test_the_sign_does_not_depend_on_the_decomposition():
    """The largest loading is positive: more of the first channel is more of the first colour."""
    x = features()
    found = pca_colours(x).flatten(0, 1)
    for component in range(3):
        pair = torch.stack([x.flatten(0, 1)[:, component], found[:, component]])
        assert torch.corrcoef(pair)[0, 1] > 0.9
    torch.testing.assert_close(pca_colours(x + 0.01 * features(seed=1)), pca_colours(x), atol=0.05, rtol=0)


def test_padding_has_no_say():
    x = features()
    valid = torch.rand(4, 30, generator=torch.Generator().manual_seed(1)) > 0.3
    found = pca_colours(x, valid)
    assert_same_up_to_sign(found[valid].numpy(), reference(x[valid]))
    garbage = torch.where(valid[..., None], x, 1e3)
    torch.testing.assert_close(pca_colours(garbage, valid)[valid], found[valid])


@pytest.mark.parametrize("features", [torch.ones(2, 5, 4), torch.full((2, 5, 4), float("nan"))])
def test_collapsed_and_diverged_features_have_colours_too(features):
    found = pca_colours(features)
    assert found.shape == (2, 5, 3)
    assert found.isfinite().all()
    assert found.std() < 1e-3


def test_half_precision():
    x = features().bfloat16()
    torch.testing.assert_close(pca_colours(x), pca_colours(x.float()))


@pytest.mark.parametrize("tokens", [0, 1, 2, 3])
@pytest.mark.parametrize("width", [1, 2, 6])
def test_few_tokens_or_channels_still_have_three_colours(tokens, width):
    x = torch.randn(2, 4, width, generator=torch.Generator().manual_seed(0))
    valid = torch.zeros(2, 4, dtype=torch.bool)
    valid.flatten()[:tokens] = True
    found = pca_colours(x, valid)
    assert found.shape == (2, 4, 3)
    assert found.isfinite().all()
    assert found.min() >= 0
    assert found.max() <= 1
