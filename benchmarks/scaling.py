"""Scaling curves: what probes score after more minutes of pre-training, and on more samples without labels.

    python -m benchmarks.scaling --recipe recipes/vicreg_cifar10.yaml --minutes 1 3 9 --samples 1000 5000 45000 \\
        --seeds 0 1 --jobs 12 --data.root data/cifar10_jpg
    python -m benchmarks.scaling --recipe recipes/vicreg_fsdd.yaml --minutes 0.5 1.5 4.5 --samples 250 1000 2000 \\
        --seeds 0 1 --jobs 12 --pooling segments --data.csv data/fsdd/index.csv --data.root data/fsdd/recordings

Each number of samples, drawn at random from the training part by the run's seed, is trained on for each of the CPU
minutes, from the start: the time of a step sets the number of steps, over which the schedules stretch, so fewer samples
are seen more often. Probes are fitted on labelled samples of the whole training part, at most 10,000 (so after training
on few samples, mostly on others), and scored on the test split, beside the same encoder before training. Printed are
means over seeds with their standard deviation; the JSON file has all runs, `--figure` is the drawing: a line for each
number of samples, over the minutes, the untrained encoder dashed.

What lies in `--out` is not trained again. The longest runs start first.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import at_least, machine, options, table, write_json
from benchmarks.sweep import Job, Scoring, Setting, read_log, run_all
from jepa_lightning.config.plugins import load_plugins

_PROBES = {
    "knn": "kNN, accuracy",
    "knn_cv": "kNN-CV, accuracy",
    "logistic": "logistic regression, accuracy",
    "svm": "SVM, accuracy",
}


def measure_missing(given: argparse.Namespace, words: list[str]) -> list[dict[str, Any]]:
    """Run what the log does not have; give all lines, by samples, minutes and seed.

    Raises:
        ValueError: a run failed.
    """
    scoring = Scoring(part=given.split, probes=tuple(given.probes), pooling=given.pooling, labels=given.labels)
    same = {"recipe": given.recipe, "arguments": words, "scoring": json.loads(json.dumps(vars(scoring)))}
    log, jobs, found = given.out / "log.jsonl", [], []
    given.out.mkdir(parents=True, exist_ok=True)
    known = [line for line in read_log(log) if "error" not in line]
    for minutes, samples, seed in itertools.product(sorted(given.minutes, reverse=True), given.samples, given.seeds):
        name = {**same, "minutes": minutes, "samples": samples, "seed": seed}
        there = [line for line in known if all(line.get(key) == value for key, value in name.items())]
        if there:
            found.append(there[0])
            continue
        place = given.out / f"{samples or 'all'}_{minutes:g}_{seed}"
        shared: dict[str, Any] = {"recipe": given.recipe, "words": words, "scoring": scoring, "threads": given.threads}
        jobs.append(
            Job(**shared, setting=Setting({}, {}), seed=seed, minutes=minutes, samples=samples, folder=place, name=name)
        )
    failed: list[dict[str, Any]] = []
    for line in run_all(jobs, given.jobs):
        with log.open("a") as file:
            file.write(json.dumps(line) + "\n")
        (failed if "error" in line else found).append(line)
        print(f"{line['samples'] or 'all'} samples, {line['minutes']:g} minutes, seed {line['seed']}: "
              f"{line.get('error') or str(line['steps']) + ' steps'}", flush=True)  # fmt: skip
    if failed:
        raise ValueError(f"{len(failed)} of {len(jobs)} runs failed, the first by: {failed[0]['error']}")
    return sorted(found, key=lambda line: (line["samples"] or 10**12, line["minutes"], line["seed"]))


def points(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Join the seeds: for each number of samples, minutes and probe, means and standard deviations of both encoders."""
    found = []
    for (samples, minutes), group in itertools.groupby(lines, key=lambda line: (line["samples"], line["minutes"])):
        seeds = list(group)
        for probe in seeds[0]["scores"]:
            point = {"samples": samples, "minutes": minutes, "probe": probe, "seeds": len(seeds)}
            point["steps"] = round(statistics.mean(line["steps"] for line in seeds))
            point["cpu_minutes"] = statistics.mean(line["seconds"] for line in seeds) / 60
            for name in ("trained", "untrained"):
                values = [line["scores"][probe][name] for line in seeds]
                point[name] = statistics.mean(values)
                point[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else None
            found.append(point)
    return found


def draw(found: Sequence[Mapping[str, Any]], title: str) -> str:
    """Draw the curves as SVG: a panel for each probe, over the CPU minutes."""
    from matplotlib.figure import Figure

    from jepa_lightning.evaluation.report.theme import INK, colour, theme, to_svg

    probes = list(dict.fromkeys(point["probe"] for point in found))
    sizes = list(dict.fromkeys(point["samples"] for point in found))
    with theme():
        figure = Figure(figsize=(5.8, 0.6 + 2.2 * len(probes)), layout="constrained")
        figure.suptitle(title, fontsize=10, fontweight="bold")
        axes = figure.subplots(len(probes), 1, sharex=True, squeeze=False)[:, 0]
        for ax, probe in zip(axes, probes, strict=True):
            for number, size in enumerate(sizes):
                line = [point for point in found if (point["probe"], point["samples"]) == (probe, size)]
                ax.errorbar(
                    [point["minutes"] for point in line],
                    [point["trained"] for point in line],
                    yerr=[point["trained_std"] or 0.0 for point in line],
                    marker="o", markersize=4, capsize=2, color=colour(number),
                    label="all samples" if size is None else f"{size:,} samples",
                )  # fmt: skip
            level = statistics.mean(point["untrained"] for point in found if point["probe"] == probe)
            ax.axhline(level, color=INK, linestyle=(0, (4, 3)), linewidth=1, label="untrained")
            ax.set_ylabel(_PROBES.get(probe, probe))
            ax.set_xscale("log")
        minutes = sorted({point["minutes"] for point in found})
        axes[-1].set_xticks(minutes, [f"{value:g}" for value in minutes])
        axes[-1].minorticks_off()
        axes[-1].set_xlabel("CPU minutes of pre-training")
        axes[0].legend()
        figure.align_ylabels(list(axes))
        return to_svg(figure)


def main(args: list[str] | None = None) -> list[dict[str, Any]]:
    """Run what is missing, print the table, draw the figure."""
    parser = options(__doc__, "scaling")
    parser.add_argument("--recipe", required=True, help="a shipped configuration, or a file")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.0, 3.0, 9.0], help="CPU minutes of training")
    parser.add_argument("--samples", type=int, nargs="+", default=[None], help="training samples (all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--jobs", type=int, default=1, help="runs beside each other")
    parser.add_argument("--split", choices=["val", "test"], default="test")
    parser.add_argument(
        "--probes", nargs="+", choices=["knn", "knn_cv", "logistic", "svm", "ridge"], default=["knn", "logistic"]
    )
    parser.add_argument("--pooling", choices=["mean", "max", "mean+max", "quarters", "segments"], default="mean")
    parser.add_argument("--labels", nargs="+", help="label columns to predict (all)")
    parser.add_argument("--figure", type=Path, help="file of the drawing (scaling.svg in --out)")
    parser.add_argument("--title", help="of the drawing (the recipe)")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/scaling"))
    given, words = parser.parse_known_args(args)
    at_least(parser, given, jobs=1, threads=1)
    if min(given.minutes) <= 0:
        parser.error(f"--minutes must be above 0, got {min(given.minutes)}")
    torch.set_num_threads(given.threads)
    load_plugins()
    try:
        lines = measure_missing(given, words)
    except ValueError as error:
        parser.error(str(error))
    found = points(lines)
    rows = []
    for point in found:
        cells = ["all" if point["samples"] is None else str(point["samples"]), f"{point['minutes']:g}"]
        cells += [f"{point['cpu_minutes']:.1f}", str(point["steps"]), str(point["seeds"]), point["probe"]]
        for name in ("trained", "untrained"):
            std = point[f"{name}_std"]
            cells.append(f"{point[name]:.3f}" + ("" if std is None else f" ± {std:.3f}"))
        rows.append(cells)
    print(table(["samples", "minutes", "measured", "steps", "seeds", "probe", "trained", "untrained"], rows))
    figure = given.figure or given.out / "scaling.svg"
    figure.parent.mkdir(parents=True, exist_ok=True)
    figure.write_text(draw(found, given.title or Path(given.recipe).stem))
    print(f"drawn in {figure}")
    write_json(given.json, {**vars(given), "arguments": words, **machine()}, {"points": found, "runs": lines})
    return found


if __name__ == "__main__":
    main()
