"""Splits, linear classifiers and intervals of small data sets."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from jepa_lightning.evaluation.probes.protocols import (
    LinearClassifier,
    Split,
    accuracies,
    few_labels,
    interval,
    leave_one_group_out,
    repeated_splits,
    stratified_folds,
)

LABELS = np.repeat([0, 1, 2], [40, 30, 20])


def blobs(seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(len(LABELS), 6)) * spread + 3 * np.eye(6)[LABELS]


def test_folds_cover_every_sample_once_and_keep_the_shares():
    splits = stratified_folds(LABELS, folds=10, seed=3)
    assert sorted(np.concatenate([split.test for split in splits])) == list(range(90))
    for split in splits:
        assert not set(split.train) & set(split.test)
        assert len(split.train) + len(split.test) == 90
        assert np.bincount(LABELS[split.test]).tolist() == [4, 3, 2]


def test_repeated_splits_are_disjoint_stratified_and_drawn_by_the_seed():
    splits = repeated_splits(LABELS, repeats=20, test_share=0.2, seed=1)
    again = repeated_splits(LABELS, repeats=20, test_share=0.2, seed=1)
    other = repeated_splits(LABELS, repeats=20, test_share=0.2, seed=2)
    assert all((a.test == b.test).all() for a, b in zip(splits, again, strict=True))
    assert any((a.test != b.test).any() for a, b in zip(splits, other, strict=True))
    for split in splits:
        assert not set(split.train) & set(split.test)
        assert np.bincount(LABELS[split.test]).tolist() == [8, 6, 4]
    assert len(set(np.concatenate([split.test for split in splits]))) > 80


def test_few_labels_keep_the_test_part_and_one_sample_of_each_class():
    split = repeated_splits(LABELS, repeats=1, test_share=0.2)[0]
    tenth = few_labels(split, LABELS, share=0.1, seed=5)
    assert (tenth.test == split.test).all()
    assert set(tenth.train) <= set(split.train)
    assert np.bincount(LABELS[tenth.train]).tolist() == [3, 2, 2]
    assert np.bincount(LABELS[few_labels(split, LABELS, share=0.001).train]).tolist() == [1, 1, 1]
    assert sorted(few_labels(split, LABELS, share=1.0).train) == sorted(split.train)


def test_each_group_is_left_out_once_and_whole():
    groups = np.array([7, 3, 7, 5, 3, 7])
    splits = leave_one_group_out(groups)
    assert [split.test.tolist() for split in splits] == [[1, 4], [3], [0, 2, 5]]
    for split in splits:
        assert len(set(groups[split.test])) == 1
        assert sorted([*split.train, *split.test]) == list(range(6))
        assert not set(groups[split.train]) & set(groups[split.test])


@pytest.mark.parametrize("kind", ["svm", "logistic"])
def test_a_fixed_c_agrees_with_scikit_learn_by_hand(kind):
    features, split = blobs(), repeated_splits(LABELS, repeats=1, test_share=0.3)[0]
    scaler = StandardScaler().fit(features[split.train])
    model = LinearSVC(C=0.1, max_iter=10_000) if kind == "svm" else LogisticRegression(C=0.1, max_iter=5_000)
    model.fit(scaler.transform(features[split.train]), LABELS[split.train])
    right = (model.predict(scaler.transform(features[split.test])) == LABELS[split.test]).mean()
    found = accuracies(features, LABELS, [split], classifier=LinearClassifier(kind, c=0.1))
    assert found[0] == pytest.approx(right)


@pytest.mark.parametrize("kind", ["svm", "logistic"])
def test_known_answers(kind):
    splits = repeated_splits(LABELS, repeats=2, test_share=0.2)
    assert accuracies(np.eye(3)[LABELS], LABELS, splits, classifier=LinearClassifier(kind)).tolist() == [1.0] * 2
    rng = np.random.default_rng(0)
    noise = accuracies(rng.normal(size=(90, 4)), LABELS, splits, classifier=LinearClassifier(kind))
    assert noise.mean() < 0.6  # the most frequent class has 0.44


@pytest.mark.long
def test_test_samples_touch_neither_scaling_nor_the_choice_of_c_nor_the_fit():
    features, split = blobs(), repeated_splits(LABELS, repeats=1, test_share=0.2)[0]
    planted = features.copy()
    planted[split.test] = 1e9  # would ruin a scaler, and any fit
    model = LinearClassifier("logistic")
    a = model.fit(features[split.train], LABELS[split.train]).predict(features[split.test])
    here = accuracies(planted, LABELS, [Split(split.train, split.train)], classifier=model)
    there = accuracies(features, LABELS, [Split(split.train, split.train)], classifier=model)
    assert here == there
    assert accuracies(features, LABELS, [split], classifier=model)[0] == (a == LABELS[split.test]).mean()


def test_one_sample_a_class_needs_no_choice_of_c():
    split = Split(np.array([0, 40, 70]), np.arange(90))
    assert accuracies(np.eye(3)[LABELS], LABELS, [split]).tolist() == [1.0]


@pytest.mark.long
def test_the_interval_covers_the_truth_of_repeated_splits_where_the_usual_one_does_not():
    """Scores over splits of one data set are correlated. Truth: the accuracy on a large fresh set."""
    covered, usual, rounds = 0, 0, 20
    for round_ in range(rounds):
        rng = np.random.default_rng(round_)
        labels = np.arange(60) % 2
        features = rng.normal(size=(60, 2)) + labels[:, None] * 0.8
        splits = repeated_splits(labels, repeats=15, test_share=0.2, seed=round_)
        fresh = np.arange(4000) % 2
        points = rng.normal(size=(4000, 2)) + fresh[:, None] * 0.8
        model = LinearClassifier("logistic", c=1.0)
        scores = accuracies(features, labels, splits, classifier=model)
        truth = (model.fit(features[:48], labels[:48]).predict(points) == fresh).mean()
        here, narrow = interval(scores, test_over_train=0.25), interval(scores)
        covered += here.low <= truth <= here.high
        usual += narrow.low <= truth <= narrow.high
    assert covered >= 0.85 * rounds
    assert usual < covered


def test_the_interval_of_independent_values_is_students():
    found = interval(np.array([1.0, 2.0, 3.0, 4.0]))
    assert found.mean == 2.5
    assert found.high - found.mean == pytest.approx(3.182446 * 1.2909944 / 2, rel=1e-5)  # t(0.975, 3) s / sqrt(4)
    assert str(found) == "2.500 [0.446, 4.554]"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stratified_folds(LABELS, folds=21), "smallest class has samples \\(20\\), got 21"),
        (lambda: stratified_folds(np.zeros(9), folds=3), "at least 2 classes"),
        (lambda: repeated_splits(LABELS, repeats=0, test_share=0.2), "repeats >= 1"),
        (lambda: repeated_splits(np.array([0, 0, 1]), repeats=2, test_share=0.4), "at least 2 samples each"),
        (lambda: few_labels(Split(np.arange(3), np.arange(3)), LABELS, share=0), "share of the labels"),
        (lambda: leave_one_group_out(np.zeros(4)), "at least 2 groups to leave one out"),
        (lambda: LinearClassifier("tree"), "svm or logistic"),
        (lambda: LinearClassifier().fit(np.full((4, 2), np.nan), np.array([0, 0, 1, 1])), "diverged"),
        (lambda: interval(np.array([0.5])), "at least 2 finite values"),
    ],
)
def test_mistakes_are_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()
