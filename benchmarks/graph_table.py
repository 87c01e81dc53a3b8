"""Graph-JEPA's table (Skenderi et al. 2023) on a CPU, with floors, spreads and the low-label curve.

    python -m benchmarks.graph_table --root data/tudataset --sets MUTAG PROTEINS IMDB-BINARY ENZYMES \
        --seeds 0 1 2 3 4 --threads 1

Stratified ten-fold logistic regression on pooled features of the frozen encoder, standardised, C chosen inside each
training fold. A seed is another initialisation, pre-training and shuffling of folds. Two variants:

- `--pretrain all`: pre-training on all graphs, without labels, once a seed (so the inputs of test graphs were seen);
- `--pretrain fold`: pre-training on each training fold, ten times a seed: nothing of a test graph is seen.

Beside the trained encoder: the same seeds' encoders before training; the training fold's majority class; a histogram of
node types and degrees (logistic regression); Weisfeiler and Lehman's subtree features (linear SVM; iterations from 1 to
4 and C chosen inside the training fold); and the published figure, which is not measured here. All on the same folds.

"std over seeds" is that of the seeds' ten-fold means; "std over folds" that of a seed's ten folds, averaged over seeds.
The interval of a difference is a t interval over the seeds' means: it covers initialisation, pre-training and the
shuffling of folds, not what other graphs would change.

The last table: accuracy when only a share of each training fold has labels (at least one a class), over draws.

Runs are kept in `--out` (figures as JSON, features as .npz, the run's logs; no checkpoints) and not trained again, so
that `--pooling max` prints another table without training. Words that are not options here go to `jepa-fit`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.repeated_splits import POOLINGS, encoder_features, poolings, train
from benchmarks.report import at_least, machine, options, table, write_json
from benchmarks.wl import histograms, read_graphs, wl_accuracy, wl_kernels
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.config.shipped import find_config
from jepa_lightning.evaluation.probes.protocols import LinearClassifier, Split, accuracies, few_labels, interval
from jepa_lightning.evaluation.probes.protocols import stratified_folds as stratified

Array = NDArray[Any]

PUBLISHED = {"MUTAG": 0.9125, "PROTEINS": 0.7568, "IMDB-BINARY": 0.7368}
SHARES = (0.01, 0.05, 0.1, 1.0)
_CLASSIFIER = LinearClassifier("logistic")


@dataclass(frozen=True)
class Spread:
    """Statistics of accuracies (seeds, folds).

    Attributes:
        mean: of all.
        seeds: standard deviation over seeds of the mean over folds; None for one seed.
        folds: standard deviation over the folds of a seed, averaged over seeds.
    """

    mean: float
    seeds: float | None
    folds: float

    @classmethod
    def of(cls, scores: Array) -> Spread:
        """Those of `scores` (seeds, folds)."""
        over_seeds = float(scores.mean(1).std(ddof=1)) if len(scores) > 1 else None
        return cls(float(scores.mean()), over_seeds, float(scores.std(axis=1, ddof=1).mean()))


def features(
    given: argparse.Namespace, name: str, words: Sequence[str], *, seed: int, labels: Array
) -> list[tuple[dict[str, Array], dict[str, Any]]]:
    """What is kept of a seed's runs, after training those that are missing: features by encoder, and figures.

    One run, or one a fold.
    """
    recipe = given.recipe.replace("{set}", name.lower().replace("-", "_"))
    splits = stratified(labels, folds=given.folds, seed=seed)
    everything = Split(np.arange(len(labels)), np.arange(0))
    per_fold = given.pretrain == "fold"
    found = []
    for number, split in enumerate(splits if per_fold else [everything]):
        part = f"_{number}of{given.folds}" if per_fold else ""
        path = given.out / f"{name}_{given.pretrain}_{seed}{part}.json"
        asked = {"recipe": Path(find_config(recipe)).read_text(), "words": list(words), "set": name}
        if not path.is_file():
            _train(path, recipe, given.root, [*words, "--data.name", name], seed=seed, split=split, asked=asked)
        figures = json.loads(path.read_text())
        if figures["asked"] != asked:
            raise ValueError(f"{path} is of another recipe or other options: remove it, or choose another --out")
        with np.load(path.with_suffix(".npz")) as kept:
            if not np.array_equal(kept["labels"], labels):
                raise ValueError(f"{path} is of other graphs: remove it, or choose another --out")
            found.append(({encoder: kept[encoder] for encoder in ("trained", "untrained")}, figures))
    return found


def _train(
    path: Path, recipe: str, root: str, words: list[str], *, seed: int, split: Split, asked: dict[str, Any]
) -> None:
    """Train, and keep the figures (JSON) and the features of all graphs (.npz)."""
    folder = path.with_suffix("")
    # No graphs held out: what is trained on is said here. No workers: they would not keep the cut graphs.
    words = ["--data.val_fraction", "0", "--data.num_workers", "0", *words]
    run, figures = train(recipe, root, words, seed=seed, folder=folder, choose=lambda *_: split)
    found: dict[str, Any] = {"labels": run.labels, **encoder_features(run)}
    np.savez_compressed(path.with_suffix(".npz"), **found)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    path.write_text(json.dumps({**figures, "asked": asked}, indent=2) + "\n")


class Evaluation:
    """Scores of one data set's rows on any splits.

    Args:
        root: the folder of the data sets.
        name: the data set's.
    """

    def __init__(self, root: str, name: str) -> None:
        graphs, self.labels = read_graphs(root, name)
        self.histograms = histograms(graphs)
        self.kernels = wl_kernels(graphs)

    def linear(self, values: Array, split: Split) -> float:
        """Logistic regression on features (graphs, D)."""
        return float(accuracies(values, self.labels, [split], classifier=_CLASSIFIER)[0])

    def encoders(self, pooled: dict[str, Array], split: Split) -> dict[str, float]:
        """`linear` of each encoder's features."""
        return {encoder: self.linear(values, split) for encoder, values in pooled.items()}

    def floors(self, split: Split) -> dict[str, float]:
        """What has even less than WL's features."""
        names, counts = np.unique(self.labels[split.train], return_counts=True)
        return {
            "majority class": float((self.labels[split.test] == names[counts.argmax()]).mean()),
            "histogram of types and degrees": self.linear(self.histograms, split),
        }

    def wl(self, split: Split) -> dict[str, float]:
        """Linear SVM on WL subtree features."""
        return {"WL subtree features": wl_accuracy(self.kernels, self.labels, split)}


