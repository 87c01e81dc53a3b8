"""Draw the plots of a report by matplotlib. Nothing imports this module but what writes reports, when it does so."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from jepa_lightning.evaluation.probes.tasks import Task
from jepa_lightning.evaluation.report.metrics import Metrics, panels
from jepa_lightning.evaluation.report.report import Report
from jepa_lightning.evaluation.report.results import Confusion, Embedding, Plot, Plots, Score
from jepa_lightning.evaluation.report.theme import COLOURS, INK, MARKERS, colour, fit, theme, to_svg
from jepa_lightning.names.printable import printable

WIDTH = 5.8  # inches of a plot; two fit beside each other
CLASSES = 100  # at most, in a confusion matrix
_NAMED, _COUNTED = 40, 12  # classes at most whose names, and whose counts, are written
_GROUPS = len(COLOURS) * len(MARKERS)  # classes at most in an embedding, the last of them "others"
_NAME = 24  # letters of a name
_WORST = -1.0  # R2 below it is drawn there
_MARKED = 30  # points at most that a curve has dots at


def draw_plots(report: Report, runs: Mapping[str, Metrics] | None = None) -> Plots:
    """Draw all plots of a report.

    Args:
        report: what to draw.
        runs: encoder to the metrics of its run.
    """
    with theme():
        labels: dict[str, list[list[Plot]]] = {}
        for task in report.tasks:
            scores = [score for score in report.scores if score.label == task.name]
            if scores:
                confusions = [c for c in report.confusions if c.label == task.name and len(c.names) <= CLASSES]
                labels[task.name] = [
                    [_scores(report, scores)],
                    _few_labels(report, scores),
                    [_confusion(found) for found in confusions],
                    [] if task.maps else [_embedding(task, embedding) for embedding in report.embeddings],
                ]
        spectra = _spectra(report)
        curves = [plot_run(metrics, title=name) for name, metrics in (runs or {}).items()]
    return Plots(labels, spectra, curves)


def plot_run(metrics: Metrics, *, title: str, loss: bool = True, titled: bool = False) -> Plot:
    """Draw a run's curves under each other over the same steps: its loss, its probes, its effective rank.

    Args:
        metrics: of the run.
        title: of the plot.
        loss: whether to draw the losses, too.
        titled: whether the title is in the drawing.
    """
    with theme():
        shown = panels(metrics, loss=loss)
        figure = Figure(figsize=(WIDTH, 0.5 + 1.6 * len(shown)), layout="constrained")
        if titled:
            figure.suptitle(_words(title, 70), fontsize=10, fontweight="bold")
        axes = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        for ax, panel in zip(axes, shown, strict=True):
            for number, line in enumerate(panel.lines):
                shade = colour(number)
                mark = "o" if len(line.steps) <= _MARKED else ""
                ax.plot(line.steps, line.values, marker=mark, markersize=3, color=shade, label=_words(line.name))
                if line.level is not None:
                    ax.axhline(line.level, color=shade, linestyle=(0, (4, 3)), linewidth=1)
            ax.set_ylabel(_words(panel.label, 30))
            _legend(ax, [] if all(line.level is None for line in panel.lines) else [_dashed("untrained")])
        axes[-1].set_xlabel("optimiser step")
        figure.align_ylabels(list(axes))
        return _plot(figure, title)


def _scores(report: Report, scores: Sequence[Score]) -> Plot:
    """Every encoder's score by every probe with its interval, beside chance."""
    scores = [score for score in scores if score.share == 1.0]
    probes = list(dict.fromkeys(score.probe for score in scores))
    encoders = report.encoders
    step = 1 / (len(encoders) + 1)
    figure = Figure(figsize=(WIDTH, 0.9 + 0.22 * len(probes) * (len(encoders) + 1)), layout="constrained")
    ax = figure.subplots()
    for score in scores:
        if not math.isfinite(score.estimate.mean):
            continue
        number = encoders.index(score.encoder)
        mean, low, high = (max(_WORST, end) for end in (score.estimate.mean, score.estimate.low, score.estimate.high))
        y = probes.index(score.probe) + step * (number - (len(encoders) - 1) / 2)
        ax.plot([low, high], [y, y], color=colour(number), solid_capstyle="butt")
        ax.plot(mean, y, marker="o", markersize=5, color=colour(number))
    for place, probe in enumerate(probes):
        chance = next(score.chance for score in scores if score.probe == probe)
        ax.plot([chance, chance], [place - 0.5 + step / 4, place + 0.5 - step / 4], color=INK, linestyle=(0, (4, 3)),
                linewidth=1)  # fmt: skip
    ax.set_yticks(range(len(probes)), [_words(probe) for probe in probes])
    ax.set_ylim(len(probes) - 0.5, -0.5)
    ax.grid(visible=False, axis="y")
    ax.xaxis.set_major_locator(MaxNLocator(6))
    measure = scores[0].measure
    below = any(score.estimate.low < _WORST for score in scores)
    ax.set_xlabel(f"{measure} (below {_WORST:g} is drawn at {_WORST:g})" if below else measure)
    handles = [_dot(name, colour(number)) for number, name in enumerate(encoders)]
    figure.legend(handles=[*handles, _dashed("chance")], loc="outside right upper")
    return _plot(figure, f"{scores[0].label}: scores with 95% intervals")


