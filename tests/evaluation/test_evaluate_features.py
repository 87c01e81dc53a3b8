"""Known answers, and that the test part touches nothing but the score."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from jepa_lightning.evaluation.evaluate_features import Encoded, Protocol
from jepa_lightning.evaluation.evaluate_features import evaluate_features as evaluate
from jepa_lightning.evaluation.features.pooled import Features
from jepa_lightning.evaluation.features.token_store import TokenFeatures
from jepa_lightning.evaluation.probes.protocols import Interval
from jepa_lightning.evaluation.report.results import Difference

TRAIN, TEST = 240, 120


def noise(samples, seed, width=8):
    return torch.randn(samples, width, generator=torch.Generator().manual_seed(seed))


def labels(samples, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "digit": torch.from_numpy(rng.permutation(np.arange(samples) % 4)),
        "speaker": torch.from_numpy(rng.permutation(np.arange(samples) % 3)),
        "place": torch.from_numpy(rng.normal(size=(samples, 2))).float(),
    }


def encoded(make, seed=0):
    """`make(labels, seed)` gives the features of each part."""
    train, test = labels(TRAIN, 1), labels(TEST, 2)
    return Encoded(Features(make(train, seed), train), Features(make(test, seed + 100), test))


def perfect(found, seed):
    return torch.cat([F.one_hot(found["digit"], 4).float(), F.one_hot(found["speaker"], 3).float(), found["place"]], 1)


def unrelated(found, seed):
    return noise(len(found["digit"]), seed)


def weak(found, seed):
    return 0.9 * F.one_hot(found["digit"], 8).float() + noise(len(found["digit"]), seed)


def kinds(**more):
    return [
        Protocol(**more),
        Protocol(kind="folds", folds=3, **more),
        Protocol(kind="repeated", repeats=3, **more),
        Protocol(kind="groups", group="speaker", **more),
    ]


@pytest.mark.parametrize("protocol", kinds(), ids=lambda protocol: protocol.kind)
def test_features_that_are_the_labels_are_perfect(protocol):
    report = evaluate({"perfect": encoded(perfect)}, protocol=protocol, probes=("knn", "logistic", "svm", "ridge"))
    for score in report.scores:
        if score.probe == "ridge":
            assert score.estimate.mean > 0.999
        elif score.probe != "knn":  # whose cosine is drowned by the other labels
            assert score.estimate.mean == 1.0, score
    names = {"digit", "speaker", "place"} - {protocol.group}
    assert {score.label for score in report.scores} == names
    report = evaluate({"perfect": Encoded(*(Features(F.one_hot(part.labels["digit"], 4).float(), part.labels)
                                         for part in (encoded(perfect).train, encoded(perfect).test)))},
                   protocol=protocol, probes=("knn",), labels=("digit",))  # fmt: skip
    assert report.score("perfect", "digit", "knn").estimate.mean == 1.0


def test_shuffled_labels_give_chance_within_the_interval_as_often_as_it_says():
    covered = []
    for seed in range(25):
        report = evaluate(
            {"noise": encoded(unrelated, seed)}, probes=("knn", "ridge"), labels=("digit", "speaker", "place")
        )
        for score in report.scores:
            if score.measure == "accuracy":
                covered.append(score.estimate.low <= score.chance <= score.estimate.high)
            else:
                assert -0.3 < score.estimate.mean < 0.05
    assert 0.88 <= np.mean(covered) <= 1


@pytest.mark.parametrize("protocol", kinds(shots=(3,), episodes=200)[1:], ids=lambda protocol: protocol.kind)
def test_unrelated_features_give_chance_within_the_interval(protocol):
    report = evaluate({"noise": encoded(unrelated)}, protocol=protocol, probes=("knn", "logistic", "ridge"))
    for score in report.scores:
        if score.probe == "ridge":
            assert -0.2 < score.estimate.mean < 0.05
        else:
            assert score.estimate.low <= score.chance <= score.estimate.high, score
            assert score.estimate.high - score.estimate.low < 0.6
    assert report.score("noise", "digit", "4-way 3-shot").chance == 0.25


def test_a_collapsed_encoder_is_reported_as_collapsed_and_a_diverged_one_as_diverged():
    def constant(found, seed):
        return torch.ones(len(found["digit"]), 8) + 1e-4 * noise(len(found["digit"]), seed)

    def diverged(found, seed):
        return torch.full((len(found["digit"]), 8), torch.nan)

    report = evaluate({"a": encoded(weak), "b": encoded(constant), "c": encoded(diverged)}, pairs=[("c", "a")])
    assert [found.verdict for found in report.collapses.values()] == ["healthy", "collapsed", "diverged"]
    assert np.isnan(report.score("c", "digit", "knn").estimate.mean)
    assert report.differences[0].words == "inconclusive: a score is not finite"
    assert "not finite" in report.table()


def test_logistic_regression_agrees_with_scikit_learns():
    data = encoded(weak)
    score = evaluate({"weak": data}, probes=("logistic",), labels=("digit",)).score("weak", "digit", "logistic")
    scaler = StandardScaler().fit(data.train.values)
    model = LogisticRegression(C=score.chosen[0], max_iter=5000)
    model.fit(scaler.transform(data.train.values), data.train.labels["digit"])
    right = model.score(scaler.transform(data.test.values), data.test.labels["digit"])
    assert 0.4 < right < 0.9
    assert score.estimate.mean == pytest.approx(right, abs=1.5 / TEST)


def test_knn_agrees_with_scikit_learns():
    from sklearn.neighbors import KNeighborsClassifier

    data = encoded(weak)
    report = evaluate({"weak": data}, probes=("knn",), labels=("digit",), k=9)
    model = KNeighborsClassifier(9, metric="cosine", weights=lambda distance: np.exp(-distance / 0.07))
    model.fit(data.train.values, data.train.labels["digit"])
    right = model.score(data.test.values, data.test.labels["digit"])
    assert report.score("weak", "digit", "knn").estimate.mean == pytest.approx(right)


def test_a_planted_test_sample_leaves_all_else_as_it_was():
    plain = encoded(weak)
    planted = Encoded(plain.train, Features(plain.test.values.clone(), plain.test.labels))
    planted.test.values[5] = 1e9
    protocol = Protocol(label_shares=(0.1,), label_draws=2)
    probes = ("knn", "logistic", "svm", "ridge")
    here, there = (evaluate({"e": found}, protocol=protocol, probes=probes) for found in (plain, planted))
    changed = 0
    for one, other in zip(here.scores, there.scores, strict=True):
        assert one.chosen == other.chosen
        if one.measure == "accuracy":  # of the planted sample alone
            assert np.abs(np.subtract(one.values, other.values)).max() <= 1 / TEST + 1e-9
        changed += one.values != other.values
    assert changed  # it is judged
    assert here.collapses == there.collapses
    assert np.allclose(here.embeddings[0].points[:5], there.embeddings[0].points[:5])


def with_tokens(make, seed=0, tokens=3):
    """The features as the tokens' mean."""
    found = encoded(make, seed)
    spread = noise(len(found.values) * tokens, 9, found.values.shape[1]).unflatten(0, (-1, tokens))
    values = found.values.unsqueeze(1) + 0.1 * (spread - spread.mean(1, keepdim=True))
    return dataclasses.replace(found, tokens=TokenFeatures(values.half()))


