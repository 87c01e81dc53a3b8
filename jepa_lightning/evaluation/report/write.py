"""Writing a report: report.json for programs, report.md and report.html for people."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from jepa_lightning.evaluation.report.markdown import markdown_page
from jepa_lightning.evaluation.report.metrics import read_metrics
from jepa_lightning.evaluation.report.page import html_page
from jepa_lightning.evaluation.report.report import Report
from jepa_lightning.evaluation.report.results import Plots
from jepa_lightning.run.writing import named

NO_PLOTS = "plots are left out, since matplotlib is not installed: pip install matplotlib (the extra report)"


def notes_on_plots() -> list[str]:
    """Say in a line what is missing for plots; nothing where they can be drawn."""
    return [NO_PLOTS] if find_spec("matplotlib") is None else []


def write_report(report: Report, folder: str | Path, *, runs: Mapping[str, str | Path] | None = None) -> Path:
    """Write report.json, report.md and report.html, the last with plots where matplotlib is installed.

    Args:
        report: what was found.
        folder: made if it is not there; an earlier report in it is replaced.
        runs: encoder to the metrics.csv of its run, for its curves.

    Returns:
        The path of report.html.

    Raises:
        ValueError: a run of an encoder that the report does not have, or a file that is none of metrics.
        OSError: a file cannot be written.
    """
    folder = Path(folder)
    unknown = [name for name in runs or {} if name not in report.encoders]
    if unknown:
        raise ValueError(f"expected runs of the report's encoders {report.encoders}, got {unknown}")
    metrics = {name: read_metrics(path) for name, path in (runs or {}).items()}
    plots, notes = Plots(), notes_on_plots()
    if not notes:
        from jepa_lightning.evaluation.report.plots import draw_plots  # slow to import, and an extra

        plots = draw_plots(report, metrics)
    report = dataclasses.replace(report, notes=[*report.notes, *(note for note in notes if note not in report.notes)])
    files = {
        "report.json": json.dumps(report.as_dict(), indent=2, allow_nan=False) + "\n",
        "report.md": markdown_page(report),
        "report.html": html_page(report, plots),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        with named(folder / name):
            (folder / name).write_text(content, encoding="utf-8")
    return folder / "report.html"