def _few_labels(report: Report, scores: Sequence[Score]) -> list[Plot]:
    """A plot for each probe that was fitted on shares of the labels."""
    found = []
    for probe in dict.fromkeys(score.probe for score in scores if score.share < 1):
        of_probe = sorted((s for s in scores if s.probe == probe), key=lambda score: score.share)
        figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
        ax = figure.subplots()
        for number, name in enumerate(report.encoders):
            ends = [(s.share, s.estimate.mean, s.estimate.low, s.estimate.high) for s in of_probe if s.encoder == name]
            if ends:  # none of the attentive probe, where there are no tokens
                share, mean, low, high = (list(column) for column in zip(*ends, strict=True))
                ax.plot(share, mean, marker="o", color=colour(number), label=_words(name))
                ax.fill_between(share, low, high, color=colour(number), alpha=0.15, linewidth=0)
        ax.axhline(of_probe[0].chance, color=INK, linestyle=(0, (4, 3)), linewidth=1)
        ax.set_xscale("log")
        shares = sorted({score.share for score in of_probe})
        ax.set_xticks(shares, [f"{share * 100:.3g}%" for share in shares])
        ax.minorticks_off()
        ax.set_xlabel("share of the training labels")
        lowest, highest = (-0.02, 1.02) if of_probe[0].measure == "accuracy" else (_WORST, 1.02)
        ax.set_ylim(max(lowest, ax.get_ylim()[0]), min(highest, ax.get_ylim()[1]))
        ax.set_ylabel(of_probe[0].measure)
        _legend(ax, [_dashed("chance")])
        found.append(_plot(figure, f"{of_probe[0].label}: {probe} with few labels"))
    return found


def _confusion(found: Confusion) -> Plot:
    """Rows are true classes, columns predicted ones, colours the share of the row."""
    count = len(found.names)
    names = [_words(name) for name in found.names]
    longest = max(map(len, names)) if count <= _NAMED else 0
    side = min(3.0, max(1.6, 0.3 * count)) if count <= _COUNTED else 4.0
    turned = longest * 0.085 > side / count
    margin = 0.075 * longest
    figure = Figure(figsize=(side + margin + 1.1, side + (margin if turned else 0.15) + 0.4), layout="constrained")
    ax = figure.subplots()
    shares = found.counts / np.maximum(found.counts.sum(1, keepdims=True), 1)
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    ax.grid(visible=False)
    ax.spines[:].set_visible(True)
    if count <= _NAMED:
        size = min(9.0, 72 * side / count * 0.8)
        ax.set_xticks(range(count), names, rotation=90 if turned else 0, fontsize=size)
        ax.set_yticks(range(count), names, fontsize=size)
    if count <= _COUNTED:
        for (row, column), value in np.ndenumerate(found.counts):
            ink = "white" if shares[row, column] > 0.55 else INK
            ax.text(column, row, str(value), ha="center", va="center", color=ink, fontsize=7.5)
    ax.set_xlabel("predicted class")
    ax.set_ylabel("true class")
    figure.colorbar(image, ax=ax, label="share of the row", fraction=0.05)
    return _plot(figure, f"{found.label}: {found.encoder}, {found.probe}")