def digits(found, seed):
    return F.one_hot(found["digit"], 8).float()


@pytest.mark.long
@pytest.mark.usefixtures("quick_attentive")
@pytest.mark.parametrize("protocol", kinds(), ids=lambda protocol: protocol.kind)
def test_the_attentive_probe_reads_labels_and_finds_none_in_noise(protocol):
    data = {"perfect": with_tokens(digits), "untrained": with_tokens(unrelated), "raw": encoded(perfect)}
    report = evaluate(data, protocol=protocol, probes=("attentive", "knn"), labels=("digit",))
    score = report.score("perfect", "digit", "attentive")
    assert score.estimate.mean == 1.0
    assert all(lr > 0 and decay > 0 for lr, decay in score.chosen)
    chance = report.score("untrained", "digit", "attentive")
    assert chance.estimate.low <= chance.chance <= chance.estimate.high
    pairs = [(d.encoder, d.baseline) for d in report.differences if d.probe == "attentive"]
    assert pairs == [("perfect", "untrained")]
    assert report.differences[0].words.startswith("training helps: +0.")
    assert report.notes == ["raw: no attentive probe, since it has no tokens"]
    assert "not finite" not in report.table()
    with pytest.raises(ValueError, match="no score of"):
        report.score("raw", "digit", "attentive")


