"""Methods beside each other at equal minutes of training: does predicting representations beat predicting pixels here?

    python -m benchmarks.methods --data data --minutes 5
    python -m benchmarks.methods --data data --minutes 20 --methods views_vicreg mae --seeds 0 1 2 --split test
    python -m benchmarks.methods --data data --device cuda --minutes 1.5 --labels 10000 50000 --split test

Each method trains on CIFAR-10's images without labels for the same CPU time on the same threads: the time of a step is
measured in a short run, and sets the number of steps, over which the schedules stretch; the table says how
long it took in the end, a tenth more or less. Frozen features are
then probed with 10,000 labels (kNN and logistic regression, settings chosen inside the training part) beside the same
encoder before training: averaged over tokens, and over the tokens of each quarter of the image, side by side (columns
that begin with 4). `supervised` trains the ResNet of the methods on views on all training labels instead, for the same
time. `raw` probes the pixels themselves, and `hog` histograms of oriented gradients (scikit-image). A tenth of the
training images is held out; `--split val`, the default, scores on these, for choosing; `--split test` scores on the
test images, once. More labels than are left of the training images take `--split test`: nothing is held out then.

With `--device cuda` methods train on a GPU in bf16, with larger encoders and batches (`--recipes gpu`, the default
there), for seconds by the clock; features and probes are computed there, too. Images are decoded once, into a folder
below `--out`.

What lies in `--out` is not trained again.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from torch import Tensor

from benchmarks.hog import hog_features
from benchmarks.method_settings import METHODS, RECIPES
from benchmarks.real_data import Run
from benchmarks.report import at_least, choose_device, machine, options, table, write_json
from benchmarks.training import QUIET
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.encoders.pooling import Pooling, pooled_features
from jepa_lightning.evaluation import Features, extract
from jepa_lightning.evaluation.probes.probing import Probe, run_probe
from jepa_lightning.evaluation.probes.protocols import Split
from jepa_lightning.modality import Batch
from modalities.image import Image, ImageData

RAW, HOG = "raw", "hog"
"""The rows without learning: the pixels, scaled as the models see them, and histograms of oriented gradients."""

NAMES = [*METHODS, HOG, RAW]

LABELS, IMAGES = 10_000, 50_000  # of the probes by default; for training
HOG_CELL = 4
POOLINGS: dict[Pooling, str] = {"mean": "", "quarters": "4 "}
"""Poolings that are probed, and what a score's name begins with."""

PROBES: tuple[Probe, ...] = ("logistic", "knn")

_HELD_OUT = 0.1  # of the training images
_SHORT = {"cpu": (3, 8), "cuda": (20, 40)}  # steps of the short run: not timed, then timed


class Clock(Callback):
    """Seconds at the end of each training step: of the CPU, or where a GPU trains, by the clock.

    A GPU computes behind what the CPU asks of it. It is waited for twice, after the steps that are not timed and after
    the last, and the time of a step is the mean between the two.

    Args:
        device: "cpu" or "cuda".
    """

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.warm = _SHORT[device][0]
        self.ends: list[float] = []
        self.begin = 0.0

    def now(self, *, wait: bool = False) -> float:
        """Return the time; `wait` for a GPU to have computed everything."""
        if self.device == "cpu":
            return time.process_time()
        if wait:
            torch.cuda.synchronize()
        return time.perf_counter()

    def on_train_start(self, *_: Any) -> None:
        """Note the time before the first step."""
        self.begin = self.now(wait=True)

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        """Note the time."""
        self.ends.append(self.now(wait=len(self.ends) + 1 == self.warm))

    def on_train_end(self, *_: Any) -> None:
        """Note the time after the last step."""
        self.ends[-1] = self.now(wait=True)

    @property
    def step(self) -> float:
        """Return a step's seconds, without the first ones: the median of the CPU's, the mean of a GPU's."""
        ends = self.ends[self.warm - 1 :]
        if self.device != "cpu":
            return (ends[-1] - ends[0]) / (len(ends) - 1)
        return statistics.median(after - before for before, after in pairwise(ends))

    @property
    def seconds(self) -> float:
        """Return the seconds of all steps."""
        return self.ends[-1] - self.begin