def _spectra(report: Report) -> list[Plot]:
    """The eigenvalues of all encoders' covariance; one that has collapsed falls within a few components."""
    found = {name: collapse.spectrum for name, collapse in report.collapses.items() if collapse.spectrum}
    if not found:
        return []
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    ax = figure.subplots()
    for name, spectrum in found.items():
        numbers = np.arange(1, len(spectrum) + 1)
        shares = np.array(spectrum)
        kept = shares > 1e-9  # the others are rounding
        mark = "o" if len(spectrum) <= _MARKED else ""
        ax.plot(numbers[kept], shares[kept], marker=mark, color=colour(report.encoders.index(name)), label=_words(name))
    ax.set_yscale("log")
    ax.set_xscale("log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set_xlabel("principal component")
    ax.set_ylabel("share of the variance")
    _legend(ax, [])
    return [_plot(figure, "spectrum of the features' covariance")]


def _embedding(task: Task, found: Embedding) -> Plot:
    """Samples along the first two principal components, coloured by their label."""
    place = {row: number for number, row in enumerate(task.rows.tolist())}
    kept = [number for number, row in enumerate(found.rows.tolist()) if row in place]
    kept = [number for number in kept if np.isfinite(found.points[number]).all()]
    points, rows = found.points[kept], found.rows[kept]
    values = task.values[[place[row] for row in rows.tolist()]]
    figure = Figure(figsize=(4.1, 2.9), layout="constrained")
    ax = figure.subplots()
    order = np.random.default_rng(0).permutation(len(points))  # or the last class would cover the others
    if task.classes:
        _classes(figure, ax, points[order], values[order], task.names)
    else:
        _values(figure, ax, points[order], values[order, 0], task.values[:, 0])
    for axis, number, share in zip((ax.xaxis, ax.yaxis), (1, 2), found.shares, strict=True):
        known = f" ({share:.0%} of the variance)" if math.isfinite(share) else ""
        axis.set_label_text(f"component {number}{known}")
        axis.set_major_locator(MaxNLocator(5))
    plot = _plot(figure, f"{task.name}: {found.encoder}, two principal components")
    shown = ax.transData.transform(points) if len(points) else points
    spots = [(x, plot.size[1] - y, row) for (x, y), row in zip(shown.tolist(), rows.tolist(), strict=True)]
    return dataclasses.replace(plot, points=spots)


def _classes(figure: Figure, ax: Axes, points: NDArray[np.float64], groups: NDArray[np.int64],
             names: Sequence[str]) -> None:  # fmt: skip
    shown = [_words(name) for name in names]
    if len(names) > _GROUPS:
        groups, shown = np.minimum(groups, _GROUPS - 1), [*shown[: _GROUPS - 1], "others"]
    handles = []
    for block, marker in enumerate(MARKERS):
        inside = groups // len(COLOURS) == block
        shades = [colour(group) for group in groups[inside].tolist()]
        x, y = points[inside].T
        ax.scatter(x, y, s=14, c=shades, marker=marker, alpha=0.75, linewidths=0, rasterized=True)
        numbers = range(block * len(COLOURS), min(len(shown), (block + 1) * len(COLOURS)))
        handles += [_dot(shown[number], colour(number), marker) for number in numbers]
    figure.legend(handles=handles, loc="outside right upper", ncols=1 if len(handles) <= 16 else 2)


def _values(figure: Figure, ax: Axes, points: NDArray[np.float64], values: NDArray[np.float64],
            everything: NDArray[np.float64]) -> None:  # fmt: skip
    low, high = np.quantile(everything, [0.02, 0.98]).tolist()  # a few extremes leave the others their colours
    scale = Normalize(low, high if high > low else low + 1, clip=True)
    x, y = points.T
    ax.scatter(x, y, s=14, c=values, cmap="viridis", norm=scale, alpha=0.75, linewidths=0, rasterized=True)
    figure.colorbar(ScalarMappable(scale, "viridis"), ax=ax, fraction=0.05)


def _legend(ax: Axes, more: Sequence[Line2D]) -> None:
    """Beside the plot, where there is more than one line."""
    handles = [*ax.get_legend_handles_labels()[0], *more]
    if len(handles) > 1:
        ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.03), borderaxespad=0.4)


def _dot(name: str, shade: str, marker: str = "o") -> Line2D:
    return Line2D([], [], color=shade, marker=marker, linestyle="", markersize=5, label=_words(name))


def _dashed(name: str) -> Line2D:
    return Line2D([], [], color=INK, linestyle=(0, (4, 3)), linewidth=1, label=name)


def _words(name: str, letters: int = _NAME) -> str:
    words = fit(printable(name), letters)
    return f" {words}" if words.startswith("_") else words  # or matplotlib leaves it out of the legend


def _plot(figure: Figure, title: str) -> Plot:
    svg = to_svg(figure)
    return Plot(title, svg, (figure.bbox.width, figure.bbox.height))