def test_the_attentive_probe_of_continuous_labels():
    data = {"perfect": with_tokens(perfect), "noise": with_tokens(unrelated)}
    report = evaluate(data, probes=("attentive",), labels=("place",), pairs=[])
    score = report.score("perfect", "place", "attentive")
    assert score.measure == "R2"
    assert score.estimate.mean > 0.7
    assert report.score("noise", "place", "attentive").estimate.mean < 0.1


@pytest.mark.long
@pytest.mark.usefixtures("quick_attentive")
def test_a_planted_test_sample_leaves_the_attentive_probe_as_it_was():
    plain = with_tokens(weak)
    values = plain.tokens.values.clone()
    values[TRAIN + 5] = 6e4
    planted = dataclasses.replace(plain, tokens=TokenFeatures(values))
    settings = {"protocol": Protocol(label_shares=(0.3,), label_draws=2), "labels": ("digit", "place"), "pairs": []}
    reports = [evaluate({"e": data}, probes=("attentive",), **settings) for data in (plain, planted)]
    for one, other in zip(*(report.scores for report in reports), strict=True):
        assert one.chosen == other.chosen
        if one.measure == "accuracy":  # of the planted sample alone
            assert np.abs(np.subtract(one.values, other.values)).max() <= 1 / TEST + 1e-9


@pytest.mark.usefixtures("quick_attentive")
def test_the_attentive_probe_of_samples_without_a_label_and_of_diverged_features():
    data = with_tokens(weak)
    data.train.labels["digit"][:40] = -1
    bad = dataclasses.replace(data, train=Features(data.train.values + torch.nan, data.train.labels))
    report = evaluate({"e": data, "b": bad}, probes=("attentive",), labels=("digit",), pairs=[("b", "e")])
    assert report.score("e", "digit", "attentive").train == TRAIN - 40
    assert report.score("e", "digit", "attentive").estimate.mean > 0.4
    assert np.isnan(report.score("b", "digit", "attentive").estimate.mean)


def test_views_of_some_samples_give_the_alignment():
    data, rows = encoded(weak), torch.tensor([3, 5, 200])
    views = data.train.values[rows] + 0.1
    report = evaluate({"e": dataclasses.replace(data, views=views, viewed=rows)}, probes=("knn",), pairs=[])
    apart = F.normalize(data.train.values[rows], dim=1) - F.normalize(views, dim=1)
    assert report.collapses["e"].alignment == pytest.approx(float(apart.square().sum(1).mean()), rel=1e-5)


@pytest.mark.usefixtures("quick_logistic")
def test_the_same_features_do_not_differ_and_better_ones_do():
    data = {"again": encoded(weak), "untrained": encoded(weak), "raw": encoded(perfect)}
    for protocol in kinds(shots=(1,), episodes=200, label_shares=(0.2,), label_draws=2)[:2]:
        report = evaluate(data, protocol=protocol, labels=("digit",), probes=("logistic",))
        assert {(found.encoder, found.baseline) for found in report.differences} == {
            ("again", "untrained"), ("again", "raw")}  # fmt: skip
        for found in report.differences:
            if found.baseline == "untrained":
                assert found.estimate.low <= 0 <= found.estimate.high
                assert found.words.startswith("no significant difference at this size: +0.000")
            elif found.probe == "logistic" and found.share == 1.0:
                assert found.estimate.high < 0
                assert found.words.startswith("worse than raw: -0.")
    better = evaluate(
        {"trained": encoded(perfect), "untrained": encoded(weak)}, labels=("digit",), probes=("logistic",)
    )
    assert better.differences[0].words.startswith("training helps: +0.")
    worse = evaluate({"trained": encoded(weak), "untrained": encoded(perfect)}, labels=("digit",), probes=("logistic",))
    assert worse.differences[0].words.startswith("training hurts: -0.")


