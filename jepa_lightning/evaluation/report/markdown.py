"""The Markdown of a report: its tables, notes and settings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from jepa_lightning.evaluation.report.report import TITLE, Report
from jepa_lightning.names.printable import printable
from jepa_lightning.run.writing import plain


def markdown_page(report: Report) -> str:
    """Write a report as Markdown, without plots."""
    lines = [f"# {TITLE}", "", _escape(report.protocol), "", "The same with plots: [report.html](report.html).", ""]
    for heading, header, rows in report.sections():
        lines += [f"## {_escape(heading)}", "", *_table(header, rows), ""]
    lines += [*(f"- {_escape(note)}" for note in report.notes), ""] if report.notes else []
    settings = json.dumps(plain(report.settings), indent=2)
    return "\n".join([*lines, "## Settings", "", "```json", settings, "```", ""])


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return [f"| {' | '.join(_escape(cell) for cell in line)} |" for line in lines]


def _escape(words: str) -> str:
    return re.sub(r"([\\|*_<>\[\]`])", r"\\\1", printable(words))
