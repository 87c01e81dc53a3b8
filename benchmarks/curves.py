"""The measured curves of the documentation: probes and effective rank over the steps of a run, from its metrics.csv.

    for name in image video audio pointcloud graph; do jepa-fit --config $name.yaml; done
    python -m benchmarks.curves runs/image runs/video runs/audio runs/pointcloud runs/graph

writes docs/curves_NAME.svg for each folder, NAME being that of the folder. Solid lines are the trained encoder, dashed
ones those of the same network before training. A probe of a run is measured at each validation; the first point of its
line is the untrained figure.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from jepa_lightning.evaluation.report.metrics import read_metrics
from jepa_lightning.evaluation.report.plots import plot_run


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
            metrics = read_metrics(run / "metrics.csv")
        except ValueError as error:
            parser.error(str(error))
        drawing = plot_run(metrics, title=f"{name}.yaml", loss=False, titled=True).svg
        given.out.mkdir(parents=True, exist_ok=True)
        path = given.out / f"curves_{name}.svg"
        path.write_text(drawing)
        print(path)


if __name__ == "__main__":
    main()
