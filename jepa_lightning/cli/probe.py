"""`jepa-probe`: `jepa_lightning.evaluate` from a shell."""

from __future__ import annotations

from collections.abc import Sequence

from jepa_lightning.cli.options import command
from jepa_lightning.evaluation.evaluate import evaluate


def probe(args: Sequence[str] | None = None) -> None:
    """Entry point of `jepa-probe`. Mistakes of the user end in a few lines and exit code 2."""
    with command("jepa-probe", evaluate, args) as settings:
        report = evaluate(**settings)
        print(report.table())
        print(f"data: {report.settings['data']['class']}, {report.settings['division_of_data']}")
        print(f"report: {report.settings['folder']}/report.html")