def measure(given: argparse.Namespace, name: str, words: Sequence[str]) -> dict[str, Any]:
    """All scores of a data set: each row's by seed and fold, and the same by share of the labels."""
    evaluation = Evaluation(given.root, name)
    scores: list[list[dict[str, float]]] = []
    curve: dict[float, list[list[dict[str, float]]]] = {share: [] for share in given.shares}
    runs: list[dict[str, Any]] = []
    seconds = 0.0
    for seed in given.seeds:
        found = features(given, name, words, seed=seed, labels=evaluation.labels)
        runs += [figures for _, figures in found]
        start = time.process_time()
        scores.append([])
        for rows in curve.values():
            rows.append([])
        for number, split in enumerate(stratified(evaluation.labels, folds=given.folds, seed=seed)):
            encoders = found[number if given.pretrain == "fold" else 0][0]
            pooled = {encoder: poolings(values)[given.pooling] for encoder, values in encoders.items()}
            encoded, wl = evaluation.encoders(pooled, split), evaluation.wl(split)
            scores[-1].append(encoded | evaluation.floors(split) | wl)
            for share, rows in curve.items():
                first = (seed * given.folds + number) * given.draws
                draws = [
                    few_labels(split, evaluation.labels, share=share, seed=first + draw)
                    for draw in range(given.draws if share < 1 else 0)  # all labels are drawn in one way alone
                ]
                rows[-1].append(
                    _mean([evaluation.encoders(pooled, d) | evaluation.wl(d) for d in draws] or [encoded | wl])
                )
        seconds += time.process_time() - start
    return {
        "graphs": len(evaluation.labels),
        "classes": len(np.unique(evaluation.labels)),
        "steps": runs[0]["steps"],
        "cpu_seconds_of_runs": [figures["cpu_seconds"] for figures in runs],
        "cpu_seconds_of_scores": seconds,
        "scores": _by_row(scores),
        "few_labels": {f"{share:g}": _by_row(rows) for share, rows in curve.items()},
        "published": PUBLISHED.get(name),
    }


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _by_row(scores: list[list[dict[str, float]]]) -> dict[str, list[list[float]]]:
    return {name: [[fold[name] for fold in folds] for folds in scores] for name in scores[0][0]}


