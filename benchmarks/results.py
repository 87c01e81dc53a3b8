"""The README's table of results: every recipe on its real data, trained against untrained, with intervals.

    python -m benchmarks.results --data data --threads 1
    python -m benchmarks.results --data data --threads 1 --sets count_depth MUTAG --seeds 0 1

Each set is trained and evaluated several times: over seeds where the data have a test split (CIFAR-10, moving MNIST,
sign digits, tiny-imagenet, count_depth, shapes_factors, Cora, CiteSeer) or are divided in folds (MUTAG, ENZYMES:
pre-trained on its graphs without labels, ten folds), over the speaker left out (FSDD), over random divisions (BIMNet10;
what is pre-trained on is divided too). The probes are those of `jepa-probe`, on mean-pooled features of the frozen
encoder: their settings are chosen inside the training part. The untrained encoder is the very one that the run began
with; raw input is the modality's floor (where it is the same for all seeds, it is evaluated once).

The interval of a difference covers what another seed and what other test samples would change: for seeds, the variance
of a run's own interval (a paired bootstrap over test samples, or over folds by Nadeau and Bengio's rule), counted as
the same for all seeds, plus that of the mean over seeds, with Welch and Satterthwaite's degrees of freedom; for
speakers and divisions, Nadeau and Bengio's corrected interval. "helps" and "hurts" are said where it leaves out zero.

What lies in `--out` is not trained again: remove the folder to measure anew. shapes_factors has one archive and no
split: a fifth, drawn once, is the test part.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import norm
from scipy.stats import t as student
from torch import Tensor

from benchmarks.real_data import Run, by_time, raw_input
from benchmarks.repeated_splits import pooler
from benchmarks.repeated_splits import train as train_on_split
from benchmarks.report import machine, options, table, write_json
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.encoders import Encoder
from jepa_lightning.encoders.pooling import Pooling, pool_sample
from jepa_lightning.evaluation import Features, extract
from jepa_lightning.evaluation.evaluate_features import Encoded, Protocol, evaluate_features
from jepa_lightning.evaluation.probes.probing import Probe
from jepa_lightning.evaluation.probes.protocols import interval, repeated_splits
from jepa_lightning.modality import Batch
from jepa_lightning.module import JEPA

Embedders = dict[str, Callable[[Batch], Tensor]]


@dataclass(frozen=True)
class Entry:
    """One data set of the table.

    Attributes:
        title: in the table.
        recipe: a shipped one.
        root: what lies under `--data`.
        words: for `jepa-fit`; "{data}" stands for `--data`.
        runs: seeds; or the values of `each`; or the number of divisions as numbers.
        kind: what the runs differ in.
        each: the setting that differs, of "groups".
        probes: probes of `evaluate`.
        labels: labels to predict, in the order of the table; None: all.
        pooling: of the tokens, those of raw input too where it is not the mean.
        by_time: labels that are evaluated once more with features of each time side by side.
        prepare: makes `root` from what lies under `--data`, and says where it is.
        extra: further inputs without labels, of "divisions"; what lies under `--data`.
    """

    title: str
    recipe: str
    root: str
    words: tuple[str, ...] = ()
    runs: tuple[Any, ...] = (0, 1, 2)
    kind: str = "seeds"
    each: str = ""
    probes: tuple[Probe, ...] = ("knn", "knn_cv", "logistic", "ridge")
    labels: tuple[str, ...] | None = None
    pooling: Pooling = "mean"
    by_time: tuple[str, ...] = ()
    prepare: Callable[[Path, Path], Path] | None = None
    extra: str | None = None


def split_shapes(data: Path, out: Path) -> Path:
    """shapes_factors as train.npz and test.npz, images (H, W, 1) from 0 to 255 and each factor a label."""
    folder = out / "shapes_factors"
    if not (folder / "test.npz").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with np.load(data / "shapes_factors" / "shapes_ndarray_co1sh3sc6or8x16y16_64x64.npz") as archive:
            images, classes, values = archive["imgs"], archive["latents_classes"], archive["latents_values"]
        order = np.random.default_rng(0).permutation(len(images))
        fifth = len(order) // 5
        for split, rows in (("train", order[fifth:]), ("test", order[:fifth])):
            factors = {name: classes[rows, column] for name, column in (("shape", 1), ("scale", 2), ("orientation", 3))}
            factors["position"] = values[rows, 4:6].astype(np.float32)
            np.savez_compressed(folder / f"{split}.npz", image=images[rows, ..., None] * np.uint8(255), **factors)
    return folder


SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
SCENES = Entry("Scenes (count_depth)", "ijepa_count_depth", "count_depth", labels=("count", "nearest"))
SHAPES = Entry(
    "Shapes (shapes_factors)",
    "ijepa_shapes_factors",
    "",
    labels=("shape", "scale", "orientation", "position"),
    prepare=split_shapes,
)
MOVING_MNIST = Entry(
    "Moving MNIST",
    "vjepa_moving_mnist",
    "moving_mnist",
    labels=("direction", "digit", "velocity"),
    by_time=("velocity",),
)
FSDD = Entry(
    "Spoken digits, unheard speaker",
    "audiojepa_fsdd",
    "fsdd/recordings",
    words=("--data.csv", "{data}/fsdd/index.csv"),
    runs=SPEAKERS,
    kind="groups",
    each="data.test_groups",
    probes=("knn", "knn_cv", "logistic"),
)
BIMNET = Entry(
    "Parts of buildings (BIMNet10)",
    "pointjepa_bimnet10",
    "bimnet10",
    runs=tuple(range(10)),
    kind="divisions",
    probes=("knn", "knn_cv", "svm"),
    extra="modelnet10_chair_monitor",
)
MUTAG = Entry("MUTAG", "graphjepa_mutag", "tudataset", kind="folds", probes=("knn", "knn_cv", "logistic"))
CORA = Entry(
    "Papers (Cora), nodes", "vicreg_cora", "planetoid", runs=tuple(range(5)), probes=("knn", "knn_cv", "logistic")
)
ENTRIES = {
    "cifar10_jpg": Entry("CIFAR-10", "ijepa_cifar10", "cifar10_jpg"),
    "count_depth": SCENES,
    "count_depth_views": replace(SCENES, title="Scenes, two views", recipe="vicreg_count_depth"),
    "shapes_factors": SHAPES,
    "shapes_factors_views": replace(SHAPES, title="Shapes, two views", recipe="vicreg_shapes_factors"),
    "moving_mnist": MOVING_MNIST,
    "moving_mnist_sigreg": replace(MOVING_MNIST, title="Moving MNIST, each token spread", recipe="sigreg_moving_mnist"),
    "moving_mnist_views": replace(
        MOVING_MNIST, title="Moving MNIST, two views", recipe="vicreg_moving_mnist", by_time=()
    ),
    "tiny_imagenet20": Entry("tiny-imagenet, 20 classes, own_images.yaml", "own_images", "tiny_imagenet20"),
    "sign_digits_views": Entry("Sign digits, two views", "vicreg_sign_digits", "sign_digits"),
    "fsdd": FSDD,
    "fsdd_views": replace(FSDD, title="Spoken digits, two views", recipe="vicreg_fsdd", pooling="segments"),
    "fsdd_own": replace(
        FSDD,
        title="Spoken digits, own_audio.yaml",
        recipe="own_audio",
        words=(*FSDD.words, "--data.labels", "[digit]", "--data.group", "speaker"),
    ),
    "bimnet10": BIMNET,
    "bimnet10_views": replace(
        BIMNET,
        title="Parts of buildings, two views",
        recipe="vicreg_bimnet10",
        probes=("knn", "knn_cv", "logistic", "svm"),
        extra=None,
    ),
    "MUTAG": MUTAG,
    "ENZYMES": replace(MUTAG, title="ENZYMES, each token spread", recipe="sigreg_enzymes", runs=tuple(range(5))),
    "ENZYMES_attributes": replace(
        MUTAG, title="ENZYMES with measurements, two views", recipe="vicreg_enzymes_attributes", runs=tuple(range(5))
    ),
    "cora": CORA,
    "citeseer": replace(
        CORA,
        title="Papers (CiteSeer), nodes",
        words=("--data.name", "CiteSeer", "--model.modality.features", "3703"),
    ),
}
LABELS = 10_000  # that a probe is fitted on, at most
FOLDS = 10


def run_entry(entry: Entry, number: int, *, data: Path, folder: Path) -> dict[str, Any]:
    """Train and evaluate once; return the scores of the run."""
    root = entry.prepare(data, folder.parent) if entry.prepare else data / entry.root
    words = [word.replace("{data}", str(data)) for word in entry.words]
    words += ["--pictures.enabled", "false", "--trainer.enable_progress_bar", "false"]
    value = entry.runs[number]
    seed = number if entry.kind == "groups" else int(value)
    if entry.kind == "groups":
        words += [f"--{entry.each}", f"[{value}]"]
    clock = time.process_time()
    run: Run
    if entry.kind == "divisions":
        run, encoded = _on_division(entry, root, words, seed=seed, data=data, folder=folder)
        evaluated = [(encoded, entry.labels)]
    else:
        config = ["fit", "--config", f"{entry.recipe}.yaml", "--seed_everything", str(seed)]
        run = Run([*config, "--data.root", str(root), "--trainer.default_root_dir", str(folder), *words])
        folds, raw = entry.kind == "folds", number == 0 or entry.kind == "groups"
        embedders = _embedders(run, pooling=entry.pooling, raw=raw)
        evaluated = [(_encode(run, embedders, folds=folds), entry.labels)]
        if entry.by_time:
            evaluated.append((_encode(run, _embedders(run, pooling=None, raw=False), folds=folds), entry.by_time))
    trained = time.process_time() - clock
    found: list[dict[str, Any]] = []
    protocol = Protocol(kind="folds", folds=FOLDS, seed=seed) if entry.kind == "folds" else Protocol(seed=seed)
    for part, (encoded, labels) in enumerate(evaluated):
        report = evaluate_features(encoded, protocol=protocol, probes=entry.probes, labels=labels)
        note = ", times apart" if part else ""
        differences = {(d.label, d.probe, d.baseline): d.estimate for d in report.differences}
        for score in report.scores:
            if score.encoder != "trained":
                continue
            estimate = differences[score.label, score.probe, "untrained"]
            others = {
                s.encoder: s.estimate.mean for s in report.scores if (s.label, s.probe) == (score.label, score.probe)
            }
            found.append(
                {
                    **{"label": score.label, "probe": score.probe, "note": note, "scores": others},
                    **{"difference": estimate.mean, "low": estimate.low, "high": estimate.high},
                    **{"train": score.train, "test": score.test, "chance": score.chance},
                }
            )
    return {
        **{"run": value, "seed": seed, "steps": run.trainer.global_step, "rows": found},
        **{"cpu_seconds": time.process_time() - clock, "cpu_seconds_of_training": trained},
    }


def _embedders(run: Run, *, pooling: Pooling | None = "mean", raw: bool = True) -> Embedders:
    """The trained and the untrained encoder and, if wanted, raw input; without a pooling, features of all times."""
    module = run.model.cpu().eval()

    def make(encoder: Encoder) -> Callable[[Batch], Tensor]:
        return by_time(module, encoder) if pooling is None else pooler(module, encoder, pooling)

    found: Embedders = {"trained": make(module.evaluated_encoder), "untrained": make(run.untrained.cpu().eval())}
    floor = raw_input(module)
    if raw and pooling not in (None, "mean"):
        floor = raw_tokens(module, pooling)
    return {**found, "raw": floor} if raw and floor is not None else found


def raw_tokens(module: JEPA, pooling: Pooling) -> Callable[[Batch], Tensor]:
    """The tokens' raw values, averaged over their own last axis (time, in spectrograms), pooled as features are."""

    @torch.no_grad()
    def embed(batch: Batch) -> Tensor:
        tokens = module.tokenizer(batch)
        values = tokens.values
        if not isinstance(values, Tensor) or values.ndim < 4:
            raise ValueError(f"raw input has no pooling {pooling} without tokens on a grid of values: use mean")
        return pool_sample(values.float().mean(-1).flatten(2), tokens, how=pooling)

    return embed


