"""The report: its tables, its Markdown and its numbers."""

import json
import re
from itertools import pairwise

import pytest
import torch

from jepa_lightning.evaluation.collapse import Collapse
from jepa_lightning.evaluation.evaluate_features import Encoded, Protocol, evaluate_features
from jepa_lightning.evaluation.features.pooled import Features
from jepa_lightning.evaluation.report.markdown import markdown_page
from jepa_lightning.evaluation.report.table import table


def features(samples, strength, seed):
    generator = torch.Generator().manual_seed(seed)
    digit = torch.arange(samples) % 3
    noise = torch.randn(samples, 6, generator=generator)
    return Features(strength * torch.eye(6)[digit] + noise, {"digit": digit, "size": noise[:, 3] + digit})


@pytest.fixture(scope="module")
def report():
    strengths = {"epoch 10": 1.0, "epoch|20": 3.0, "untrained": 0.3, "raw": 0.0}
    data = {
        name: Encoded(features(150, strength, 1), features(60, strength, 2)) for name, strength in strengths.items()
    }
    return evaluate_features(
        data,
        protocol=Protocol(label_shares=(0.1,), label_draws=2, shots=(1,), episodes=200, resamples=200),
        class_names={"digit": ["zero", "one", "<two>"]},
        settings={"pooling": "mean", "checkpoints": {"epoch 10": "last.ckpt"}, "odd": float("nan")},
    )


def test_the_table_has_every_encoder_beside_chance_and_the_comparison_in_words(report):
    text = report.table()
    for expected in (
        *("epoch 10", "epoch|20", "untrained", "raw", "chance", "knn", "logistic", "ridge", "3-way 1-shot"),
        *("digit (3 classes, accuracy; fitted on 150 and evaluated on 60 samples", "effective rank", "healthy"),
        *("training helps: +0.", "the data's own train and test part", "by the share of the training labels"),
    ):
        assert expected in text, expected
    score = report.score("epoch 10", "digit", "knn")
    row = next(line for line in text.splitlines() if line.startswith("epoch 10 "))
    assert f"{score.estimate.mean:.3f} [{score.estimate.low:.3f}, {score.estimate.high:.3f}]" in row
    with pytest.raises(ValueError, match="no score of"):
        report.score("epoch 10", "digit", "tree")


def test_the_numbers_are_plain_json(report):
    found = json.loads(json.dumps(report.as_dict()), parse_constant=pytest.fail)
    assert found["settings"]["pooling"] == "mean"
    assert found["settings"]["odd"] is None
    assert found["settings"]["division"]["seed"] == 0
    assert found["settings"]["versions"]["scikit-learn"]
    assert "0.001 to 10" in found["settings"]["probes"]["logistic"]
    assert found["settings"]["samples"]["raw"] == {"train": 150, "test": 60, "width": 6}
    assert len(found["scores"]) == 4 * (2 * 3 + 1 + 2)
    score = next(item for item in found["scores"] if (item["encoder"], item["probe"]) == ("raw", "knn"))
    assert score["estimate"]["mean"] == report.score("raw", "digit", "knn").estimate.mean
    assert sum(map(sum, found["confusions"][0]["counts"])) == 60
    assert found["confusions"][0]["names"] == ["zero", "one", "<two>"]
    assert sum(found["collapse"]["raw"]["spectrum"]) == pytest.approx(1)
    assert all("words" in item for item in found["differences"])


def test_rows_of_markdown_tables_have_as_many_cells_as_their_header(report):
    text = markdown_page(report)
    assert "| epoch\\|20 |" in text
    assert "(report.html)" in text
    lines = text.splitlines()
    cells = 0
    for before, line in pairwise(lines):
        if line.startswith("|") and before.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == len(re.findall(r"(?<!\\)\|", before))
            cells += 1
    assert cells > 20


def test_a_diverged_encoder_can_be_reported():
    values, labels = torch.full((40, 4), torch.nan), {"digit": torch.arange(40) % 2}
    report = evaluate_features(
        {"e": Encoded(Features(values, labels))}, protocol=Protocol(kind="folds", folds=2, shots=(1,), episodes=200)
    )
    assert isinstance(report.collapses["e"], Collapse)
    assert "diverged" in markdown_page(report)
    assert "not finite" in report.table()
    assert report.as_dict()["scores"][0]["estimate"]["mean"] is None


def test_columns_of_a_table_are_aligned():
    assert table(["a", "score"], [["long name", "1"], ["b", "0.25"]]) == (
        "a          score\nlong name      1\nb           0.25"
    )
