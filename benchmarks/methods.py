"""Methods beside each other at equal CPU minutes: does predicting representations beat predicting pixels here?

    python -m benchmarks.methods --data data --minutes 5
    python -m benchmarks.methods --data data --minutes 20 --methods views_vicreg mae --seeds 0 1 2 --split test

Each method trains on CIFAR-10's images without labels for the same CPU time on the same threads: the time of a step is
measured in a short run, and sets the number of steps, over which the schedules stretch; the table says how
long it took in the end, a tenth more or less. Frozen features are
then probed with 10,000 labels (kNN and logistic regression, settings chosen inside the training part) beside the same
encoder before training: averaged over tokens, and over the tokens of each quarter of the image, side by side (columns
that begin with 4). `raw` probes the pixels themselves. A tenth of the training images is held out; `--split val`, the
default, scores on these, for choosing; `--split test` scores on the test images, once.

What lies in `--out` is not trained again.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import Tensor

from benchmarks.real_data import Run
from benchmarks.report import machine, options, table, write_json
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.encoders import Encoder
from jepa_lightning.encoders.pooling import Pooling, pooled_features
from jepa_lightning.evaluation import extract
from jepa_lightning.evaluation.evaluate_features import Encoded, Protocol, evaluate_features
from jepa_lightning.modality import Batch
from jepa_lightning.module import JEPA
from modalities.image import Image, ImageData

VIT, RESNET, CNN = "recipes/ijepa_cifar10.yaml", "recipes/vicreg_cifar10.yaml", "recipes/cnnjepa_cifar10.yaml"
_SIGREG = '[{"class_path": "SIGReg", "init_args": {"weight": 0.05, "per_sample": true}}]'
_EMA = ["--model.target", "EMA", "--model.target.momentum", "CosineRamp", "--model.target.momentum.start", "0.99"]
_EMA += ["--model.target.momentum.end", "1.0", "--model.prediction_weight", "1.0", "--model.regularizers", "null"]
_DINO = ["--model.pretext.projector", "[512,64]", "--model.pretext.prototypes", "1024"]
_DINO += ["--model.pretext.centering", "0.9", "--model.objective", "CrossEntropy"]
_PIXELS = ["--model.target", "RawTokens", "--model.objective", "MSE", "--model.regularizers", "null"]
METHODS: dict[str, tuple[str, list[str]]] = {
    "masked_ema": (VIT, []),
    "masked": (VIT, ["--model.regularizers", "null"]),
    "masked_sigreg": (
        VIT,
        ["--model.target", "Online", "--model.target.stop_gradient", "false", "--model.regularizers", _SIGREG],
    ),
    "mae": (VIT, [*_PIXELS, "--model.modality.masker", "Random", "--model.modality.masker.target_ratio", "0.75"]),
    "cnnjepa": (CNN, []),
    "cnn_mae": (CNN, _PIXELS),
    "views_vicreg": (RESNET, []),
    "views_sigreg": (RESNET, ["--model.prediction_weight", "0.95", "--model.regularizers", _SIGREG]),
    "views_visreg": (RESNET, ["--model.regularizers", '[{"class_path": "VISReg", "init_args": {"weight": 1.0}}]']),
    "byol": (RESNET, [*_EMA, "--model.pretext.head", "512", "--model.objective", "Cosine"]),
    "dino": (RESNET, [*_EMA, *_DINO]),
}
"""Shipped configuration and what is changed in it, by name."""

RAW = "raw"
"""The row of the pixels, scaled as the models see them."""

NAMES = [*METHODS, RAW]

LABELS = 10_000
POOLINGS: dict[Pooling, str] = {"mean": "", "quarters": "4 "}
"""Poolings that are probed, and what a score's name begins with."""

_WARM, _TIMED = 3, 8  # steps of the short run


class Clock(Callback):
    """CPU seconds at the end of each training step."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.begin = 0.0

    def on_train_start(self, *_: Any) -> None:
        """Note the time before the first step."""
        self.begin = time.process_time()

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        """Note the time."""
        self.ends.append(time.process_time())

    @property
    def step(self) -> float:
        """Return the median of a step's CPU seconds, after the first ones."""
        ends = self.ends[_WARM - 1 :]
        return statistics.median(after - before for before, after in pairwise(ends))

    @property
    def seconds(self) -> float:
        """Return the CPU seconds of all steps."""
        return self.ends[-1] - self.begin


class ClockedRun(Run):
    """A run that keeps its untrained encoder, and whose steps are timed."""

    def before_fit(self) -> None:
        """Add the clock."""
        super().before_fit()
        self.clock = Clock()
        self.trainer.callbacks.append(self.clock)  # type: ignore[attr-defined]


def train_equally(
    method: tuple[str, list[str]], root: Path, folder: Path, *, seed: int, minutes: float, words: list[str]
) -> ClockedRun:
    """Train a method for as many steps as fit into the CPU minutes, by the time of a step of a short run."""
    short = train(method, root, folder / "timed", seed=seed, steps=_WARM + _TIMED, words=words)
    steps = max(round(minutes * 60 / short.clock.step), 1)
    return train(method, root, folder / "run", seed=seed, steps=steps, words=words)


def train(
    method: tuple[str, list[str]], root: Path, folder: Path, *, seed: int, steps: int, words: list[str]
) -> ClockedRun:
    """Train a method, a shipped configuration and what is changed in it, for so many steps."""
    config, changed = method
    fixed = ["--trainer.max_epochs", "-1", "--trainer.max_steps", str(steps), "--trainer.limit_val_batches", "0"]
    fixed += ["--probe.enabled", "false", "--pictures.enabled", "false", "--trainer.enable_progress_bar", "false"]
    fixed += ["--seed_everything", str(seed), "--data.root", str(root), "--data.val_fraction", "0.1"]
    return ClockedRun(["fit", "--config", config, "--trainer.default_root_dir", str(folder), *changed, *fixed, *words])