def show(name: str, found: dict[str, Any], given: argparse.Namespace) -> None:
    """Print a data set's two tables."""
    every = {"all": "on all graphs, without labels", "fold": "within each training fold"}[given.pretrain]
    print(
        f"\n{name}: {found['graphs']} graphs, {found['classes']} classes; pre-training {every}, {found['steps']} steps"
    )
    print(f"{len(given.seeds)} seeds x {given.folds} folds; {given.pooling} pooling; {_CLASSIFIER}")
    scores = {row: np.array(values) for row, values in found["scores"].items()}
    rows = []
    for row, values in scores.items():
        spread = Spread.of(values)
        over_seeds = "-" if spread.seeds is None else f"{spread.seeds:.3f}"
        rows.append([row, f"{spread.mean:.3f}", over_seeds, f"{spread.folds:.3f}"])
    published = "none" if found["published"] is None else f"{found['published']:.4f}"
    rows.append(["published, not measured here", published, "", ""])
    print(table(["features", "accuracy", "std over seeds", "std over folds"], rows))
    covers = "95% over seeds: initialisation, pre-training, shuffling; not other graphs"
    print(f"trained - untrained: {difference(scores)} ({covers if len(given.seeds) > 1 else 'one seed: no interval'})")
    runs = found["cpu_seconds_of_runs"]
    total = sum(runs) + found["cpu_seconds_of_scores"]
    print(f"CPU seconds: {np.mean(runs):.0f} a run, {len(runs)} runs; {total:.0f} in total with the classifiers\n")
    rows = []
    for share, by_row in found["few_labels"].items():
        scores = {row: np.array(values) for row, values in by_row.items()}
        rows.append(
            [f"{float(share):.0%}", *(f"{values.mean():.3f}" for values in scores.values()), difference(scores)]
        )
    if rows:
        print(table(["labels", *scores, "trained - untrained"], rows))


def difference(scores: dict[str, Array]) -> str:
    """Mean of trained minus untrained, with its interval over seeds where there are two."""
    values = (scores["trained"] - scores["untrained"]).mean(1)
    return str(interval(values)) if len(values) > 1 else f"{values.mean():.3f}"


def main(args: list[str] | None = None) -> dict[str, Any]:
    """Train what is not yet trained, print the tables, write the figures."""
    parser = options(__doc__, "graph_table")
    parser.add_argument(
        "--root", required=True, help="folder of the data sets, in PyG's layout: the recipes' data.root"
    )
    parser.add_argument("--sets", nargs="+", default=["MUTAG", "PROTEINS", "IMDB-BINARY", "ENZYMES"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--pretrain", choices=("all", "fold"), default="all")
    parser.add_argument("--pooling", choices=POOLINGS, default="mean")
    parser.add_argument("--recipe", default="graphjepa_{set}", help="name or file; {set}: the set's, as imdb_binary")
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument(
        "--shares", type=float, nargs="*", default=list(SHARES), help="of the labels, in the last table"
    )
    parser.add_argument("--draws", type=int, default=3, help="of these labels, for each fold")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/graph_table"))
    given, words = parser.parse_known_args(args)
    at_least(parser, given, threads=1, folds=2, draws=1, seeds=0)
    if not all(0 < share <= 1 for share in given.shares):
        parser.error(f"--shares must be above 0 and at most 1, got {given.shares}")
    torch.set_num_threads(given.threads)
    load_plugins()
    given.out.mkdir(parents=True, exist_ok=True)
    results = {}
    with threadpool_limits(given.threads):
        for name in given.sets:
            results[name] = measure(given, name, words)
            show(name, results[name], given)
    facts = machine(torch.device("cpu"))
    print(f"\n{', '.join(f'{fact} {value}' for fact, value in facts.items())}, {given.threads} threads")
    write_json(given.json, {**vars(given), "words": words, **facts}, results)
    return results


if __name__ == "__main__":
    main()
