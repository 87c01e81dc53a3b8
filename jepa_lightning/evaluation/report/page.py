"""The page of a report for a browser: one HTML file with its tables, plots and pictures, and no script in it.

Everything that a stranger may have named (files, classes, labels, runs) is escaped, and the page's own policy forbids
scripts and whatever comes from elsewhere.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Sequence

from jepa_lightning.evaluation.probes.tasks import Task
from jepa_lightning.evaluation.report.report import TITLE, Report, Section
from jepa_lightning.evaluation.report.results import Neighbours, Plot, Plots
from jepa_lightning.evaluation.report.style import STYLE
from jepa_lightning.names.printable import printable
from jepa_lightning.run.writing import plain

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_LETTERS = 60  # of a sample's name; the end tells more than the beginning
_SPOT = 5  # radius around a point within which it is named


def html_page(report: Report, plots: Plots) -> str:
    """Write a report as one HTML file that needs nothing else.

    Args:
        report: what was found.
        plots: its drawings; without them the tables stand alone.
    """
    parts = [f"<h1>{TITLE}</h1>", f"<p>{_text(report.protocol)}</p>"]
    if report.notes:
        parts.append(f"<ul class='notes'>{''.join(f'<li>{_text(note)}</li>' for note in report.notes)}</ul>")
    for task in report.tasks:
        sections = report.label_sections(task)
        if sections:
            parts.append(f"<h2>{_text(task.name)}</h2>")
            parts += [_table(section) for section in sections]
            names = _Names(report, task)
            parts += [_plots(row, names) for row in plots.labels.get(task.name, [])]
    more = {
        "Retrieval": report.retrieval_sections(),
        "Zero-shot classification": report.zero_shot_sections(),
        "Energy": report.energy_sections(),
    }
    for title, sections in more.items():
        parts += [f"<h2>{title}</h2>", *map(_table, sections)] if sections else []
    names = _Names(report, next((task for task in report.tasks if task.classes and not task.maps), None))
    parts += ["<h2>Collapse</h2>", _table(("", *report.collapse_section()[1:])), _plots(plots.collapse, names)]
    if report.neighbours is not None:
        parts += ["<h2>Nearest neighbours</h2>", *_neighbours(report.neighbours, names)]
    if plots.runs:
        parts += ["<h2>Training</h2>", _plots(plots.runs, names)]
    settings = json.dumps(plain(report.settings), indent=2, ensure_ascii=False)
    parts.append(f"<h2>Settings</h2><details><summary>all settings</summary><pre>{_text(settings, lines=True)}</pre>"
                 "</details>")  # fmt: skip
    head = f"<meta charset='utf-8'><meta http-equiv='Content-Security-Policy' content=\"{_POLICY}\">"
    head += "<meta name='viewport' content='width=device-width'><meta name='color-scheme' content='light dark'>"
    head += f"<title>{TITLE}</title><style>{STYLE}</style>"
    body = "\n".join(part for part in parts if part)
    return f"<!DOCTYPE html>\n<html lang='en'><head>{head}</head>\n<body><main>\n{body}\n</main></body></html>\n"


class _Names:
    """What samples are called: their ids, and what a label says of them."""

    def __init__(self, report: Report, task: Task | None) -> None:
        self.ids = report.ids
        self.label = "" if task is None or task.maps else task.name
        self.known: dict[int, str] = {}
        if task is not None and not task.maps:
            values = task.values.tolist()
            words = [task.names[value] if task.classes else ", ".join(f"{v:.3g}" for v in value) for value in values]
            self.known = dict(zip(task.rows.tolist(), words, strict=True))

    def id(self, row: int) -> str:
        """The end of a sample's name, or its number."""
        name = printable(self.ids[row]) if row < len(self.ids) else f"sample {row}"
        return name if len(name) <= _LETTERS else "…" + name[1 - _LETTERS :]

    def full(self, row: int) -> str:
        """Name and label."""
        return f"{self.id(row)}: {self.known[row]}" if row in self.known else self.id(row)


def _table(section: Section) -> str:
    heading, header, rows = section
    top = "".join(f"<th scope='col'>{_text(cell)}</th>" for cell in header)
    lines = [
        f"<tr><th scope='row'>{_text(first)}</th>{''.join(f'<td>{_text(cell)}</td>' for cell in cells)}</tr>"
        for first, *cells in rows
    ]
    table = f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    above = f"<h3>{_text(heading)}</h3>\n" if heading else ""
    return f"{above}<div class='wide'>{table}</div>"


def _plots(plots: Sequence[Plot], names: _Names) -> str:
    return f"<div class='plots'>{''.join(_plot(plot, names) for plot in plots)}</div>" if plots else ""


def _plot(plot: Plot, names: _Names) -> str:
    """A drawing as a picture, in which nothing is executed, under what names its points."""
    width, height = plot.size
    picture = f"<img src='{_data(plot.svg.encode(), 'svg+xml')}' width='{width * 4 / 3:.0f}' alt='{_text(plot.title)}'>"
    spots = "".join(_spot(*point, width=width, names=names) for point in plot.points)
    over = f"<svg viewBox='0 0 {width:.1f} {height:.1f}'>{spots}</svg>" if spots else ""
    return f"<figure><figcaption>{_text(plot.title)}</figcaption><div class='plot'>{picture}{over}</div></figure>\n"


def _spot(x: float, y: float, row: int, *, width: float, names: _Names) -> str:
    """An unseen disc on a point, with the words that show when it is pointed at."""
    left = x < width / 2
    place = f"x='{x + 7 if left else x - 7:.1f}' y='{y - 5:.1f}'" + ("" if left else " class='l'")
    return f"<g><circle cx='{x:.1f}' cy='{y:.1f}' r='{_SPOT}'/><text {place}>{_text(names.full(row))}</text></g>"


def _neighbours(found: Neighbours, names: _Names) -> Iterable[str]:
    """Each sample, and a row of its neighbours for each encoder."""
    same = f" A green frame: the same {_text(names.label)}; an orange one: another." if names.label else ""
    yield f"<p>By the cosine of the features, the nearest first.{same}</p>"
    for number, row in enumerate(found.rows.tolist()):
        lines = []
        for encoder, nearest in found.nearest.items():
            beside = zip(nearest[number].tolist(), found.similarities[encoder][number].tolist(), strict=True)
            cells = [f"<td>{_sample(other, row, found, names, f'{cosine:.3f}')}</td>" for other, cosine in beside]
            lines.append(f"<tr><th scope='row'>{_text(encoder)}</th>{''.join(cells)}</tr>")
        query = _sample(row, None, found, names, names.id(row))
        yield f"<div class='query'>{query}<table class='strip'>{''.join(lines)}</table></div>"


def _sample(row: int, query: int | None, found: Neighbours, names: _Names, words: str) -> str:
    """A picture with its class and some words under it; its name shows when it is pointed at."""
    kind = ""
    if query is not None and row in names.known and query in names.known:
        kind = " class='same'" if names.known[row] == names.known[query] else " class='other'"
    source = _data(found.pictures[row], "png")
    picture = f"<img{kind} src='{source}' alt='{_text(names.full(row))}' title='{_text(names.full(row))}'>"
    known = f"{_text(names.known[row])}<br>" if row in names.known else ""
    return f"<div class='sample'>{picture}<span>{known}{_text(words)}</span></div>"


def _data(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _text(words: str, *, lines: bool = False) -> str:
    """Words that are neither markup nor control codes."""
    return html.escape(printable(words, lines=lines), quote=True)
