"""The page of a report for people: tables, and the plots that go with them."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jepa_lightning.evaluation.probes.tasks import Task
from jepa_lightning.evaluation.report.plots import Curve, bar_chart, heat_map, line_chart, scatter, stacked_charts
from jepa_lightning.printable import printable
from jepa_lightning.run.writing import plain

if TYPE_CHECKING:
    from jepa_lightning.evaluation.report.report import Report

_BARS = 48  # of a spectrum
_CLASSES = 100  # at most, in a confusion matrix
_COLOURED = 20  # classes at most, in an embedding
_METRICS = {"train/loss": "training loss", "collapse/effective_rank": "effective rank"}


def page(report: Report, runs: Mapping[str, str | Path]) -> tuple[str, dict[str, str]]:
    """The Markdown of a report, and its drawings by file name.

    Raises:
        ValueError: a run of an encoder that the report does not have, or a file that is none of metrics.
    """
    unknown = [name for name in runs if name not in report.encoders]
    if unknown:
        raise ValueError(f"runs of {unknown}, but the report is on {report.encoders}")
    drawings: dict[str, str] = {}

    def draw(name: str, drawing: str, words: str) -> list[str]:
        stem = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()
        file = f"{stem}.svg"
        number = 2
        while file in drawings:  # names that differ in signs only
            file, number = f"{stem}-{number}.svg", number + 1
        drawings[file] = drawing
        return [f"![{_escape(words)}](plots/{file})", ""]

    chance = "chance is what the most frequent class of the training part gets, of continuous labels an R2 of 0"
    protocol = f"Protocol: {report.settings.get('protocol', '')}. 95% intervals in brackets; {chance}."
    lines = ["# How good the features are", "", protocol, ""]
    for heading, header, rows in report.sections():
        lines += [f"## {_escape(heading)}", "", *_markdown(header, rows), ""]
    lines += [*(f"- {_escape(note)}" for note in report.notes), ""] if report.notes else []

    lines += ["## Few labels", ""] if any(score.share < 1 for score in report.scores) else []
    for task in report.tasks:
        for probe in dict.fromkeys(s.probe for s in report.scores if s.label == task.name and s.share < 1):
            title = f"{task.name}: {probe} with few labels"
            lines += draw(f"few labels {task.name} {probe}", _few_labels(report, task, probe, title), title)
    lines += ["## Confusions", ""] if report.confusions else []
    for found in report.confusions:
        title = f"{found.label}: {found.encoder}, {found.probe}"
        if len(found.names) > _CLASSES:
            lines += [f"{_escape(title)}: {len(found.names)} classes are too many for a picture; see report.json.", ""]
        else:
            drawing = heat_map(found.counts, found.names, title=title)
            lines += draw(f"confusion {found.label} {found.encoder}", drawing, title)
    lines += ["## Spectra", ""]
    for name, collapse in report.collapses.items():
        title = f"covariance spectrum: {name}"
        if collapse.spectrum:
            x_label = f"principal component (of {len(collapse.spectrum)})"
            drawing = bar_chart(
                collapse.spectrum[:_BARS], title=title, x_label=x_label, y_label="share of the variance"
            )
            lines += draw(f"spectrum {name}", drawing, title)
    lines += ["## Two principal components", ""]
    for task in report.tasks:
        for embedding in report.embeddings:
            title = f"{task.name}: {embedding.encoder}"
            drawing = _embedding(report, task, embedding.encoder, title)
            lines += draw(f"embedding {task.name} {embedding.encoder}", drawing, title)
    lines += ["## Runs", ""] if runs else []
    for name, path in runs.items():
        panels = [(label, Curve(label, *points)) for label, points in read_metrics(path).items()]
        lines += draw(f"run {name}", stacked_charts(panels, title=f"training: {name}", x_label="step"), f"run {name}")
    settings = json.dumps(plain(report.settings), indent=2)
    lines += ["## Settings", "", "```json", settings, "```", ""]
    return "\n".join(lines), drawings


def read_metrics(path: str | Path) -> dict[str, tuple[list[float], list[float]]]:
    """Steps and values of the loss and the effective rank in a metrics.csv.

    Raises:
        ValueError: the file is missing or holds none of them.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no metrics file {path}")
    found: dict[str, tuple[list[float], list[float]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            for key, label in _METRICS.items():
                step, value = _float(row.get("step")), _float(row.get(key))
                if math.isfinite(step) and math.isfinite(value):
                    steps, values = found.setdefault(label, ([], []))
                    steps.append(step)
                    values.append(value)
    if not found:
        raise ValueError(f"{path} has none of the columns {', '.join(_METRICS)} with numbers in them")
    return {label: found[label] for label in _METRICS.values() if label in found}


def _few_labels(report: Report, task: Task, probe: str, title: str) -> str:
    curves = []
    for name in report.encoders:
        found = [s for s in report.scores if (s.encoder, s.label, s.probe) == (name, task.name, probe)]
        found.sort(key=lambda score: score.share)
        if not found:  # of the attentive probe, where there are no tokens
            continue
        ends = [(s.estimate.mean, s.estimate.low, s.estimate.high) for s in found]
        curves.append(Curve(name, [s.share for s in found], *(list(column) for column in zip(*ends, strict=True))))
    marks = [(share, f"{share * 100:.3g}%") for share in curves[0].x]
    first = next(s for s in report.scores if s.label == task.name and s.probe == probe)
    return line_chart(
        curves,
        title=title,
        x_label="share of the training labels",
        y_label=first.measure,
        log_x=True,
        marks=marks,
        level=(first.chance, "chance"),
    )


def _embedding(report: Report, task: Task, encoder: str, title: str) -> str:
    found = next(embedding for embedding in report.embeddings if embedding.encoder == encoder)
    place = {row: number for number, row in enumerate(task.rows.tolist())}
    shown = [(number, place[row]) for number, row in enumerate(found.rows.tolist()) if row in place]
    points = found.points[[number for number, _ in shown]]
    values = task.values[[number for _, number in shown]]
    if task.classes:
        groups, names = values, list(task.names)
        if len(names) > _COLOURED:  # the first ones by their names, the others as one
            groups, names = np.minimum(groups, _COLOURED - 1), [*names[: _COLOURED - 1], "others"]
    else:
        edges = np.quantile(task.values[:, 0], [0.2, 0.4, 0.6, 0.8])
        groups = np.searchsorted(edges, values[:, 0])
        ends = [f"{edge:.3g}" for edge in edges]
        names = [
            f"below {ends[0]}",
            *(f"{a} to {b}" for a, b in pairwise(ends)),
            f"above {ends[-1]}",
        ]
    labels = [f"component {number} ({share:.0%} of the variance)" for number, share in enumerate(found.shares, 1)]
    return scatter(points, groups, names, title=title, x_label=labels[0], y_label=labels[1], ordered=not task.classes)


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return [f"| {' | '.join(_escape(cell) for cell in line)} |" for line in lines]


def _escape(words: str) -> str:
    return re.sub(r"([\\|*_<>\[\]`])", r"\\\1", printable(words))


def _float(cell: str | None) -> float:
    try:
        return float(cell or "nan")
    except ValueError:
        return math.nan
