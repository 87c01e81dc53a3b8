"""Drawings are well-formed and draw what they were given, odd input too."""

import dataclasses
import warnings
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from jepa_lightning.evaluation.collapse import Collapse
from jepa_lightning.evaluation.probes.protocols import Interval
from jepa_lightning.evaluation.probes.tasks import Task
from jepa_lightning.evaluation.report.plots import draw_plots, plot_run
from jepa_lightning.evaluation.report.results import Confusion, Embedding

SPACE = "{http://www.w3.org/2000/svg}"


def words(plot):
    return ["".join(part.itertext()).strip() for part in ElementTree.fromstring(plot.svg).iter(SPACE + "text")]


def test_words_of_the_plots(plots):
    (scores,), (knn, logistic), confusions, embeddings = plots.labels["kind"]
    assert {"knn", "logistic", "trained", "chance", "accuracy"} <= set(words(scores))
    for plot in (knn, logistic):
        assert {"10%", "100%", "share of the training labels"} <= set(words(plot))
    assert {"true class", "predicted class", "_b", "3", "5"} <= set(words(confusions[1]))
    assert [name for name in words(confusions[0]) if name.startswith("</script><script>")]  # no formula, no markup
    assert "_b" in words(embeddings[0])  # which matplotlib's own rule would leave out
    (spectrum,) = plots.collapse
    assert {"principal component", "trained", "0.1"} <= set(words(spectrum))


def test_points_are_where_they_are_drawn(plots):
    """Against the drawing's own ticks: the pixel of a tick's value is that of a sample with this value."""
    plot = plots.labels["kind"][3][0]
    places = {row: (x, y) for x, y, row in plot.points}
    assert set(places) == {6, 7, 8}  # one is not a number
    root = ElementTree.fromstring(plot.svg)
    assert root.get("viewBox") == f"0 0 {plot.size[0]:g} {plot.size[1]:g}"
    ticks = {}
    for group in root.iter(SPACE + "g"):
        if (group.get("id") or "").startswith("xtick"):
            mark = next(group.iter(SPACE + "use"))
            ticks[float("".join(next(group.iter(SPACE + "text")).itertext()))] = float(mark.get("x"))
    assert places[6][0] == pytest.approx(ticks[0.0], abs=0.1)
    assert places[7][0] == pytest.approx(ticks[2.0], abs=0.1)
    assert places[6][1] < places[8][1] < places[7][1]  # upwards
    assert all(0 < x < plot.size[0] and 0 < y < plot.size[1] for x, y in places.values())


@pytest.fixture
def small(report):
    """Of one score and one embedding."""
    return dataclasses.replace(
        report, scores=report.scores[1:2], embeddings=report.embeddings[:1], confusions=report.confusions[:1]
    )


@pytest.mark.parametrize("count", [2, 13, 26, 60, 130])
def test_many_classes(small, count):
    names = tuple(f"class {number}" for number in range(count))
    task = Task("kind", np.arange(10), np.arange(10) % count, names)
    confusion = Confusion("trained", "kind", "knn", names, np.eye(count, dtype=np.int64) * 1234)
    drawn = draw_plots(dataclasses.replace(small, tasks=[task], confusions=[confusion]))
    _, _, confusions, embeddings = drawn.labels["kind"]
    assert len(confusions) == (count <= 100)
    for plot in confusions:
        assert ("1234" in words(plot)) == (count <= 12)
        assert ("class 1" in words(plot)) == (count <= 40)
    assert ("others" in words(embeddings[0])) == (count > 24)


def test_odd_input_is_drawn_all_the_same(small):
    nothing = Interval(np.nan, np.nan, np.nan, np.nan, 4)
    odd = dataclasses.replace(
        small,
        scores=[dataclasses.replace(small.scores[0], estimate=nothing)],
        embeddings=[Embedding("trained", np.full((4, 2), np.nan), (np.nan, np.nan), np.arange(4))],
        collapses={"trained": Collapse("diverged", np.nan, np.nan, np.nan, (), np.nan)},
        confusions=[Confusion("trained", "kind", "knn", ("猫", "🐈"), np.zeros((2, 2), dtype=np.int64))],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots = draw_plots(odd)
    assert "猫" in words(plots.labels["kind"][2][0])
    assert not plots.labels["kind"][3][0].points
    assert plots.collapse == []


def test_a_score_far_below_is_drawn_at_the_edge(small):
    far = dataclasses.replace(small.scores[0], measure="R2", estimate=Interval(-80.0, -90.0, -70.0, 1.0, 4))
    ((scores,), *_) = draw_plots(dataclasses.replace(small, scores=[far])).labels["kind"]
    assert "R2 (below -1 is drawn at -1)" in words(scores)


def test_a_run():
    metrics = {
        "train/loss": ([0.0, 10.0], [1.0, 0.5]),
        "probe/knn": ([5.0], [0.4]),
        "probe/knn_untrained": ([5.0], [0.2]),
        "probe/r2_size": ([5.0], [0.4]),
        "collapse/effective_rank": ([5.0, 9.0], [3.0, 4.0]),
    }
    found = words(plot_run(metrics, title="run", titled=True))
    assert {"run", "loss", "accuracy of probes", "R2 of ridge probes", "effective rank", "untrained"} <= set(found)
    found = words(plot_run(metrics, title="run", loss=False))
    assert not {"run", "loss"} & set(found)


def test_the_settings_of_matplotlib_stay_as_they_are_and_change_nothing():
    metrics = {"train/loss": ([0.0, 10.0], [1.0, 0.5])}
    first = plot_run(metrics, title="run")
    with mpl.rc_context({"font.size": 30, "axes.grid": False}):
        before = dict(mpl.rcParams)
        assert plot_run(metrics, title="run") == first
        assert dict(mpl.rcParams) == before
