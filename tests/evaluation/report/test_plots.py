"""Drawings are well-formed, and draw what they were given."""

from xml.etree import ElementTree

import numpy as np
import pytest

from jepa_lightning.evaluation.report.plots import (
    Curve,
    bar_chart,
    gradient,
    heat_map,
    line_chart,
    scatter,
    stacked_charts,
)
from jepa_lightning.evaluation.report.svg import COLOURS, Axes, fit, number, ticks

SPACE = "{http://www.w3.org/2000/svg}"


def parsed(drawing):
    """The drawing's root, once all of it is known to lie inside."""
    root = ElementTree.fromstring(drawing)
    width, height = (float(size) for size in root.get("viewBox").split()[2:])
    for part in root.iter():
        for name, limit in (("x", width), ("y", height), ("cx", width), ("cy", height)):
            if part.get(name) is not None:
                assert -0.1 <= float(part.get(name)) <= limit + 0.1, (part.tag, part.attrib)
        for point in (part.get("points") or "").split():
            x, y = map(float, point.split(","))
            assert -0.1 <= x <= width + 0.1
            assert -0.1 <= y <= height + 0.1
        if part.tag == SPACE + "text" and not part.get("transform"):
            room = 7.3 * len(part.text) * float(part.get("font-size")) / 13
            left = {"start": 0, "middle": room / 2, "end": room}[part.get("text-anchor")]
            assert float(part.get("x")) - left > -6, part.text
            assert float(part.get("x")) - left + room < width + 6, part.text
    return root


def words(root):
    return [text.text for text in root.iter(SPACE + "text")]


def test_a_line_chart_has_a_band_a_legend_and_the_level():
    curve = Curve("trained & <tuned>", [0.01, 0.1, 1], [0.3, 0.5, 0.8], [0.2, 0.4, 0.7], [0.4, 0.6, 0.9])
    marks = [(0.01, "1%"), (0.1, "10%"), (1, "100%")]
    other = Curve("untrained", [0.01, 0.1, 1], [0.2, np.nan, 0.4])
    drawing = line_chart([curve, other], title="t < 1", x_label="labels", y_label="accuracy", log_x=True, marks=marks,
                         level=(0.1, "chance"))  # fmt: skip
    root = parsed(drawing)
    found = words(root)
    for expected in ("t < 1", "labels", "accuracy", "1%", "100%", "trained & <tuned>", "untrained", "chance (dashed)"):
        assert expected in found
    assert len(list(root.iter(SPACE + "polygon"))) == 1
    assert len(list(root.iter(SPACE + "circle"))) == 3 + 2  # one is not a number
    dots = [(float(dot.get("cx")), float(dot.get("cy"))) for dot in root.iter(SPACE + "circle")][:3]
    assert dots[1][0] - dots[0][0] == pytest.approx(dots[2][0] - dots[1][0], abs=0.2)  # logarithmic
    assert dots[0][1] > dots[1][1] > dots[2][1]  # upwards


def test_bars_are_as_high_as_their_values():
    root = parsed(bar_chart([0.5, 0.25, 0.0], title="spectrum", x_label="component", y_label="share"))
    heights = [float(bar.get("height")) for bar in root.iter(SPACE + "rect") if bar.get("fill") == COLOURS[0]]
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.2)
    assert heights[2] == 0
    assert {"1", "2", "3"} <= set(words(root))


@pytest.mark.parametrize(
    ("count", "name"), [(2, "{}"), (10, "class {}"), (26, "a rather long name of class {}"), (60, "{}")]
)
def test_a_heat_map_names_its_classes_and_counts(count, name):
    counts = np.eye(count, dtype=int) * 1234 + 1
    root = parsed(heat_map(counts, [name.format(index) for index in range(count)], title="confusion"))
    found = words(root)
    assert ("1235" in found) == (count <= 12)
    if count <= 10:
        assert found.count(name.format(1)) >= 2
    assert {"true class", "predicted class", "share of the row"} <= set(found)


def test_a_scatter_has_one_dot_a_point_and_one_colour_a_group():
    points = np.random.default_rng(0).normal(size=(60, 2))
    points[3] = np.nan
    settings = dict(title="pca", x_label="first", y_label="second")
    root = parsed(scatter(points, np.arange(60) % 3, ["a", "b", "c"], **settings))
    dots = [dot.get("fill") for dot in root.iter(SPACE + "circle")]
    assert {colour: dots.count(colour) for colour in set(dots)} == {COLOURS[0]: 19, COLOURS[1]: 20, COLOURS[2]: 20}
    assert words(root).count("b") == 3  # in the legend, at the median, and the white around that
    ordered = parsed(scatter(points, np.arange(60) % 3, ["a", "b", "c"], ordered=True, **settings))
    assert {dot.get("fill") for dot in ordered.iter(SPACE + "circle")} == set(gradient(3))
    many = parsed(scatter(points, np.arange(60) % 25, [str(index) for index in range(25)], **settings))
    assert words(many).count("24") == 1


def test_stacked_charts_share_the_steps():
    steps = list(range(0, 1000, 100))
    root = parsed(stacked_charts([("loss", Curve("", steps, [1 / (1 + step) for step in steps])),
                                  ("rank", Curve("", [0, 900], [2, 9]))], title="run", x_label="step"))  # fmt: skip
    assert {"loss", "rank", "step"} <= set(words(root))
    dots = [float(dot.get("cx")) for dot in root.iter(SPACE + "circle")]
    assert dots[0] == dots[10]
    assert dots[9] == dots[11]


@pytest.mark.parametrize(
    "drawing",
    [
        line_chart([], title="none", x_label="x", y_label="y"),
        line_chart([Curve("one", [1], [0.5])], title="one", x_label="x", y_label="y", log_x=True),
        line_chart([Curve("same", [1, 2], [3, 3])], title="same", x_label="x", y_label="y"),
        bar_chart([], title="none", x_label="x", y_label="y"),
        bar_chart([np.nan, 0.0], title="zero", x_label="x", y_label="y"),
        scatter(np.full((4, 2), np.nan), np.zeros(4, dtype=int), ["a"], title="none", x_label="x", y_label="y"),
        scatter(np.ones((4, 2)), np.zeros(4, dtype=int), ["a"], title="a" * 99, x_label="x" * 99, y_label="y" * 99),
        heat_map(np.zeros((2, 2), dtype=int), ["a", "b"], title="zero"),
    ],
)
def test_odd_input_is_drawn_all_the_same(drawing):
    assert "nan" not in drawing.lower().replace("<title>", "")
    parsed(drawing)


def test_ticks_are_round_numbers_inside_the_range():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(-0.13, 0.31) == [-0.1, 0, 0.1, 0.2, 0.3]
    assert ticks(0, 20000) == [0, 5000, 10000, 15000, 20000]
    assert ticks(3, 3) == [3]
    assert [number(value) for value in (20000, 1.5e6, 0.25, 0)] == ["20k", "1.5M", "0.25", "0"]


def test_axes_go_right_and_up():
    axes = Axes((0, 10), (0, 1), (50, 20, 100, 200))
    assert axes.at(0, 0) == (50, 220)
    assert axes.at(10, 1) == (150, 20)
    assert Axes((1, 100), (0, 1), (0, 0, 100, 100), log_x=True).at(10, 0.5) == pytest.approx((50, 50))


def test_long_words_are_cut():
    assert fit("abc", 100) == "abc"
    assert fit("a" * 50, 73) == "a" * 9 + "…"
