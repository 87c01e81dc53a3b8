"""The plots of a report as SVG text: curves with intervals, bars, a confusion matrix, points, a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from jepa_lightning.evaluation.report import svg
from jepa_lightning.evaluation.report.svg import COLOURS, Axes

_WIDTH, _HEIGHT = 460, 280  # of the area inside the axes
_LEFT, _TOP, _BOTTOM, _GAP = 84, 44, 56, 18
_MANY = 40  # classes whose names are not written one by one


@dataclass(frozen=True)
class Curve:
    """One line of a chart.

    Attributes:
        name: in the legend.
        x: values in ascending order.
        y: as many.
        low: lower ends of intervals, or none.
        high: upper ends.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = field(default=())
    high: Sequence[float] = field(default=())


def line_chart(
    curves: Sequence[Curve],
    *,
    title: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    marks: Sequence[tuple[float, str]] | None = None,
    level: tuple[float, str] | None = None,
) -> str:
    """Lines with dots and, where they have them, intervals as shaded bands.

    Args:
        curves: points that are not finite are left out.
        title: above.
        x_label: below.
        y_label: on the left.
        log_x: logarithmic x, all above 0.
        marks: where x has ticks, and their names; None for round numbers (the x values themselves if `log_x`).
        level: a dashed horizontal line and its name, such as chance.
    """
    curves = [_finite(curve) for curve in curves]
    everything_x = [x for curve in curves for x in curve.x] or [0.0, 1.0]
    everything_y = [y for curve in curves for values in (curve.y, curve.low, curve.high) for y in values]
    everything_y += [level[0]] if level else []
    axes = Axes(_range(everything_x, log=log_x), _range(everything_y, margin=0.06), (_LEFT, _TOP, _WIDTH, _HEIGHT),
                log_x=log_x)  # fmt: skip
    if marks is None:
        at = sorted(set(everything_x)) if log_x else svg.ticks(*axes.x)
        marks = [(value, svg.number(value)) for value in at]
    heights = [(value, svg.number(value)) for value in svg.ticks(*axes.y)]
    parts = axes.frame(x_label, y_label, x_ticks=marks, y_ticks=heights)
    if level:
        parts.append(svg.line([axes.at(x, level[0]) for x in axes.x], svg.INK, dashed=True))
    for curve, colour in zip(curves, _colours(len(curves)), strict=True):
        above = [axes.at(*point) for point in zip(curve.x, curve.high, strict=False)]
        below = [axes.at(*point) for point in zip(curve.x, curve.low, strict=False)]
        parts += [svg.area([*above, *below[::-1]], colour)] if len(above) > 1 else []
        points = [axes.at(*point) for point in zip(curve.x, curve.y, strict=True)]
        parts.append(svg.line(points, colour, width=2))
        if len(points) <= 30:
            parts += [svg.line([high, low], colour) for high, low in zip(above, below, strict=True)]
            parts += [svg.dot(*point, colour) for point in points]
    names, colours = [curve.name for curve in curves], _colours(len(curves))
    if level:
        names, colours = [*names, f"{level[1]} (dashed)"], [*colours, svg.INK]
    return _finish(parts, names, colours, title)


def bar_chart(values: Sequence[float], *, title: str, x_label: str, y_label: str) -> str:
    """Bars numbered from 1, all values at least 0."""
    heights = np.nan_to_num(np.asarray(values, dtype=float))
    count = max(1, len(heights))
    top = float(heights.max(initial=0)) or 1.0
    axes = Axes((0.5, count + 0.5), (0.0, top * 1.05), (_LEFT, _TOP, _WIDTH, _HEIGHT))
    marks = [(v, svg.number(v)) for v in sorted({1.0, *svg.ticks(1, count)}) if v >= 1 and v == round(v)]
    parts = axes.frame(
        x_label, y_label, x_ticks=marks, y_ticks=[(v, svg.number(v)) for v in svg.ticks(*axes.y) if v >= 0]
    )
    wide = min(40.0, max(1.0, 0.8 * _WIDTH / count))
    for index, height in enumerate(heights, 1):
        x, y = axes.at(index, height)
        bottom = axes.at(index, 0)[1]
        parts.append(svg.box(x - wide / 2, y, wide, bottom - y, COLOURS[0], title=f"{index}: {height:.4g}"))
    return _finish(parts, [], [], title)


