"""The regression probe against scikit-learn's ridge regression."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler

from jepa_lightning.evaluation import Features, probe
from jepa_lightning.evaluation.probes.regression import PENALTIES, choose_penalty, fit_ridge, r2


def linear_data(count=120, *, noise=0.5, seed=0, outputs=2):
    """Features of different scales, and labels that depend on them linearly (the same way at every seed)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 8)) * np.logspace(0, 2, 8) + 3
    y = (x / np.logspace(0, 2, 8)) @ np.random.default_rng(99).normal(size=(8, outputs)) + 50
    return x, y + noise * rng.normal(size=y.shape)


def tensors(*arrays):
    return [torch.tensor(array, dtype=torch.float32) for array in arrays]


@pytest.mark.parametrize("count", [120, 6])  # more samples than features, and fewer
@pytest.mark.parametrize("penalty", [1.0, 0.01])
def test_fit_is_scikit_learns_ridge(penalty, count):
    x, y = linear_data(count)
    weight, bias = fit_ridge(torch.tensor(x), torch.tensor(y), penalty=penalty)
    expected = Ridge(alpha=penalty * len(x)).fit(x, y)
    assert np.allclose(weight, expected.coef_, rtol=1e-8)
    assert np.allclose(bias, expected.intercept_, rtol=1e-8)


def test_probe_is_scikit_learns_pipeline():
    (x, y), (z, w) = linear_data(), linear_data(60, seed=1)
    train, test = (Features(values=tensors(a)[0], labels={"v": tensors(b)[0]}) for a, b in ((x, y), (z, w)))
    scaler, scaled = StandardScaler().fit(x), StandardScaler().fit(y)
    fits = []
    for penalty in PENALTIES:
        model = Ridge(alpha=penalty * len(x)).fit(scaler.transform(x), scaled.transform(y))
        fits.append(r2_score(w, scaled.inverse_transform(model.predict(scaler.transform(z)))))
    found = probe(train, test)
    assert set(found) == {"r2_v"}
    assert min(abs(found["r2_v"] - fit) for fit in fits) < 1e-4
    assert max(fits) - found["r2_v"] < 0.02
    assert 0.7 < found["r2_v"] < 0.99


def test_labels_that_are_features_and_labels_that_are_noise():
    (x, y), (z, w) = linear_data(noise=0), linear_data(60, noise=0, seed=1)
    x, y, z, w = tensors((x - 3) / np.logspace(0, 2, 8), y, (z - 3) / np.logspace(0, 2, 8), w)
    assert r2(x, y, z, w) > 0.999
    shuffled = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))]
    assert r2(x, shuffled, z, w) < 0.1


def test_any_shape_of_label_and_missing_ones():
    """Numbers, vectors and tracks; a sample whose label holds NaN is left out on both sides."""
    (x, y), (z, w) = linear_data(outputs=6), linear_data(60, seed=1, outputs=6)
    x, y, z, w = tensors((x - 3) / np.logspace(0, 2, 8), y, (z - 3) / np.logspace(0, 2, 8), w)
    whole = r2(x, y, z, w, penalty=0.01)
    assert r2(x, y.view(-1, 3, 2), z, w.view(-1, 3, 2), penalty=0.01) == pytest.approx(whole, abs=1e-6)
    single = [r2(x, y[:, i], z, w[:, i], penalty=0.01) for i in range(6)]
    assert np.mean(single) == pytest.approx(whole, abs=1e-5)
    more = torch.cat([x, 100 * x[:5]]), torch.cat([y, torch.full((5, 6), math.nan)])
    also = torch.cat([z, 100 * z[:5]]), torch.cat([w, torch.full((5, 6), math.nan)])
    assert r2(*more, *also, penalty=0.01) == pytest.approx(whole, abs=1e-6)
    assert math.isnan(r2(x, torch.full_like(y, math.nan), z, w))


def test_a_label_that_does_not_vary_has_no_score():
    x, y, z = torch.randn(20, 3), torch.randn(20), torch.randn(10, 3)
    assert math.isnan(r2(x, y, z, torch.ones(10)))


def test_the_penalty_is_chosen_on_training_samples_alone():
    """Useless channels and few samples ask for a strong penalty, clean ones for a weak one."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(100, 1, generator=generator)
    noisy = torch.cat([y + torch.randn(100, 1, generator=generator), torch.randn(100, 90, generator=generator)], 1)
    assert choose_penalty(noisy, y) >= 0.1
    assert choose_penalty(torch.cat([y, torch.randn(100, 3, generator=generator)], 1), y) == PENALTIES[-1]
    assert choose_penalty(noisy[:3], y[:3]) == PENALTIES[0]  # too few to hold any out


def test_classes_and_continuous_labels_together():
    (x, y), (z, w) = linear_data(), linear_data(60, seed=1)
    classes = [{"c": torch.tensor(values[:, 0] > 50).long()} for values in (y, w)]
    train, test = (Features(values=tensors(a)[0], labels={**c, "v": tensors(b)[0], "only": torch.rand(len(a))})
                   for (a, b), c in zip(((x, y), (z, w)), classes, strict=True))  # fmt: skip
    del test.labels["only"]
    assert set(probe(train, test)) == {"knn", "linear", "r2_v"}


def test_features_that_are_not_finite():
    features = Features(values=torch.full((20, 3), torch.inf), labels={"v": torch.rand(20)})
    assert math.isnan(probe(features, features)["r2_v"])