def _encode(run: Run, embedders: Embedders, *, folds: bool) -> dict[str, Encoded]:
    """Features of up to 10,000 training samples and of the test split; of everything, for folds."""
    settings = run.config["data"]["init_args"].as_dict() | {"views": 1, "view_transform": None}
    if folds:
        settings |= {"val_fraction": 0.0, "drop_last": False}
    data = type(run.datamodule)(**{**settings, "probe_samples": LABELS})
    data.trainer = run.trainer  # which has the model, whose sizes the data takes
    return {
        name: Encoded(
            extract(embed, data.probe_dataloader()), None if folds else extract(embed, data.test_dataloader())
        )
        for name, embed in embedders.items()
    }


def _on_division(
    entry: Entry, root: Path, words: list[str], *, seed: int, data: Path, folder: Path
) -> tuple[Run, dict[str, Encoded]]:
    """Train on one random division of all samples, as `benchmarks.repeated_splits` does."""

    def choose(labels: np.ndarray, tests: int) -> Any:
        return repeated_splits(labels, repeats=seed + 1, test_share=tests / len(labels), seed=0)[seed]

    run, _ = train_on_split(
        entry.recipe, str(root), words, seed=seed, folder=folder, choose=choose,
        extra=str(data / entry.extra) if entry.extra else None,
    )  # fmt: skip
    encoded = {}
    for name, embed in _embedders(run).items():
        values = extract(embed, run.datamodule.test_dataloader()).values
        labels = torch.from_numpy(run.labels)
        train, test = (Features(values[rows], {"class": labels[rows]}) for rows in (run.split.train, run.split.test))
        encoded[name] = Encoded(train, test)
    return run, encoded


