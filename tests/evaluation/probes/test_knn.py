"""kNN whose settings are chosen on the training part, against plain loops."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from jepa_lightning.evaluation.probes.classification import standardise
from jepa_lightning.evaluation.probes.neighbours import K_GRID, choose_knn, knn_predict
from jepa_lightning.evaluation.probes.probing import run_probe
from jepa_lightning.evaluation.probes.protocols import Split


def groups(count=120, dim=6, noise=1.0, seed=0):
    """Three overlapping classes: (n, D) features and (n,) labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    centres = torch.randn(3, dim, generator=torch.Generator().manual_seed(9))
    return centres[labels] + noise * torch.randn(count, dim, generator=generator), labels


def left_out(features, labels, k):
    """Right answers where each sample is asked of all others, by `knn_predict` itself, one by one."""
    right = 0
    for i in range(len(features)):
        others = torch.arange(len(features)) != i
        right += int(knn_predict(features[others], labels[others], features[i : i + 1], k=k)[0] == labels[i])
    return right


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("chunk", [7, 2048])
def test_the_choice_is_that_of_leaving_out_one_at_a_time(seed, chunk):
    features, labels = groups(seed=seed, noise=1.5)
    features[:, :2] *= 10  # so that scaling matters
    scaled = standardise(features)[0]
    counts = {(k, own): left_out(x, labels, k) for own, x in ((False, features), (True, scaled)) for k in K_GRID}
    k, standardised = choose_knn(features, labels, scaled=scaled, chunk=chunk)
    assert counts[k, standardised] == max(counts.values())
    same = [pair for pair, count in counts.items() if count == max(counts.values())]
    assert k == max(pair[0] for pair in same)
    assert not standardised or (k, False) not in same


@pytest.mark.parametrize("constant", [0.0, 100.0])
def test_a_constant_in_all_features_hides_no_neighbours(constant):
    """Families of four, of random classes: the nearest tells, unless all cosines are one within the temperature."""
    generator = torch.Generator().manual_seed(0)
    families = torch.randn(60, 8, generator=generator)
    labels = (torch.arange(60) % 3).repeat_interleave(4)
    features = families.repeat_interleave(4, dim=0) + 0.02 * torch.randn(240, 8, generator=generator) + constant
    order = np.arange(240)
    split = Split(order[order % 4 > 0], order[order % 4 == 0])
    fixed, chosen = (run_probe(probe, features, labels.numpy(), split) for probe in ("knn", "knn_cv"))
    assert chosen.score == 1.0
    assert fixed.score == 1.0 if constant == 0 else fixed.score < 0.7  # 20 equal votes, of which 3 are the family's


def test_the_test_part_has_no_say():
    features, labels = groups()
    split = Split(np.arange(90), np.arange(90, 120))
    first = run_probe("knn_cv", features, labels.numpy(), split)
    changed = features.clone()
    changed[90:] = torch.randn(30, 6) * 100
    other = run_probe("knn_cv", changed, labels.numpy(), split)
    assert first.chosen == other.chosen
    k, standardised = first.chosen
    train, test = features[:90], features[90:]
    if standardised:
        train, test = standardise(train, test)
    assert first.predicted.tolist() == knn_predict(train, labels[:90], test, k=int(k)).tolist()


def test_one_or_two_samples_are_enough():
    one = torch.ones(1, 3)
    assert choose_knn(one, torch.tensor([4]), scaled=one) == (1, False)
    two, labels = torch.eye(2), torch.tensor([0, 0])
    assert choose_knn(two, labels, scaled=two) == (1, False)


def test_of_many_samples_some_are_asked_and_all_answer():
    features, labels = groups(count=300, noise=0.2)
    scaled = standardise(features)[0]
    k, standardised = choose_knn(features, labels, scaled=scaled, most=40)
    assert (k, standardised) == choose_knn(features, labels, scaled=scaled, most=40)
    chosen = scaled if standardised else features
    assert left_out(F.normalize(chosen), labels, k) == 300  # of separable classes every choice is right
