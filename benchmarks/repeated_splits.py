"""Trains a recipe on repeated splits of a small labelled data set, and evaluates each by a linear SVM.

    python -m benchmarks.repeated_splits --recipe pointjepa_bimnet10 --root data/bimnet10 --repeats 10 --threads 1

For data whose own test split is too small for a figure. All labelled samples, of whatever split, are drawn into a
training and a test part anew for each repeat, with the classes' shares and the sizes of the data's own split (or
`--test-share`). Each repeat trains the recipe, with its own seed, on the inputs of its training part alone (and those
of `--extra ROOT`, without labels); then a linear SVM (or `--classifier logistic`) on standardised, pooled features of
the frozen encoder learns the labels of the training part, C chosen inside it, and is scored on the test part. The same
for the encoder before training, and for raw input where the modality has a floor. So nothing of a test part, not even
its inputs, is seen before it is scored.

Printed are means with 95% intervals over repeats (Nadeau and Bengio's correction for training parts that overlap), and
the paired difference of trained and untrained. What lies in `--out` is not trained again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from benchmarks.real_data import Run, raw_input
from benchmarks.report import table
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.data.split import known_targets
from jepa_lightning.encoders import Encoder
from jepa_lightning.encoders.pooling import Pooling, pooled_features
from jepa_lightning.evaluation import extract
from jepa_lightning.evaluation.probes.protocols import LinearClassifier, Split, accuracies, interval, repeated_splits
from jepa_lightning.modality import Batch
from jepa_lightning.module import JEPA

POOLINGS: tuple[Pooling, ...] = ("mean", "max", "mean+max")


class SplitRun(Run):
    """`jepa-fit` on one part of the data: `choose` is told all labels and the size of the test split, and says which.

    Attributes:
        everything: all labelled samples of the data, of whatever split.
        labels: (n,) their classes.
        split: what `choose` chose.
    """

    choose: Callable[[np.ndarray, int], Split]
    extra: str | None = None
    everything: Dataset[Any]
    labels: np.ndarray
    split: Split

    def before_fit(self) -> None:
        """Exchange the data for the training part of the split."""
        super().before_fit()
        self.trainer.strategy.connect(self.model)  # the data take their sizes from the model
        settings = self.data_settings
        self.everything, sizes = self._load(settings)
        targets = known_targets(self.everything)
        if targets is None or (targets < 0).any():
            raise ValueError("expected data with a class for every sample, got some without")
        self.labels = targets
        self.split = type(self).choose(targets, sizes.get("test", 0))
        parts: list[Dataset[Any]] = [Subset(self.everything, self.split.train.tolist())]
        if self.extra is not None:
            parts.append(Unlabelled(self._load({**settings, "root": self.extra})[0]))
        chosen = {"train": ConcatDataset(parts), "test": self.everything}
        self.datamodule = type(self.datamodule)(**settings)
        self.datamodule.load = lambda: chosen  # not as a `dataset`, which would be wrapped once more
        self.datamodule.trainer = self.trainer

    def _load(self, settings: dict[str, Any]) -> tuple[Dataset[Any], dict[str, int]]:
        data = type(self.datamodule)(**settings)
        data.trainer = self.trainer
        sets = data.load()
        return ConcatDataset(list(sets.values())), {split: len(part) for split, part in sets.items()}


class Unlabelled(Dataset[Any]):
    """The inputs of a dataset of dicts, without labels."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        return {**self.dataset[index], "labels": None}


def poolings(values: np.ndarray) -> dict[Pooling, np.ndarray]:
    """All poolings, from "mean+max": (n, 2 D)."""
    width = values.shape[1] // 2
    return {"mean": values[:, :width], "max": values[:, width:], "mean+max": values}


def encoder_features(run: SplitRun) -> dict[str, np.ndarray]:
    """Features of all samples by the encoder, "trained" and "untrained", pooled as "mean+max": (n, 2 D)."""
    module: JEPA = run.model.cpu().eval()
    encoders: dict[str, Encoder] = {"trained": module.evaluated_encoder, "untrained": run.untrained.cpu().eval()}
    batches = run.datamodule.test_dataloader()
    return {
        name: extract(pooler(module, encoder, "mean+max"), batches).values.numpy() for name, encoder in encoders.items()
    }


def features_of_all(run: SplitRun) -> dict[str, np.ndarray]:
    """Features of all samples, by encoder and pooling ("trained mean", ..., "raw")."""
    found = {
        f"{name} {how}": pooled
        for name, values in encoder_features(run).items()
        for how, pooled in poolings(values).items()
    }
    raw = raw_input(run.model)
    if raw is not None:
        found["raw"] = extract(raw, run.datamodule.test_dataloader()).values.numpy()
    return found