def heat_map(matrix: NDArray[np.int64], names: Sequence[str], *, title: str) -> str:
    """A confusion matrix: rows are true classes, columns what was said, colours the share of the row.

    Counts are written into the cells of up to 12 classes; of more than 40, no class is named.
    """
    count = len(matrix)
    side = min(36.0, max(4.0, 360 / max(1, count)))
    written, named = count <= 12, count <= _MANY
    names = [svg.fit(name, 130) for name in names]
    margin = svg.LETTER * max(map(len, names)) + 14 if named else 14
    left, top = margin + 30, 44.0
    edge = count * side
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    parts = []
    for row in range(count):
        for column in range(count):
            x, y, share = left + column * side, top + row * side, float(shares[row, column])
            words = f"{names[row]} said to be {names[column]}: {matrix[row, column]}" if named else ""
            if share:  # the ground is as white as 0
                parts.append(svg.box(x, y, side, side, _shade(share), title=words))
            if written:
                ink = "#FFFFFF" if share > 0.5 else svg.INK
                size = min(svg.SIZE, 1.5 * side / max(2, len(str(matrix.max()))))
                parts.append(
                    svg.text(str(matrix[row, column]), x + side / 2, y + side / 2 + 4.5, size=size, colour=ink)
                )
    level = max(map(len, names)) * svg.LETTER <= side  # the names fit under their columns
    every = 1 if side >= 13 else 2
    for index in range(0, count, every) if named else ():
        middle = (index + 0.5) * side
        parts.append(svg.text(names[index], left - 7, top + middle + 4.5, anchor="end"))
        x, y = left + middle, top + edge + (18 if level else 8)
        parts.append(
            svg.text(names[index], x, y) if level else svg.text(names[index], x + 4, y, anchor="end", turn=-90)
        )
    below = (26.0 if level else margin) if named else 14.0
    parts.append(
        svg.line([(left, top), (left, top + edge), (left + edge, top + edge), (left + edge, top), (left, top)])
    )
    parts.append(svg.text("true class", 18, top + edge / 2, turn=-90))
    parts.append(svg.text("predicted class", left + edge / 2, top + edge + below + 14))
    bar = left + edge + 24
    for step in range(20):
        parts.append(svg.box(bar, top + edge - (step + 1) * edge / 20, 14, edge / 20 + 0.5, _shade((step + 0.5) / 20)))
    parts += [svg.text(f"{share:g}", bar + 20, top + edge * (1 - share) + 4.5, anchor="start") for share in (0, 0.5, 1)]
    parts.append(svg.text("share of the row", bar + 58, top + edge / 2, turn=-90))
    width = max(bar + 76, svg.LETTER * len(title) * 15 / svg.SIZE + 40)
    return svg.document(parts, width=width, height=top + edge + below + 26, title=title)


def scatter(points: NDArray[np.float64], groups: NDArray[np.int64], names: Sequence[str], *, title: str,
            x_label: str, y_label: str, ordered: bool = False) -> str:  # fmt: skip
    """Points (n, 2), coloured by the number (n,) of their group, with a legend of the groups' names.

    Up to 20 groups have their name at their median too, for whom the colours are not enough; `ordered` ones, whose
    colours go from dark to light, do not.
    """
    kept = np.isfinite(points).all(1)
    points, groups = points[kept], groups[kept]
    axes = Axes(_range(points[:, 0], margin=0.04), _range(points[:, 1], margin=0.04), (_LEFT, _TOP, 380, 340))
    marks = [[(v, svg.number(v)) for v in svg.ticks(*limits)] for limits in (axes.x, axes.y)]
    parts = axes.frame(x_label, y_label, x_ticks=marks[0], y_ticks=marks[1])
    colours = gradient(len(names)) if ordered else _colours(len(names))
    # In a mixed order, or the last group would cover the others.
    for index in np.random.default_rng(0).permutation(len(points)):
        parts.append(svg.dot(*axes.at(*points[index]), colours[groups[index]], opacity=0.65))
    for group in np.unique(groups) if len(names) <= 20 and not ordered else ():
        x, y = axes.at(*np.median(points[groups == group], axis=0))
        words = svg.fit(names[group], 90)
        parts += [svg.text(words, x, y + 4.5, halo=True), svg.text(words, x, y + 4.5, bold=True)]
    return _finish(parts, names, colours, title, inside=(380, 340))