class ClockedRun(Run):
    """A run that keeps its untrained encoder, and whose steps are timed."""

    device = computes_on = "cpu"

    def before_fit(self) -> None:
        """Add the clock."""
        super().before_fit()
        self.clock = Clock(self.device)
        self.trainer.callbacks.append(self.clock)  # type: ignore[attr-defined]


class ClockedCardRun(ClockedRun):
    """The same on a GPU."""

    device = computes_on = "cuda"


def train_for(
    config: str,
    folder: Path,
    *,
    seed: int,
    minutes: float,
    words: Sequence[str],
    step: float | None = None,
    kind: type[ClockedRun] = ClockedRun,
) -> ClockedRun:
    """Train a configuration for as many steps as fit into the minutes, over which the schedules stretch.

    Args:
        config: a shipped name, or a path.
        folder: of the runs `timed`, whose few steps are timed, and `run`.
        seed: of both.
        minutes: of the CPU, or by the clock on a GPU.
        words: further ones of `jepa-fit`; with --trainer.max_steps among them, it trains for so many, and times none.
        step: seconds of a step, where they are known; nothing is timed then.
        kind: of the run.
    """

    def train(name: str, steps: int) -> ClockedRun:
        length = ["--trainer.max_epochs", "-1", "--trainer.max_steps", str(steps), "--seed_everything", str(seed)]
        where = ["--trainer.default_root_dir", str(folder / name)]
        return kind(["fit", "--config", config, *QUIET, *where, *length, *words])

    if any(word.partition("=")[0] == "--trainer.max_steps" for word in words):
        return train("run", 1)  # the words come last
    if step is None:
        step = train("timed", sum(_SHORT[kind.device])).clock.step
    return train("run", max(round(minutes * 60 / step), 1))


def train_equally(
    method: tuple[str, list[str]],
    root: Path,
    folder: Path,
    *,
    seed: int,
    minutes: float,
    words: Sequence[str],
    device: str = "cpu",
    val_fraction: float = _HELD_OUT,
) -> ClockedRun:
    """Train a method, a shipped configuration and what is changed in it, for so many minutes; see `train_for`."""
    config, changed = method
    fixed = [*changed, "--data.root", str(root), "--data.val_fraction", str(val_fraction)]
    kind = ClockedRun
    if device != "cpu":
        kind, fixed = ClockedCardRun, [*fixed, *card_settings(folder.parent / "decoded")]
    return train_for(config, folder, seed=seed, minutes=minutes, words=[*fixed, *words], kind=kind)


def card_settings(decoded: Path) -> list[str]:
    """Return settings that keep a GPU busy: bf16, drawing in other processes, nothing read or written between steps."""
    words = ["--trainer.accelerator", "gpu", "--trainer.devices", "1", "--trainer.precision", "bf16-mixed"]
    words += ["--trainer.benchmark", "true", "--trainer.log_every_n_steps", "1000"]
    words += ["--trainer.enable_checkpointing", "false", "--data.cache_folder", str(decoded)]
    return [*words, "--data.num_workers", str(max(1, min(8, (os.cpu_count() or 2) - 2)))]


def score(
    run: ClockedRun,
    split: str,
    *,
    labels: Sequence[int] = (LABELS,),
    poolings: Sequence[Pooling] = tuple(POOLINGS),
) -> dict[str, float]:
    """Probe the trained and the untrained encoder on the device that trained: accuracies by `columns`."""
    device = torch.device(run.computes_on)
    module = run.model.to(device).eval()
    encoders = {"trained": module.evaluated_encoder, "untrained": run.untrained.to(device).eval()}
    settings = run.config["data"]["init_args"].as_dict() | {"views": 1, "view_transform": None}

    def embed(batch: Batch) -> list[Tensor]:
        batch = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
        tokens = module.tokenizer(batch)
        return [pooled_features(encoder, tokens, pooling=how) for encoder in encoders.values() for how in poolings]

    def data(count: int) -> Any:
        made = type(run.datamodule)(**{**settings, "probe_samples": count})
        made.trainer = run.trainer  # which has the model, whose sizes the data takes
        return made

    names = [f"{POOLINGS[how]}{encoder}" for encoder in encoders for how in poolings]
    return probe_all(embed, data, names, split, labels=labels, device=device)


