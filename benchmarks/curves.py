"""The measured curves of the documentation: probes and effective rank over the steps of a run, from its metrics.csv.

    for name in image video audio pointcloud graph; do jepa-fit --config $name.yaml; done
    python -m benchmarks.curves runs/image runs/video runs/audio runs/pointcloud runs/graph

writes docs/curves_NAME.svg for each folder, NAME being that of the folder. Solid lines are the trained encoder, dashed
ones those of the same network before training. A probe of a run is measured at each validation; the first point of its
line is the untrained figure.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Sequence
from pathlib import Path

from jepa_lightning.evaluation.report import svg
from jepa_lightning.evaluation.report.svg import COLOURS, Axes

LEFT, TOP, WIDTH, HEIGHT, BETWEEN = 84, 44, 460, 190, 62
PROBES = {"probe/linear": "linear probe, accuracy", "probe/knn": "kNN, accuracy"}
RANK = "collapse/effective_rank"
Points = list[tuple[float, float]]


def read(path: Path) -> dict[str, Points]:
    """(step, value) of each metric of a metrics.csv, where it has numbers.

    Raises:
        ValueError: there is no such file, or it has neither a probe nor the effective rank.
    """
    if not path.is_file():
        raise ValueError(f"expected a run's folder with a metrics.csv, found no {path}: run jepa-fit first")
    found: dict[str, Points] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            for key, cell in row.items():
                try:
                    point = float(row["step"]), float(cell)
                except (TypeError, ValueError, KeyError):  # an empty cell
                    continue
                if all(map(math.isfinite, point)):
                    found.setdefault(key, []).append(point)
    if not any(key.startswith("probe/") for key in found) and RANK not in found:
        raise ValueError(f"expected the columns of a run of jepa-fit in {path}, got {', '.join(found) or 'none'}")
    return found


def draw(metrics: dict[str, Points], *, title: str) -> str:
    """The SVG: a panel with the probes, and one with the effective rank, above each other."""
    probes = {**PROBES, **{k: f"{k[9:]}, R2" for k in metrics if k.startswith("probe/r2_") and "_untrained" not in k}}
    shown = {name: metrics[key] for key, name in probes.items() if key in metrics}
    before = {name: metrics[f"{key}_untrained"][0][1] for key, name in probes.items() if f"{key}_untrained" in metrics}
    shown = {name: [*([(0.0, before[name])] if name in before else []), *points] for name, points in shown.items()}
    panels = [("probe on frozen features", shown, before)] if shown else []
    panels += [("effective rank", {"effective rank": metrics[RANK]}, {})] if RANK in metrics else []
    last = max(step for _, lines, _ in panels for points in lines.values() for step, _ in points)
    parts: list[str] = []
    names: list[str] = []
    for number, (label, lines, levels) in enumerate(panels):
        values = [value for points in lines.values() for _, value in points] + [*levels.values(), 0.0]
        place = (LEFT, TOP + number * (HEIGHT + BETWEEN), WIDTH, HEIGHT)
        axes = Axes((0.0, last), (min(values), max(values) * 1.06 or 1.0), place)
        ticks = [[(value, svg.number(value)) for value in svg.ticks(*ends)] for ends in (axes.x, axes.y)]
        parts += axes.frame("optimiser step", label, x_ticks=ticks[0], y_ticks=ticks[1])
        for name, points in lines.items():
            colour = COLOURS[len(names) % len(COLOURS)]
            names.append(name)
            if name in levels:
                parts.append(svg.line([axes.at(x, levels[name]) for x in axes.x], colour, dashed=True))
            spots = [axes.at(*point) for point in points]
            parts.append(svg.line(spots, colour, width=2))
            parts += [svg.dot(*spot, colour) for spot in spots] if len(spots) <= 30 else []
    right = LEFT + WIDTH + 18
    colours = [COLOURS[number % len(COLOURS)] for number in range(len(names))]
    parts += svg.legend([*names, "dashed: untrained"], [*colours, "#FFFFFF"], x=right, y=TOP)
    width = right + svg.legend_width([*names, "dashed: untrained"]) + 8
    return svg.document(parts, width=width, height=TOP + len(panels) * (HEIGHT + BETWEEN), title=title)


def main(args: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.curves", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs of jepa-fit")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the drawings (docs)")
    given = parser.parse_args(args)
    for run in given.runs:
        name = run.resolve().name
        try:
            drawing = draw(read(run / "metrics.csv"), title=f"{name}.yaml")
        except ValueError as error:
            parser.error(str(error))
        given.out.mkdir(parents=True, exist_ok=True)
        path = given.out / f"curves_{name}.svg"
        path.write_text(drawing)
        print(path)


if __name__ == "__main__":
    main()