def score(run: ClockedRun, split: str, *, seed: int) -> dict[str, float]:
    """Probe the trained and the untrained encoder: accuracies by "encoder probe"; "4 ..." of quarters."""
    module = run.model.cpu().eval()
    settings = run.config["data"]["init_args"].as_dict()
    data = type(run.datamodule)(**{**settings, "probe_samples": LABELS, "views": 1, "view_transform": None})
    data.trainer = run.trainer  # which has the model, whose sizes the data takes
    loader = data.val_dataloader if split == "val" else data.test_dataloader
    found: dict[str, float] = {}
    for pooling, before in POOLINGS.items():
        encoded = {}
        for encoder, part in (("trained", module.evaluated_encoder), ("untrained", run.untrained.cpu().eval())):
            embed = partial(_embed, module, part, pooling)
            encoded[encoder] = Encoded(extract(embed, data.probe_dataloader()), extract(embed, loader()))
        report = evaluate_features(encoded, protocol=Protocol(seed=seed), probes=("knn", "logistic"), labels=None)
        found |= {f"{before}{s.encoder} {s.probe}": s.estimate.mean for s in report.scores}
    return found


def score_raw(root: Path, split: str, *, seed: int) -> dict[str, float]:
    """Probe the pixels of the same images with the same protocol."""
    modality = Image(image_size=32, patch_size=8)
    shared: dict[str, Any] = {"root": str(root), "image_size": 32, "channels": 3, "batch_size": 256, "num_workers": 0}
    data: Any = ImageData(**shared, val_fraction=0.1, probe_samples=LABELS)
    loader = data.val_dataloader if split == "val" else data.test_dataloader
    train, held_out = (extract(modality.raw_features, part()) for part in (data.probe_dataloader, loader))
    encoded = Encoded(train, held_out)
    report = evaluate_features({RAW: encoded}, protocol=Protocol(seed=seed), probes=("knn", "logistic"), labels=None)
    return {f"trained {s.probe}": s.estimate.mean for s in report.scores}


def _embed(module: JEPA, encoder: Encoder, pooling: Pooling, batch: Batch) -> Tensor:
    return pooled_features(encoder, module.tokenizer(batch), pooling=pooling)


def measure(name: str, given: Any, *, seed: int, words: list[str]) -> dict[str, Any]:
    """Time, train and score one method with one seed."""
    if name == RAW:
        row = {"method": name, "seed": seed, "split": given.split, "steps": 0, "cpu_seconds": 0.0, "samples": 0}
        return {**row, **score_raw(given.data / "cifar10_jpg", given.split, seed=seed)}
    root, folder = given.data / "cifar10_jpg", given.out / f"{name}_{seed}"
    run = train_equally(METHODS[name], root, folder, seed=seed, minutes=given.minutes, words=words)
    steps, seconds = len(run.clock.ends), run.clock.seconds
    found = {"method": name, "seed": seed, "split": given.split, "steps": steps, "cpu_seconds": seconds}
    return {**found, "samples": steps * run.datamodule.batch_size, **score(run, given.split, seed=seed)}


def measure_missing(
    measure: Callable[..., dict[str, Any]], names: Iterable[str], given: Any, words: list[str]
) -> list[dict[str, Any]]:
    """Measure each method with each seed, unless its file lies in `--out`, and write all into one file."""
    results: list[dict[str, Any]] = []
    for name in names:
        for seed in given.seeds:
            path = given.out / f"{name}_{seed}_{given.split}_{given.minutes:g}.json"
            if not path.is_file():
                found = measure(name, given, seed=seed, words=words)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(found, indent=2) + "\n")
            results.append(json.loads(path.read_text()))
    write_json(given.json, {**vars(given), **machine()}, {"rows": results})
    return results


def main(args: list[str] | None = None) -> list[dict[str, Any]]:
    """Train and score what is missing, print the table."""
    parser = options(__doc__, "methods")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder that holds cifar10_jpg")
    parser.add_argument("--minutes", type=float, default=5.0, help="CPU minutes of training")
    parser.add_argument("--methods", nargs="+", choices=NAMES, default=NAMES, metavar="METHOD")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--split", choices=["val", "test"], default="val")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/methods"))
    given, words = parser.parse_known_args(args)
    torch.set_num_threads(given.threads)
    load_plugins()
    results = measure_missing(measure, given.methods, given, words)
    print(table(["method", "seeds", "CPU minutes", "steps", "samples", *COLUMNS], rows_of(results)))
    return results


COLUMNS = [
    f"{before}{encoder} {probe}"
    for before in POOLINGS.values()
    for probe in ("logistic", "knn")
    for encoder in ("trained", "untrained")
]


def rows_of(results: list[dict[str, Any]]) -> list[list[str]]:
    """Make a row a method: means over seeds, with their standard deviation where there are several; - for none."""
    rows = []
    for name in dict.fromkeys(result["method"] for result in results):
        same = [result for result in results if result["method"] == name]
        minutes = statistics.mean(result["cpu_seconds"] for result in same) / 60
        cells = [name, str(len(same)), f"{minutes:.1f}", str(same[0]["steps"]), str(same[0]["samples"])]
        for column in COLUMNS:
            values = [result[column] for result in same if column in result]
            if not values:
                cells.append("-")
                continue
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.3f}{spread}")
        rows.append(cells)
    return rows


if __name__ == "__main__":
    main()
