"""The curves of a run, from its metrics.csv: loss, probes beside the untrained encoder, effective rank."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

LOSSES = {"train/loss": "training", "val/loss": "validation"}
PROBES = {"probe/linear": "linear probe, accuracy", "probe/knn": "kNN, accuracy"}
RANK = "collapse/effective_rank"
_R2, _UNTRAINED = "probe/r2_", "_untrained"

Metrics = dict[str, tuple[list[float], list[float]]]
"""Steps and values of each column that has numbers."""


@dataclass(frozen=True)
class Line:
    """A line of a panel.

    Attributes:
        name: in the legend.
        steps: in ascending order.
        values: as many.
        level: the value of the untrained encoder, or None.
    """

    name: str
    steps: list[float]
    values: list[float]
    level: float | None = None


@dataclass(frozen=True)
class Panel:
    """Lines that share an axis called `label`."""

    label: str
    lines: list[Line]


def read_metrics(path: str | Path) -> Metrics:
    """Read the columns of a metrics.csv; cells that are empty or not finite are left out.

    Raises:
        ValueError: the file is missing or has no column that `panels` draws.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"expected a run's folder with a metrics.csv, found no {path}: run jepa-fit first")
    found: Metrics = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            step = _float(row.get("step"))
            for key, cell in row.items():
                value = _float(cell)
                if math.isfinite(step) and math.isfinite(value):
                    steps, values = found.setdefault(key, ([], []))
                    steps.append(step)
                    values.append(value)
    if not panels(found):
        wanted = ", ".join([*LOSSES, *PROBES, RANK])
        raise ValueError(f"expected numbers in one of the columns {wanted} of {path}, got {', '.join(found) or 'none'}")
    return found


def panels(metrics: Metrics, *, loss: bool = True) -> list[Panel]:
    """Arrange what is drawn of a run: the loss, probes of classes, probes of continuous labels, the effective rank.

    Args:
        metrics: of `read_metrics`.
        loss: whether to draw the losses.
    """
    r2 = {key: key.removeprefix(_R2) for key in metrics if key.startswith(_R2) and not key.endswith(_UNTRAINED)}
    wanted = [
        ("loss", LOSSES if loss else {}),
        ("accuracy of probes", PROBES),
        ("R2 of ridge probes", r2),
        ("effective rank", {RANK: "effective rank"}),
    ]
    found = [Panel(label, [_line(metrics, key, name) for key, name in of.items() if key in metrics])
             for label, of in wanted]  # fmt: skip
    return [panel for panel in found if panel.lines]


def _line(metrics: Metrics, key: str, name: str) -> Line:
    """The line of a column; where the untrained figure is known, it begins there."""
    steps, values = metrics[key]
    before = metrics.get(key + _UNTRAINED)
    if before is None:
        return Line(name, steps, values)
    return Line(name, [0.0, *steps], [before[1][0], *values], before[1][0])


def _float(cell: object) -> float:
    try:
        return float(cell) if isinstance(cell, str) else math.nan
    except ValueError:
        return math.nan