def stacked_charts(panels: Sequence[tuple[str, Curve]], *, title: str, x_label: str) -> str:
    """One curve a panel under each other over the same x, such as the loss and the rank of a run."""
    curves = [(label, _finite(curve)) for label, curve in panels]
    limits = _range([x for _, curve in curves for x in curve.x])
    parts, height = [], 170
    for number, (label, curve) in enumerate(curves):
        top = _TOP + number * (height + 62)
        axes = Axes(limits, _range(curve.y, margin=0.06), (_LEFT, top, _WIDTH, height))
        marks = [[(v, svg.number(v)) for v in svg.ticks(*ends, most=5)] for ends in (axes.x, axes.y)]
        parts += axes.frame(x_label, label, x_ticks=marks[0], y_ticks=marks[1])
        points = [axes.at(*point) for point in zip(curve.x, curve.y, strict=True)]
        parts.append(svg.line(points, COLOURS[number % len(COLOURS)], width=1.5))
        parts += [svg.dot(*point, COLOURS[number % len(COLOURS)]) for point in points] if len(points) <= 30 else []
    total = _TOP + len(curves) * (height + 62)
    return svg.document(parts, width=_LEFT + _WIDTH + 30, height=total, title=title)


def gradient(count: int) -> list[str]:
    """Colours from dark to light for ordered groups; they differ in lightness, so for any colour vision (viridis)."""
    anchors = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (233, 211, 40)])
    at = np.linspace(0, len(anchors) - 1, count) if count > 1 else np.zeros(1)
    rgb = [np.interp(at, np.arange(len(anchors)), channel).round().astype(int) for channel in anchors.T]
    return [f"#{r:02X}{g:02X}{b:02X}" for r, g, b in zip(*rgb, strict=True)]


def _finish(
    parts: list[str],
    names: Sequence[str],
    colours: Sequence[str],
    title: str,
    inside: tuple[float, float] = (_WIDTH, _HEIGHT),
) -> str:
    """Add the legend on the right and close the drawing."""
    names = [svg.fit(name, 220) for name in names]
    right = _LEFT + inside[0] + _GAP
    parts += svg.legend(names, colours, x=right, y=_TOP)
    width = max(right + svg.legend_width(names) + 8, svg.LETTER * len(title) * 15 / svg.SIZE + 40)
    height = max(_TOP + inside[1] + _BOTTOM, _TOP + 20 * len(names) + 16)
    return svg.document(parts, width=width, height=height, title=title)


def _colours(count: int) -> list[str]:
    """The colours of unordered groups while they last, and a gradient for more."""
    return list(COLOURS[:count]) if count <= len(COLOURS) else gradient(count)


def _finite(curve: Curve) -> Curve:
    values = np.array([column for column in (curve.x, curve.y, curve.low, curve.high) if len(column)], dtype=float)
    kept = values[:, np.isfinite(values).all(0)] if values.size else values
    return Curve(curve.name, *kept.tolist())


def _range(values: Sequence[float] | NDArray[np.float64], *, margin: float = 0.0, log: bool = False
           ) -> tuple[float, float]:  # fmt: skip
    """The least range that holds all values, with a margin on both sides; never empty."""
    if not len(values):
        return 0.0, 1.0
    low, high = float(np.min(values)), float(np.max(values))
    if not high > low:
        low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
    extra = (high - low) * margin
    return low - extra, high + extra


def _shade(share: float) -> str:
    """White to dark blue."""
    low, high = np.array([255, 255, 255]), np.array([8, 64, 129])
    r, g, b = (low + (high - low) * min(1.0, max(0.0, share))).round().astype(int)
    return f"#{r:02X}{g:02X}{b:02X}"