def score_fixed(
    name: str, root: Path, split: str, *, labels: Sequence[int], device: str, val_fraction: float
) -> dict[str, float]:
    """Probe the pixels of the same images, or their histograms of oriented gradients, with the same protocol."""
    modality = Image(image_size=32, patch_size=8)
    shared: dict[str, Any] = {"root": str(root), "image_size": 32, "channels": 3, "batch_size": 256, "num_workers": 0}
    if name == HOG:  # gradients of colours as they are
        shared |= {"mean": [0.0] * 3, "std": [1.0] * 3}

    def embed(batch: Batch) -> list[Tensor]:
        return [modality.raw_features(batch) if name == RAW else hog_features(batch["image"], cell=HOG_CELL)]

    def data(count: int) -> Any:
        return ImageData(**shared, val_fraction=val_fraction, probe_samples=count)

    return probe_all(embed, data, ["trained"], split, labels=labels, device=torch.device(device))


def probe_all(
    embed: Callable[[Batch], list[Tensor]],
    data: Callable[[int], Any],
    names: Sequence[str],
    split: str,
    *,
    labels: Sequence[int],
    device: torch.device,
) -> dict[str, float]:
    """Probe several kinds of features, which are extracted together; `data` is given the number of labels.

    Fewer labels are those of the samples that the data module would choose.
    """
    most = data(max(labels))
    loader = most.val_dataloader if split == "val" else most.test_dataloader
    widths: list[int] = []

    def beside(batch: Batch) -> Tensor:
        found = embed(batch)
        widths[:] = [part.shape[1] for part in found]
        return torch.cat(found, dim=1)

    known, asked = (extract(beside, part()) for part in (most.probe_dataloader, loader))
    parts = zip(*(found.values.split(widths, dim=1) for found in (known, asked)), strict=True)
    place = {index: number for number, index in enumerate(most.part("probe").indices.tolist())}
    scores = {}
    for name, (train, test) in zip(names, parts, strict=True):
        for count in labels:
            chosen = data(count).part("probe").indices.tolist() if count < max(labels) else list(place)
            rows = torch.tensor([place[index] for index in chosen])
            fitted = Features(train[rows], {key: value[rows] for key, value in known.labels.items()})
            for probe in PROBES:
                found = probe_once(probe, fitted, Features(test, asked.labels), device)
                scores[column(name, probe, count)] = found
    return scores


def probe_once(probe: Probe, train: Features, test: Features, device: torch.device) -> float:
    """Fit a probe on features of the training part, and measure its accuracy on the test part."""
    features = torch.cat([train.values, test.values]).to(device)
    labels = torch.cat([train.class_label(), test.class_label()]).numpy()
    rows = np.arange(len(labels))
    return run_probe(probe, features, labels, Split(rows[: len(train.values)], rows[len(train.values) :])).score


def measure(name: str, given: Any, *, seed: int, words: list[str]) -> dict[str, Any]:
    """Time, train and score one method with one seed."""
    root, folder = given.data / "cifar10_jpg", given.out / f"{name}_{seed}"
    how: dict[str, Any] = {"device": given.device, "val_fraction": given.val_fraction}
    row: dict[str, Any] = {"method": name, "seed": seed, "split": given.split}
    clock = "cpu_seconds" if given.device == "cpu" else "seconds"
    if name in (RAW, HOG):
        found = score_fixed(name, root, given.split, labels=given.labels, **how)
        return {**row, "steps": 0, clock: 0.0, "samples": 0, **found}
    method = RECIPES[given.recipes][name]
    run = train_equally(method, root, folder, seed=seed, minutes=given.minutes, words=words, **how)
    steps = len(run.clock.ends)
    row |= {"steps": steps, clock: run.clock.seconds, "samples": steps * run.datamodule.batch_size}
    return {**row, **score(run, given.split, labels=given.labels, poolings=given.poolings)}


