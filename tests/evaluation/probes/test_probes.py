"""Probes against scikit-learn and plain loops."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jepa_lightning.evaluation import Features, fit_linear, knn_predict, probe
from jepa_lightning.evaluation.probes.classification import choose_c, standardise


def clouds(count=300, classes=4, dim=12, spread=1.5, seed=0):
    """Overlapping Gaussian classes: not separable, so that the penalty and convergence show."""
    rng = np.random.default_rng([seed, 1])
    centres = np.random.default_rng(0).normal(size=(classes, dim))
    labels = np.arange(count) % classes
    return centres[labels] + spread * rng.normal(size=(count, dim)), labels


def tensors(x, y, dtype=torch.float32):
    return torch.tensor(x, dtype=dtype), torch.tensor(y)


def reference(x, y, c):
    return LogisticRegression(C=c, tol=1e-9, max_iter=20_000).fit(x, y)


@pytest.mark.parametrize("c", [0.01, 1.0, 100.0])
def test_linear_is_scikit_learns_logistic_regression(c):
    x, y = clouds()
    model = reference(x, y, c)
    weight, bias = fit_linear(*tensors(x, y, torch.float64), c=c)
    np.testing.assert_allclose(weight.numpy(), model.coef_, atol=1e-3)
    # Biases are unpenalised, so only their differences are determined.
    np.testing.assert_allclose(bias - bias.mean(), model.intercept_ - model.intercept_.mean(), atol=1e-3)
    weight, bias = fit_linear(*tensors(x, y), c=c)
    np.testing.assert_allclose(weight.numpy(), model.coef_, atol=5e-3)
    other, _ = clouds(seed=1)
    predicted = F.linear(torch.tensor(other, dtype=torch.float32), weight, bias).argmax(1)
    assert (predicted.numpy() == model.predict(other)).mean() > 0.99


def test_linear_minimises_its_objective():
    x, y = tensors(*clouds(), torch.float64)
    weight, bias = (p.requires_grad_() for p in fit_linear(x, y, c=0.5))
    loss = F.cross_entropy(F.linear(x, weight, bias), y, reduction="sum") + weight.square().sum() / (2 * 0.5)
    loss.backward()
    assert weight.grad.abs().max() / len(x) < 1e-4
    assert bias.grad.abs().max() / len(x) < 1e-4


def test_two_classes_are_scikit_learns_with_twice_the_c():
    x, y = clouds(classes=2)
    model = reference(x, y, 2.0)
    weight, bias = fit_linear(*tensors(x, y, torch.float64), c=1.0)
    np.testing.assert_allclose(weight[1] - weight[0], model.coef_[0], atol=1e-3)
    np.testing.assert_allclose(bias[1] - bias[0], model.intercept_[0], atol=1e-3)


def test_a_class_without_samples_is_never_predicted():
    x, y = clouds(classes=3)
    y = np.where(y == 2, 5, y)  # classes 2, 3, 4 do not occur
    weight, bias = fit_linear(*tensors(x, y))
    assert weight.shape == (6, 12)
    predicted = F.linear(torch.tensor(x, dtype=torch.float32), weight, bias).argmax(1)
    assert set(predicted.tolist()) == {0, 1, 5}
    assert (predicted.numpy() == reference(x, y, 1.0).predict(x)).mean() > 0.99


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_linear_fits_where_gradients_are_off(mode):
    expected = fit_linear(*tensors(*clouds()))
    with mode():
        found = fit_linear(*tensors(*clouds()))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert not any(p.requires_grad for p in found)


def test_linear_of_a_diverged_model_is_refused():
    x, y = tensors(*clouds())
    x[3, 4] = float("nan")
    with pytest.raises(ValueError, match="expected finite features"):
        fit_linear(x, y)


def plain_knn(train, labels, test, k, temperature):
    predicted = []
    for row in test:
        cosine = [float(row @ other / np.linalg.norm(row) / np.linalg.norm(other)) for other in train]
        nearest = sorted(range(len(train)), key=lambda i: -cosine[i])[:k]
        votes: dict[int, float] = {}
        for i in nearest:
            votes[labels[i]] = votes.get(labels[i], 0.0) + math.exp(cosine[i] / temperature)
        predicted.append(max(votes, key=lambda label: votes[label]))
    return predicted


@pytest.mark.parametrize("k", [1, 5, 20, 1000])
@pytest.mark.parametrize("temperature", [0.07, 1.0, math.inf])
def test_knn_is_a_plain_loop(k, temperature):
    (x, y), (z, _) = clouds(count=101), clouds(count=53, seed=1)
    found = knn_predict(*tensors(x, y, torch.float64), torch.tensor(z), k=k, temperature=temperature, chunk=10)
    if temperature == math.inf and k > 1:  # equal votes tie: only the number of votes is determined
        for row, predicted in zip(z, found.tolist(), strict=True):
            cosine = (x @ row) / np.linalg.norm(x, axis=1)
            counts = np.bincount(y[np.argsort(-cosine)[:k]], minlength=4)
            assert counts[predicted] == counts.max()
    else:
        assert found.tolist() == plain_knn(x, y.tolist(), z, k, temperature)


def test_knn_is_scikit_learns():
    (x, y), (z, _) = clouds(count=400), clouds(count=200, seed=1)
    model = KNeighborsClassifier(20, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)).fit(x, y)
    found = knn_predict(*tensors(x, y), torch.tensor(z, dtype=torch.float32))
    assert (found.numpy() == model.predict(z)).mean() > 0.99


def test_standardise_is_scikit_learns_scaler():
    x, _ = clouds()
    x = x * np.logspace(-3, 3, 12) + 5
    x[:, 7] = 3.3  # constant
    z, _ = clouds(count=50, seed=1)
    scaler = StandardScaler().fit(x)
    scaled, other = standardise(torch.tensor(x), torch.tensor(z))
    np.testing.assert_allclose(scaled, scaler.transform(x), atol=1e-8)
    np.testing.assert_allclose(other, scaler.transform(z), atol=1e-8)


def test_standardising_a_constant_channel_in_float32_does_not_blow_it_up():
    x = torch.randn(2000, 3)
    x[:, 1] = 123.456
    z = x[:10].clone()
    z[:, 1] += 1e-3
    scaled, other = standardise(x, z)
    assert scaled[:, 1].abs().max() < 1e-2
    assert other[:, 1].abs().max() < 1e-2


def features(x, y, name="shape"):
    x, y = tensors(x, y)
    return Features(values=x, labels={name: y})


def test_probe_is_scikit_learns_pipeline():
    (x, y), (z, w) = clouds(count=600, spread=2.5), clouds(count=300, spread=2.5, seed=1)
    x, z = x * np.logspace(0, 2, 12), z * np.logspace(0, 2, 12)
    found = probe(features(x, y), features(z, w), c=0.1, k=10)
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, tol=1e-8, max_iter=5000)).fit(x, y).score(z, w)
    weights = dict(weights=lambda distance: np.exp((1 - distance) / 0.07))
    knn = KNeighborsClassifier(10, metric="cosine", **weights).fit(x, y).score(z, w)
    assert 0.4 < linear < 0.95
    assert found["linear"] == pytest.approx(linear, abs=0.005)
    assert found["knn"] == pytest.approx(knn, abs=0.005)


def test_features_that_are_the_labels_are_read_perfectly():
    y = np.arange(200) % 5
    x = np.eye(5)[y] + 0.01 * np.random.default_rng(0).normal(size=(200, 5))
    assert probe(features(x[:100], y[:100]), features(x[100:], y[100:])) == {"knn": 1.0, "linear": 1.0}


def test_shuffled_labels_are_at_chance():
    (x, y), (z, w) = clouds(count=1200), clouds(count=1200, seed=1)
    y = np.random.default_rng(0).permutation(y)
    found = probe(features(x, y), features(z, w))
    assert 0.25 - 0.08 < found["knn"] < 0.25 + 0.08  # the chance of 4 classes; 6 standard deviations
    assert 0.25 - 0.08 < found["linear"] < 0.25 + 0.08


def test_other_test_samples_change_nothing():
    """Neither scaling nor fit sees the test set: two test sets together score what they score apart."""
    train = clouds(count=200)
    one, two = clouds(count=70, seed=1), clouds(count=30, seed=2)
    two = 1000 * two[0] + 50, two[1]
    both = np.concatenate([one[0], two[0]]), np.concatenate([one[1], two[1]])
    scores = [probe(features(*train), features(*test)) for test in (one, two, both)]
    for name in ("knn", "linear"):
        assert scores[2][name] * 100 == pytest.approx(70 * scores[0][name] + 30 * scores[1][name], abs=1e-3)


def test_negative_classes_are_no_labels():
    (x, y), (z, w) = clouds(count=200), clouds(count=80, seed=1)
    clean = probe(features(x, y), features(z, w))
    noise = np.random.default_rng(0).normal(size=(40, 12)) * 100
    none = np.full(40, -1)
    train = features(np.concatenate([noise, x]), np.concatenate([none, y]))
    test = features(np.concatenate([z, noise]), np.concatenate([w, none]))
    assert probe(train, test) == clean


def test_classes_of_any_number_are_numbered():
    (x, y), (z, w) = clouds(count=100), clouds(count=50, seed=1)
    assert probe(features(x, y * 2**40 + 7), features(z, w * 2**40 + 7)) == probe(features(x, y), features(z, w))


def test_a_diverged_model_scores_nan():
    (x, y), (z, w) = clouds(count=100), clouds(count=50, seed=1)
    x[0, 0] = np.inf
    assert all(math.isnan(score) for score in probe(features(x, y), features(z, w)).values())


def test_probe_picks_the_label_it_is_asked_for():
    (x, y), (z, w) = clouds(count=100), clouds(count=50, seed=1)
    train, test = features(x, y), features(z, w)
    train.labels["other"], test.labels["other"] = torch.zeros(100, dtype=torch.int64), torch.zeros(50).long()
    assert probe(train, test, label="other") == {"knn": 1.0, "linear": 1.0}
    assert probe(train, test) == probe(train, test, label="shape") != probe(train, test, label="other")
    with pytest.raises(ValueError, match=r"no class label 'colour' in the data.*'shape', 'other'"):
        probe(train, test, label="colour")


def test_a_low_temperature_does_not_overflow():
    (x, y), (z, _) = tensors(*clouds(count=101)), tensors(*clouds(count=53, seed=1))
    cold = knn_predict(x, y, z, k=20, temperature=1e-3)
    nearest = (F.normalize(z, dim=1) @ F.normalize(x, dim=1).T).argmax(1)
    assert (cold == y[nearest]).float().mean() > 0.9  # the nearest decides, but for ties


def test_c_is_chosen_on_training_features_alone():
    """With few labels and many useless channels a strong penalty wins; with clean features nothing is lost."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 4
    clean = F.one_hot(labels, 4).float() + 0.01 * torch.randn(200, 4, generator=generator)
    noisy = torch.cat([clean + torch.randn(200, 4, generator=generator), torch.randn(200, 150, generator=generator)], 1)
    assert choose_c(noisy, labels) < 1
    weight, bias = fit_linear(clean, labels, c=choose_c(clean, labels))
    assert (F.linear(clean, weight, bias).argmax(1) == labels).all()
    assert choose_c(noisy[:3], labels[:3]) == 1.0  # too few to hold any out


def test_chosen_c_does_not_look_at_the_test_set():
    generator = torch.Generator().manual_seed(0)
    train = Features(values=torch.randn(100, 8, generator=generator), labels={"y": torch.arange(100) % 3})
    test = Features(values=torch.randn(40, 8, generator=generator), labels={"y": torch.arange(40) % 3})
    twice = Features(values=test.values.repeat(2, 1), labels={"y": test.labels["y"].repeat(2)})
    assert probe(train, test) == probe(train, twice)


def test_beginning_elsewhere_ends_in_the_same_place():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 6, generator=generator, dtype=torch.float64)
    labels = (features[:, :3] + torch.randn(200, 3, generator=generator, dtype=torch.float64)).argmax(1)
    cold = fit_linear(features, labels, c=0.1)
    warm = fit_linear(features, labels, c=0.1, start=fit_linear(features, labels, c=10.0))
    for one, other in zip(cold, warm, strict=True):
        torch.testing.assert_close(one - one.mean(0), other - other.mean(0), rtol=0, atol=1e-4)
