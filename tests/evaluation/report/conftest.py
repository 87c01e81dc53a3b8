"""A small report made by hand, of samples, classes and encoders with a stranger's names."""

import base64

import numpy as np
import pytest

from jepa_lightning.evaluation.collapse import Collapse
from jepa_lightning.evaluation.probes.protocols import Interval
from jepa_lightning.evaluation.probes.tasks import Task
from jepa_lightning.evaluation.report.plots import draw_plots
from jepa_lightning.evaluation.report.report import Report
from jepa_lightning.evaluation.report.results import Confusion, Difference, Embedding, Neighbours, Score

NASTY = "</script><script>alert('1')</script><img src=x onerror=\"alert(2)\"> & $\\frac$ _ \x1b[31m\n\u202e"
PNG = base64.b64decode(  # one pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
ENCODERS = ("trained", f"untrained {NASTY}")


@pytest.fixture(scope="session")
def report():
    scores, differences, confusions = [], [], []
    for place, encoder in enumerate(ENCODERS):
        for label, probe, measure in (
            ("kind", "knn", "accuracy"),
            ("kind", "logistic", "accuracy"),
            (NASTY, "ridge", "R2"),
        ):
            for share in (0.1, 1.0):
                mean = 0.123 + 0.1 * place + 0.3 * share + 0.011 * len(probe)
                found = Interval(mean, mean - 0.05, mean + 0.05, 0.0, 4)
                scores.append(Score(encoder, label, probe, measure, share, found, "test samples", 0.5, 6, 4))
        counts = np.array([[3, 1], [0, 4 + place]])
        confusions.append(Confusion(encoder, "kind", "logistic", (NASTY, "_b"), counts))
    differences.append(Difference(*ENCODERS, "kind", "knn", "accuracy", 1.0, Interval(-0.1, -0.2, -0.03, 0.0, 4), 40))
    rows = np.arange(6, 10)
    points = {
        name: np.array([[0.0, 1.0], [2.0, -1.0], [1.0, place], [np.nan, 0.0]]) for place, name in enumerate(ENCODERS)
    }
    settings = {
        "scores": scores, "differences": differences, "confusions": confusions,
        "collapses": {name: Collapse("healthy", 3.21, 0.5, 0.7, (0.6, 0.3, 0.1), -1.5) for name in ENCODERS},
        "embeddings": [Embedding(name, points[name], (0.6, 0.3), rows) for name in ENCODERS],
        "tasks": [
            Task("kind", np.arange(10), np.arange(10) % 2, (NASTY, "_b")),
            Task(NASTY, np.arange(1, 10), np.linspace(0, 1, 9)[:, None]),
        ],
        "notes": [f"left out: {NASTY}"],
        "settings": {"protocol": "the data's own", "file": NASTY, "odd": float("nan")},
        "ids": [f"root/{NASTY}{number}.png" for number in range(10)],
        "neighbours": Neighbours(
            np.array([6, 9]),
            {name: np.array([[7, 8], [8, 6]]) for name in ENCODERS},
            {name: np.array([[0.987, 0.654], [0.4, 0.3]]) for name in ENCODERS},
            dict.fromkeys(range(6, 10), PNG),
        ),
    }  # fmt: skip
    return Report(**settings)


@pytest.fixture(scope="session")
def plots(report):
    return draw_plots(report)