def combine(
    differences: Sequence[float],
    ends: Sequence[tuple[float, float]],
    *,
    ratio: float | None = None,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """Mean of paired differences of several runs, with the interval that this file's head describes.

    Args:
        differences: one a run.
        ends: the interval of each, from its own test samples.
        ratio: test samples by training samples, for runs on other divisions; None for runs of other seeds on the same.
        level: of confidence.
    """
    values = np.asarray(differences, dtype=np.float64)
    if ratio is not None:
        found = interval(values, test_over_train=ratio, level=level)
        return found.mean, found.low, found.high
    wide = float(norm.ppf(0.5 + level / 2))
    samples = float(np.mean([((high - low) / 2 / wide) ** 2 for low, high in ends]))
    seeds = float(values.var(ddof=1)) / len(values) if len(values) > 1 else 0.0
    mean = float(values.mean())
    if samples + seeds == 0:
        return mean, mean, mean
    freedom = (samples + seeds) ** 2 / (seeds**2 / (len(values) - 1)) if seeds else np.inf
    half = float(student.ppf(0.5 + level / 2, freedom)) * (samples + seeds) ** 0.5
    return mean, mean - half, mean + half


def summarise(entry: Entry, runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the table of one data set: means and spreads over runs."""
    rows = []
    for same in zip(*(run["rows"] for run in runs), strict=True):
        first = same[0]
        across = entry.kind in ("groups", "divisions")
        ratio = first["test"] / first["train"] if across and len(same) > 1 else None
        mean, low, high = combine(
            [row["difference"] for row in same], [(row["low"], row["high"]) for row in same], ratio=ratio
        )
        row = {"data": entry.title, "label": first["label"] + first["note"], "probe": first["probe"], "runs": len(same)}
        for name in ("trained", "untrained", "raw"):
            values = [one["scores"][name] for one in same if name in one["scores"]]
            if values:
                row[name] = float(np.mean(values))
                row[f"{name}_std"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
        verdict = "helps" if low > 0 else "hurts" if high < 0 else "inconclusive"
        rows.append({**row, "chance": first["chance"], "difference": mean, "low": low, "high": high, "words": verdict})
    return rows


_PROBES = {"knn": "kNN", "knn_cv": "kNN-CV", "logistic": "logistic", "svm": "SVM", "ridge": "ridge, R2"}


def cells(row: dict[str, Any], *, markdown: bool = False) -> list[str]:
    """A row as the table shows it."""

    def spread(name: str) -> str:
        if name not in row:
            return "-"
        std = row.get(f"{name}_std")
        return f"{row[name]:.3f}" + (f" ± {std:.3f}" if std else "")

    words = f"**{row['words']}**" if markdown and row["words"] != "inconclusive" else row["words"]
    probe = _PROBES[row["probe"]]
    difference = f"{row['difference']:+.3f} [{row['low']:.3f}, {row['high']:.3f}]"
    return [row["data"], row["label"], probe, *map(spread, ("trained", "untrained", "raw")), difference, words]


HEAD = ["data", "label", "probe", "trained", "untrained", "raw", "trained - untrained [95%]", "training"]


def main(args: list[str] | None = None) -> dict[str, Any]:
    """Train and evaluate what is missing, print the table."""
    parser = options(__doc__, "results")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the data sets")
    parser.add_argument("--sets", nargs="+", choices=list(ENTRIES), default=list(ENTRIES), metavar="SET")
    parser.add_argument("--seeds", type=int, nargs="+", help="numbers of the runs of each set (all of them)")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/results"))
    parser.add_argument("--markdown", action="store_true", help="print the table as the README has it")
    given = parser.parse_args(args)
    torch.set_num_threads(given.threads)
    load_plugins()
    rows: list[dict[str, Any]] = []
    seconds: dict[str, float] = {}
    for name in given.sets:
        entry, runs = ENTRIES[name], []
        for number in range(len(entry.runs)) if given.seeds is None else given.seeds:
            if number >= len(entry.runs):
                parser.error(f"--seeds: {name} has the runs 0 to {len(entry.runs) - 1}, got {number}")
            path = given.out / f"{name}_{number}.json"
            if not path.is_file():
                found = run_entry(entry, number, data=given.data, folder=given.out / f"{name}_{number}")
                path.write_text(json.dumps(found, indent=2) + "\n")
            runs.append(json.loads(path.read_text()))
        seconds[name] = sum(run["cpu_seconds"] for run in runs)
        rows += summarise(entry, runs)
    if given.markdown:
        for line in (HEAD, ["---"] * len(HEAD), *(cells(row, markdown=True) for row in rows)):
            print("| " + " | ".join(line) + " |")
    else:
        print(table(HEAD, [cells(row) for row in rows]))
    spent = ", ".join(f"{name} {used / 60:.1f}" for name, used in seconds.items())
    print(f"CPU minutes: {sum(seconds.values()) / 60:.1f} ({spent})")
    settings = {"sets": given.sets, "threads": given.threads, "cpu_seconds": seconds, **machine()}
    write_json(given.json, settings, {"rows": rows})
    return {"rows": rows, "cpu_seconds": seconds}


if __name__ == "__main__":
    main()