def test_a_low_label_curve_learns_from_that_many_labels_and_is_judged_by_all_test_samples():
    protocol = Protocol(label_shares=(0.05, 0.5), label_draws=3)
    report = evaluate({"weak": encoded(weak)}, protocol=protocol, probes=("logistic", "ridge"))
    for label, probe in (("digit", "logistic"), ("place", "ridge")):
        found = {share: report.score("weak", label, probe, share=share) for share in (0.05, 0.5, 1.0)}
        assert [score.train for score in found.values()] == [12, 120, 240]
        assert [len(score.values) for score in found.values()] == [3, 3, 1]
        assert {score.test for score in found.values()} == {TEST}
    assert found[1.0].over == "test samples"
    few, all_ = (report.score("weak", "digit", "logistic", share=share) for share in (0.05, 1.0))
    assert few.estimate.mean < all_.estimate.mean
    assert few.over == "test samples and 3 draws of the labels"


def test_samples_without_a_label_and_groups_without_a_name_are_left_out():
    found = labels(100)
    found["digit"][:20] = -1
    found["place"][:10, 1] = torch.nan
    found["speaker"][50:60] = -1
    data = {"e": Encoded(Features(perfect({**found, "digit": found["digit"].clamp(min=0),
                                           "speaker": found["speaker"].clamp(min=0),
                                           "place": found["place"].nan_to_num()}, 0), found))}  # fmt: skip
    report = evaluate(data, protocol=Protocol(kind="folds", folds=5), probes=("logistic", "ridge"))
    sizes = {score.label: score.train + score.test for score in report.scores}
    assert sizes == {"digit": 80, "speaker": 90, "place": 90}
    report = evaluate(data, protocol=Protocol(kind="groups", group="speaker"), probes=("logistic",), labels=("digit",))
    assert report.score("e", "digit", "logistic").train + report.score("e", "digit", "logistic").test == 70
    assert report.confusions[0].counts.sum() == 70


def one(**columns):
    """An encoder of 20 samples with these labels."""
    return {"e": Encoded(Features(noise(20, 0), {name: torch.as_tensor(value) for name, value in columns.items()}))}