def measure_missing(
    measure: Callable[..., dict[str, Any]],
    names: Iterable[str],
    given: Any,
    words: list[str],
    device: torch.device | None = None,
) -> list[dict[str, Any]]:
    """Measure each method with each seed, unless its file lies in `--out`, and write all into one file."""
    results: list[dict[str, Any]] = []
    for name in names:
        for seed in given.seeds:
            path = given.out / f"{name}_{seed}_{given.split}_{given.minutes:g}{getattr(given, 'variant', '')}.json"
            if not path.is_file():
                found = measure(name, given, seed=seed, words=words)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(found, indent=2) + "\n")
            results.append(json.loads(path.read_text()))
    write_json(given.json, {**vars(given), **machine(device)}, {"rows": results})
    return results


def main(args: list[str] | None = None) -> list[dict[str, Any]]:
    """Train and score what is missing, print the table."""
    parser = options(__doc__, "methods")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder that holds cifar10_jpg")
    parser.add_argument("--minutes", type=float, default=5.0, help="minutes of training: of the CPU, or by the clock")
    parser.add_argument("--methods", nargs="+", choices=NAMES, default=NAMES, metavar="METHOD")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--split", choices=["val", "test"], default="val")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/methods"))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--recipes", choices=list(RECIPES), help="sizes of the models; those of the device by default")
    parser.add_argument("--labels", type=int, nargs="+", default=[LABELS], help="numbers of labels of the probes")
    parser.add_argument("--poolings", nargs="+", choices=list(POOLINGS), default=list(POOLINGS))
    given, words = parser.parse_known_args(args)
    at_least(parser, given, labels=100)
    given.recipes = given.recipes or {"cpu": "cpu", "cuda": "gpu"}[given.device]
    given.val_fraction = _HELD_OUT if max(given.labels) <= (1 - _HELD_OUT) * IMAGES else 0.0
    if not given.val_fraction and given.split == "val":
        parser.error(f"--labels {max(given.labels)} are all training images: none are held out, so use --split test")
    given.variant = "".join(f"_{word}" for word in variant(given))
    device = choose_device(parser, given.device)
    torch.set_num_threads(given.threads)
    load_plugins()
    results = measure_missing(measure, given.methods, given, words, device)
    shown = columns(given.labels, given.poolings)
    minutes = "CPU minutes" if given.device == "cpu" else "minutes"
    print(table(["method", "seeds", minutes, "steps", "samples", *shown], rows_of(results, shown)))
    return results


def variant(given: Any) -> list[str]:
    """Return what a measurement's file is named by besides method, seed, split and minutes; nothing by default."""
    labels = [] if given.labels == [LABELS] else ["-".join(map(str, given.labels))]
    poolings = [] if given.poolings == list(POOLINGS) else ["-".join(given.poolings)]
    recipes = [] if given.recipes == given.device.replace("cuda", "gpu") else [given.recipes]
    return [*([] if given.device == "cpu" else [given.device]), *recipes, *labels, *poolings]


def column(encoder: str, probe: str, labels: int) -> str:
    """Name a score: the number of labels is left out where it is the usual one."""
    return f"{encoder} {probe}" + ("" if labels == LABELS else f" {labels}")


def columns(labels: Sequence[int] = (LABELS,), poolings: Sequence[Pooling] = tuple(POOLINGS)) -> list[str]:
    """Name all scores of a table."""
    return [
        column(f"{POOLINGS[how]}{encoder}", probe, count)
        for how in poolings
        for count in labels
        for probe in PROBES
        for encoder in ("trained", "untrained")
    ]


COLUMNS = columns()


def rows_of(results: list[dict[str, Any]], shown: Sequence[str] = COLUMNS) -> list[list[str]]:
    """Make a row a method: means over seeds, with their standard deviation where there are several; - for none."""
    rows = []
    for name in dict.fromkeys(result["method"] for result in results):
        same = [result for result in results if result["method"] == name]
        minutes = statistics.mean(result.get("cpu_seconds", result.get("seconds", 0.0)) for result in same) / 60
        cells = [name, str(len(same)), f"{minutes:.1f}", str(same[0]["steps"]), str(same[0]["samples"])]
        for column_name in shown:
            values = [result[column_name] for result in same if column_name in result]
            if not values:
                cells.append("-")
                continue
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.3f}{spread}")
        rows.append(cells)
    return rows


if __name__ == "__main__":
    main()