def pooler(module: JEPA, encoder: Encoder, how: Pooling) -> Callable[[Batch], Tensor]:
    """The function from a batch to pooled features of `encoder`."""

    @torch.no_grad()
    def embed(batch: Batch) -> Tensor:
        return pooled_features(encoder, module.tokenizer(batch), pooling=how)

    return embed


def train(
    recipe: str,
    root: str,
    words: Sequence[str],
    *,
    seed: int,
    folder: Path,
    choose: Callable[[np.ndarray, int], Split],
    extra: str | None = None,
) -> tuple[SplitRun, dict[str, Any]]:
    """Train a recipe (a shipped name, or a path) on the training part that `choose` says: the run, and its figures."""
    start, start_cpu = time.perf_counter(), time.process_time()
    run_class = type("ChosenSplit", (SplitRun,), {"choose": staticmethod(choose), "extra": extra})
    config = ["fit", "--config", recipe, "--seed_everything", str(seed), "--data.root", root]
    run: SplitRun = run_class([*config, "--trainer.default_root_dir", str(folder), *words])
    figures: dict[str, Any] = {"recipe": Path(recipe).stem, "seed": seed, "steps": run.trainer.global_step}
    figures |= {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - start_cpu}
    figures |= {"train_samples": len(run.split.train), "test_samples": len(run.split.test)}
    return run, figures


def evaluate(
    recipe: str,
    root: str,
    words: Sequence[str],
    *,
    classifier: LinearClassifier,
    **settings: Any,
) -> dict[str, Any]:
    """`train` on one split (with its settings) and score the test part."""
    run, figures = train(recipe, root, words, **settings)
    scores = {
        name: float(accuracies(values, run.labels, [run.split], classifier=classifier)[0])
        for name, values in features_of_all(run).items()
    }
    return {**figures, "classifier": str(classifier), "scores": scores}


def main(args: list[str] | None = None) -> list[dict[str, Any]]:
    """Run the repeats, print the table."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.repeated_splits", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="pointjepa_bimnet10", help="a shipped recipe, or a file")
    parser.add_argument("--root", required=True, help="the recipe's data.root")
    parser.add_argument("--extra", default=None, help="another root whose inputs are trained on, without labels")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--test-share", type=float, default=None, help="None: that of the data's own test split")
    parser.add_argument("--classifier", choices=("svm", "logistic"), default="svm")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/repeated_splits"))
    given, words = parser.parse_known_args(args)
    if given.threads:
        torch.set_num_threads(given.threads)
    load_plugins()
    results = []
    for repeat in range(given.repeats):

        def choose(labels: np.ndarray, tests: int, repeat: int = repeat) -> Split:
            share = given.test_share or tests / len(labels)
            return repeated_splits(labels, repeats=repeat + 1, test_share=share, seed=0)[repeat]

        name = f"{Path(given.recipe).stem}_{repeat}"
        path = given.out / f"{name}.json"
        if not path.is_file():
            folder, classifier = given.out / name, LinearClassifier(given.classifier)
            where = given.recipe, given.root, words
            done = evaluate(*where, seed=repeat, folder=folder, choose=choose, classifier=classifier, extra=given.extra)
            path.write_text(json.dumps(done, indent=2) + "\n")
        results.append(json.loads(path.read_text()))
    show(results)
    return results


def show(results: list[dict[str, Any]]) -> None:
    """Print the table."""
    first = results[0]
    ratio = first["test_samples"] / first["train_samples"]
    scores = {name: np.array([result["scores"][name] for result in results]) for name in first["scores"]}
    rows = [[name, *_row(values, ratio)] for name, values in scores.items()]
    for how in POOLINGS:
        rows.append([f"trained - untrained {how}", *_row(scores[f"trained {how}"] - scores[f"untrained {how}"], ratio)])
    print(f"\n{first['recipe']}: {len(results)} splits, {first['train_samples']} / {first['test_samples']} samples")
    print(f"{first['classifier']}; {first['steps']} steps a run")
    print(f"CPU seconds a run: {' '.join(str(round(result['cpu_seconds'])) for result in results)}")
    print(table(["features", "accuracy", "95% interval", "std over splits"], rows))


def _row(values: np.ndarray, ratio: float) -> list[str]:
    if len(values) < 2:
        return [f"{values.mean():.3f}", "-", "-"]
    found = interval(values, test_over_train=ratio)
    return [f"{found.mean:.3f}", f"{found.low:.3f} to {found.high:.3f}", f"{found.std:.3f}"]


if __name__ == "__main__":
    main()