FOLDS = Protocol(kind="folds", folds=2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: evaluate(one(digit=[3] * 20), protocol=FOLDS),
            "label 'digit': all 20 samples have the same value, 3",
        ),
        (
            lambda: evaluate(one(digit=[-1] * 20), protocol=FOLDS),
            "label 'digit': none of the 20 samples has it",
        ),
        (
            lambda: evaluate(one(size=[torch.nan] * 20), protocol=FOLDS),
            "label 'size': none of the 20 samples has it",
        ),
        (
            lambda: evaluate(one(digit=[0, 1] * 10), protocol=FOLDS, labels=("digits",)),
            r"no label 'digits' .*\['digit'\]",
        ),
        (lambda: evaluate(one(), protocol=FOLDS), "the data have no labels"),
        (lambda: evaluate(one(box=[[1, 2]] * 20), protocol=FOLDS), "label 'box': expected one class a sample"),
        (
            lambda: evaluate(one(digit=[0] * 19 + [1]), protocol=FOLDS),
            "label 'digit': expected at least 2 classes with at",
        ),
        (
            lambda: evaluate(one(digit=[0, 1] * 10), protocol=FOLDS, probes=("ridge",)),
            "'digit': not evaluated, since it is",
        ),
        (
            lambda: evaluate(one(digit=[0, 1] * 10), protocol=FOLDS, probes=("tree",)),
            "expected probes among knn",
        ),
        (
            lambda: evaluate(one(digit=[0, 1] * 10)),
            "encoder 'e': the protocol split needs features of a test part",
        ),
        (lambda: evaluate({}), "at least one encoder"),
        (
            lambda: evaluate({"a": encoded(weak)}, probes=("attentive",)),
            "expected token features of at least one encoder",
        ),
        (
            lambda: evaluate(
                {"a": dataclasses.replace(encoded(weak), tokens=TokenFeatures(noise(9, 0)))}, probes=("attentive",)
            ),
            "expected tokens of all 360 samples of 'a', got 9",
        ),
        (lambda: Protocol(shots=(1,), ways=1), "at least 2 ways"),
        (
            lambda: evaluate({"a": encoded(weak), "b": Encoded(encoded(weak).test, encoded(weak).train)}),
            "the same samples",
        ),
        (
            lambda: evaluate({"a": encoded(weak)}, pairs=[("a", "untrained")]),
            "no encoder 'untrained' to compare",
        ),
        (
            lambda: evaluate({"a": encoded(weak)}, protocol=Protocol(kind="groups", group="place")),
            "no class label 'place'",
        ),
        (
            lambda: evaluate({"a": encoded(weak)}, protocol=Protocol(shots=(20,)), labels=("digit",)),
            "label 'digit': .*4-way 20-shot",
        ),
        (lambda: Protocol(kind="tree"), "split, folds, repeated or groups"),
        (lambda: Protocol(kind="groups"), "expected a group"),
        (lambda: Protocol(label_shares=(0.0,)), "label_shares above 0"),
        (lambda: Protocol(resamples=10), "resamples >= 100"),
        (lambda: Protocol(shots=(1,), episodes=250), "multiple of 100"),
        (lambda: Protocol(shots=(0,)), "at least one shot"),
    ],
)
def test_mistakes_are_told_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_column_that_tells_nothing_apart_is_noted_and_the_others_are_judged():
    columns = one(digit=[0, 1] * 10, year=[7] * 20, flag=[True] * 20, number=range(20))
    protocol = Protocol(kind="folds", folds=2, shots=(1, 5), episodes=200)
    report = evaluate(columns, protocol=protocol, probes=("knn",))
    assert {score.label for score in report.scores} == {"digit"}
    assert [score.probe for score in report.scores] == ["knn", "2-way 1-shot"]
    starts = [
        "label 'year': all 20 samples have the same value, 7: nothing to predict (skipped)",
        "label 'flag': all 20 samples",
        "label 'digit': expected at least 2 classes with more than 5 samples",
        "label 'number': expected at least 2",
    ]
    assert len(report.notes) == 4
    assert all(note.startswith(start) for note, start in zip(report.notes, starts, strict=True))
    assert "note: label 'year'" in report.table()


def test_threads_are_as_before():
    before = torch.get_num_threads()
    evaluate({"a": encoded(weak)}, probes=("knn",))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("low", "high", "samples", "words"),
    [
        (0.1, 0.3, 20, "training helps"),
        (0.1, 0.3, None, "training helps"),
        (-0.3, -0.1, 2000, "training hurts"),
        (0.1, 0.3, 19, "no significant difference at this size (19 samples)"),
        (-0.3, -0.1, 2, "no significant difference at this size (2 samples)"),
        (0.2, 0.2, 2000, "no significant difference"),
        (0.0, 0.0, 2, "no significant difference"),
        (float("nan"), float("nan"), 2000, "no significant difference"),
    ],
)
def test_words_need_samples_and_an_interval_with_a_width(low, high, samples, words):
    estimate = Interval(mean=0.2 if low != low or low > 0 else -0.2, low=low, high=high, std=0.1, count=1)
    found = Difference("trained", "untrained", "y", "ridge", "R2", 1.0, estimate, samples)
    assert found.words.startswith(words)


@pytest.mark.parametrize("judged", [2, 3, 10, 19])
@pytest.mark.parametrize("classes", [True, False])
def test_few_samples_are_never_told_of_in_words(judged, classes):
    """However much better one of two encoders is on them."""
    rng = torch.Generator().manual_seed(0)
    values = torch.arange(100 + judged) % 2 if classes else torch.randn(100 + judged, generator=rng)
    noise = torch.randn(100 + judged, 4, generator=rng)
    good = torch.cat([10.0 * values[:, None].float(), 0.1 * noise[:, :1]], 1)

    def part(features):
        return Encoded(*(Features(features[s], {"y": values[s]}) for s in (slice(None, 100), slice(100, None))))

    report = evaluate({"trained": part(good), "untrained": part(noise)}, probes=["ridge", "knn"])
    assert report.differences
    for found in report.differences:
        assert found.samples == judged
        assert "helps" not in found.words
        assert "hurts" not in found.words
