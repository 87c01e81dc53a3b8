"""Intervals over the samples of one test set."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import r2_score

from jepa_lightning.evaluation.probes.bootstrap import Outcome, bootstrap, resampled


def judged(right):
    """An outcome with these samples right."""
    right = np.asarray(right, dtype=bool)
    return Outcome("accuracy", np.zeros(len(right), dtype=np.int64), np.where(right, 0, 1), train=10)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.85])
def test_the_interval_is_that_of_the_binomial(share):
    outcome = judged(np.arange(400) < 400 * share)
    found, exact = bootstrap([outcome], draws=4000), binomtest(round(400 * share), 400).proportion_ci()
    assert found.mean == pytest.approx(share)
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=0.008)
    assert found.std == pytest.approx(np.sqrt(share * (1 - share) / 400), rel=0.06)


def test_a_perfect_score_has_the_exact_interval():
    found = bootstrap([judged([True] * 50)])
    assert (found.mean, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025 ** (1 / 50))
    assert bootstrap([judged([False] * 50)]).high == pytest.approx(1 - found.low)


def test_differences_are_paired():
    rng = np.random.default_rng(0)
    base = rng.random(300) < 0.6
    better = base | (rng.random(300) < 0.1)  # right wherever the other is: unpaired intervals would overlap
    found = bootstrap([judged(better)], [judged(base)])
    assert found.mean == pytest.approx(better.mean() - base.mean())
    assert found.low > 0
    one, other = bootstrap([judged(better)]), bootstrap([judged(base)])
    assert found.high - found.low < 0.7 * (one.high - one.low)
    assert one.low < other.high
    same = bootstrap([judged(base)], [judged(base)])
    assert (same.mean, same.low, same.high) == (0.0, 0.0, 0.0)


def test_r2_of_drawn_samples_is_scikit_learns():
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(60, 2)) * [1, 100] + [5, 1e4]
    outcome = Outcome("R2", truth, truth + rng.normal(size=(60, 2)) * [0.5, 80], train=10)
    assert outcome.score == pytest.approx(r2_score(outcome.truth, outcome.predicted))
    found = resampled(outcome, draws=100, seed=3)
    drawn = np.random.default_rng(3).integers(60, size=(100, 60))
    loop = [r2_score(outcome.truth[rows], outcome.predicted[rows]) for rows in drawn]
    np.testing.assert_allclose(found, loop, atol=1e-6)


def test_draws_of_the_labels_widen_the_interval():
    rng = np.random.default_rng(2)
    outcomes = [judged(rng.random(500) < share) for share in (0.3, 0.5, 0.7)]
    found = bootstrap(outcomes)
    scores = np.array([outcome.score for outcome in outcomes])
    assert found.count == 3
    assert found.mean == pytest.approx(scores.mean())
    assert found.high - found.mean > 4.302 * scores.std(ddof=1) / np.sqrt(3)  # t(0.975, 2)
    assert bootstrap([judged([1, 0] * 250)] * 3).high - 0.5 == pytest.approx(1.96 * 0.5 / np.sqrt(500), rel=0.1)


def test_what_is_not_finite_has_no_score():
    outcome = Outcome("accuracy", np.zeros(5, dtype=np.int64), np.full(5, np.nan), train=3)
    assert np.isnan(outcome.score)
    assert np.isnan(bootstrap([outcome]).low)


def test_several_runs_count_each_as_one():
    """Against a plain loop: the spread of the runs' means, beside that over test samples."""
    rng = np.random.default_rng(4)
    right = rng.random((3, 2, 200)) < np.array([0.4, 0.5, 0.7])[:, None, None]
    found = bootstrap([judged(draw) for run in right for draw in run], runs=3, seed=5)
    means = [float(np.mean([draw.mean() for draw in run])) for run in right]
    drawn = np.random.default_rng(5).integers(200, size=(1000, 200))
    samples = [np.mean([draw[rows].mean() for run in right for draw in run]) for rows in drawn]
    low, high = np.percentile(samples, [2.5, 97.5])
    mean = sum(means) / 3
    spread = (sum((one - mean) ** 2 for one in means) / 2) ** 0.5
    half = 4.302652729911275 * spread / 3**0.5  # Student's t of 2 degrees of freedom
    assert (found.mean, found.std, found.count) == (pytest.approx(mean), pytest.approx(spread), 3)
    assert found.low == pytest.approx(mean - ((mean - low) ** 2 + half**2) ** 0.5)
    assert found.high == pytest.approx(mean + ((high - mean) ** 2 + half**2) ** 0.5)
