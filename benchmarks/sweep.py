"""Chooses settings by successive halving: many short runs, then a third of them three times as long, and so on.

    python -m benchmarks.sweep --recipe recipes/pointjepa_bimnet10.yaml --space space.yaml --budget 60
    python -m benchmarks.sweep --recipe own_clouds.yaml --space space.yaml --budget 60 --settings 27 --jobs 8 \\
        --protocol repeated --data.root data/bimnet10

The space is a YAML file of lists. Under the name of a setting of `jepa-fit` are its values; under any other name,
without a dot, overlays: named groups of settings that change together.

    model.learning_rate.init_args.peak: [0.0005, 0.002]
    views:
      - {name: any axis}
      - {name: vertical, data.view_transform.init_args.rotation: z, data.view_transform.init_args.jitter: 0.02}

All combinations are tried, or `--settings` random ones of them. `--budget` is CPU minutes of training for all runs
together, the same for each round (Jamieson and Talwalkar 2016, arXiv:1502.07943, algorithm 1: successive halving, with
eta 3). A run trains from the start, for as many steps as fit into its minutes by the time of a step, over which the
schedules stretch; so a slower setting takes fewer steps.

The score is the mean gain of the probes over the same encoder before training, on held-out training samples
(`data.val_fraction`, or the data's own validation split); with `--protocol repeated`, over random divisions of all
training and validation samples, for sets so small that a held-out part decides nothing (their inputs, not their labels,
are then trained on). `--by trained` ranks by the trained encoder's own score: a gain also grows where the untrained
encoder is worse. The test split is never read: the best of many scores is too good, so measure anew there what was
chosen.

Each run is a line of `log.jsonl` in `--out`, and is not run again: a sweep that was interrupted is resumed by the same
command. A setting that fails is named, and is out. Runs keep no checkpoints (`--trainer.enable_checkpointing true`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import multiprocessing
import random
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any, TextIO

import numpy as np
import torch
import yaml
from torch.utils.data import ConcatDataset, Subset

from benchmarks.methods import LABELS, ClockedRun, train_for
from benchmarks.repeated_splits import Unlabelled, pooler
from benchmarks.report import at_least, machine, options, table, write_json
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.evaluation import extract
from jepa_lightning.evaluation.evaluate_features import Encoded, Protocol, evaluate_features

ETA = 3
"""Of the runs of a round, one in so many is trained again, so many times as long."""


_WRONG_WORDS = 2  # exit code of the command's parser


@dataclass(frozen=True)
class Setting:
    """One point of the space.

    Attributes:
        chosen: what stands for it in the table, by the axis of the space.
        words: of `jepa-fit`, by the name of the setting.
    """

    chosen: dict[str, Any]
    words: dict[str, Any]

    @property
    def arguments(self) -> list[str]:
        """Return the words of the command, values as JSON."""
        values = ((k, v if isinstance(v, str) else json.dumps(v)) for k, v in self.words.items())
        return [word for name, value in values for word in (f"--{name}", value)]


def read_space(path: Path) -> dict[str, list[Setting]]:
    """Read the axes of a space: for each, its values or overlays.

    Raises:
        ValueError: the file holds something else.
    """
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"expected a YAML file of lists, could not read {path}: {error}") from error
    if not isinstance(found, dict) or not found:
        raise ValueError(f"expected names with lists of values in {path}, got {found!r}")
    return {str(axis): [_choice(str(axis), value) for value in _list(axis, values)] for axis, values in found.items()}


def _list(axis: Any, values: Any) -> list[Any]:
    if not isinstance(values, list) or not values:
        raise ValueError(f"expected a list of at least one value for {axis!r}, got {values!r}: write [{values}]")
    return values


def _choice(axis: str, value: Any) -> Setting:
    if "." in axis:
        return Setting({axis: value}, {axis: value})
    if not isinstance(value, dict) or "name" not in value:
        raise ValueError(
            f"expected overlays with a name for {axis!r}, as {{name: small, model.modality.init_args.groups: 16}}, got "
            f"{value!r}: the values of one setting stand under its full name, such as trainer.precision"
        )
    words = {name: inner for name, inner in value.items() if name != "name"}
    for name in words:
        if "." not in name:
            raise ValueError(f"expected full names of settings, such as data.root, in {axis!r}, got {name!r}")
    return Setting({axis: value["name"]}, words)


def draw_settings(space: Mapping[str, Sequence[Setting]], count: int | None, *, seed: int) -> list[Setting]:
    """Combine one choice of each axis: all combinations, or `count` different ones of them at random."""
    total = int(np.prod([len(choices) for choices in space.values()], dtype=object))
    numbers: Iterable[int] = range(total)
    if count is not None and count < total:
        numbers = sorted(random.Random(seed).sample(range(total), count))
    return [_combined(space, number) for number in numbers]


def _combined(space: Mapping[str, Sequence[Setting]], number: int) -> Setting:
    """The combination of this number, the last axis changing fastest."""
    parts: list[Setting] = []
    for choices in reversed(list(space.values())):
        number, place = divmod(number, len(choices))
        parts.insert(0, choices[place])
    chosen = {axis: value for part in parts for axis, value in part.chosen.items()}
    return Setting(chosen, {name: value for part in parts for name, value in part.words.items()})


def rounds(settings: int, budget: float, *, most: int | None = None) -> list[tuple[int, float]]:
    """Plan successive halving: for each round the number of runs, and the minutes of each.

    Args:
        settings: runs of the first round.
        budget: minutes of all runs together.
        most: rounds, at most; None: until one setting is left.

    Examples:
        >>> from benchmarks.sweep import rounds
        >>> rounds(9, 27)
        [(9, 1.0), (3, 3.0), (1, 9.0)]
    """
    counts = [settings]
    while counts[-1] > 1 and (most is None or len(counts) < most):
        counts.append(max(counts[-1] // ETA, 1))
    return [(count, budget / len(counts) / count) for count in counts]


@dataclass(frozen=True)
class Scoring:
    """How a run is scored.

    Attributes:
        protocol: "split": on the held-out part; "repeated": random divisions of training and held-out samples.
        part: held-out part of "split": "val", or "test" where nothing is chosen any more.
        probes: of `evaluate_features`.
        pooling: of an encoder's tokens.
        labels: label columns; None: all.
        repeats: number of divisions.
        label_share: share of the training labels that probes are fitted on.
    """

    protocol: str = "split"
    part: str = "val"
    probes: tuple[str, ...] = ("knn", "logistic")
    pooling: str = "mean"
    labels: tuple[str, ...] | None = None
    repeats: int = 20
    label_share: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run: what `measure` is told, in whatever process.

    Attributes:
        recipe: a shipped configuration, or a file.
        setting: what is changed in it.
        words: further ones of `jepa-fit`.
        seed: of the run and its scoring.
        minutes: of CPU time of training.
        folder: of the run.
        scoring: how it is scored.
        extra: another root, whose inputs are trained on without labels.
        samples: training samples, at most; probes are fitted on all.
        step: CPU seconds of a step, where they are known.
        threads: of torch.
        name: what else its line of the log holds.
    """

    recipe: str
    setting: Setting
    words: list[str]
    seed: int
    minutes: float
    folder: Path
    scoring: Scoring
    extra: str | None = None
    samples: int | None = None
    step: float | None = None
    threads: int = 1
    name: dict[str, Any] = field(default_factory=dict)


class InputsRun(ClockedRun):
    """A run on other inputs: those of another root too (`extra`), or `samples` of its own, drawn by its seed."""

    extra: str | None = None
    samples: int | None = None

    def before_fit(self) -> None:
        """Exchange the training part; what is held out stays.

        Raises:
            ValueError: there are not so many training samples.
        """
        super().before_fit()
        if self.extra is None and self.samples is None:
            return
        own = self.data()
        train = own.part("train")
        if self.samples is not None:
            if not 1 <= self.samples <= len(train):
                raise ValueError(f"expected 1 to {len(train)} training samples, got {self.samples}")
            order = np.random.default_rng(self.config["seed_everything"]).permutation(len(train))
            train.indices = np.sort(train.indices[order[: self.samples]])
        self.datamodule = own
        if self.extra is None:
            return
        parts = {name: Subset(own.part(name).dataset, own.part(name).indices.tolist()) for name in own.splits}
        more = Unlabelled(self.data(root=self.extra).load()["train"])
        sets: dict[str, Any] = {**parts, "train": ConcatDataset([parts["train"], more])}
        self.datamodule = self.data()
        self.datamodule.load = lambda: sets  # not as a `dataset`, which would be wrapped once more

    def data(self, **changed: Any) -> Any:
        """Make the data once more, with other settings."""
        self.trainer.strategy.connect(self.model)  # the data take their sizes from the model
        data = type(self.datamodule)(**{**self.data_settings, **changed})
        data.trainer = self.trainer
        return data


def score(run: InputsRun, scoring: Scoring, *, seed: int) -> dict[str, dict[str, float]]:
    """Probe the trained and the untrained encoder on training samples: by probe, both, and the gain with its interval.

    Raises:
        ValueError: nothing is held out, or there are no labels.
    """
    module = run.model.cpu().eval()
    data = run.data(probe_samples=LABELS, views=1, view_transform=None)
    known, held_out = (
        data.probe_dataloader(),
        data.val_dataloader() if scoring.part == "val" else data.test_dataloader(),
    )
    if known is None:
        raise ValueError("expected labels of the training samples, got none: runs are scored by probes")
    if not held_out and scoring.protocol == "split":
        raise ValueError("expected held-out samples, got none: set --data.val_fraction 0.2, or --protocol repeated")
    encoded = {}
    for name, part in (("trained", module.evaluated_encoder), ("untrained", run.untrained.cpu().eval())):
        embed = pooler(module, part, scoring.pooling)  # type: ignore[arg-type]
        encoded[name] = Encoded(extract(embed, known), extract(embed, held_out) if held_out else None)
    share = () if scoring.label_share == 1 else (scoring.label_share,)
    kind: dict[str, Any] = {"kind": scoring.protocol, "repeats": scoring.repeats, "label_shares": share}
    report = evaluate_features(
        encoded, protocol=Protocol(**kind, seed=seed), probes=scoring.probes, labels=scoring.labels  # type: ignore[arg-type]
    )  # fmt: skip
    found: dict[str, dict[str, float]] = {}
    for probe in scoring.probes:
        scores = [s for s in report.scores if (s.probe, s.share) == (probe, scoring.label_share)]
        gains = [d for d in report.differences if (d.probe, d.share) == (probe, scoring.label_share)]
        if gains:
            row = {name: mean(s.estimate.mean for s in scores if s.encoder == name) for name in encoded}
            ends = {end: mean(getattr(d.estimate, end) for d in gains) for end in ("low", "high")}
            found[probe] = {**row, "gain": mean(d.estimate.mean for d in gains), **ends}
    return found


@contextmanager
def written_to(output: TextIO) -> Iterator[None]:
    """Write to a file what is printed and logged."""
    loggers = [logging.getLogger(name) for name in (None, "lightning", "lightning.pytorch", "lightning.fabric")]
    handlers = [h for logger in loggers for h in logger.handlers if type(h) is logging.StreamHandler]
    before = [handler.setStream(output) for handler in handlers]
    try:
        with redirect_stdout(output), redirect_stderr(output):
            yield
    finally:
        for handler, stream in zip(handlers, before, strict=True):
            handler.setStream(stream or sys.stderr)


def measure(job: Job) -> dict[str, Any]:
    """Train and score one run: its line of the log. An error is a line as well."""
    torch.set_num_threads(job.threads)
    line = {**job.name, "chosen": job.setting.chosen, "words": job.setting.words}
    job.folder.mkdir(parents=True, exist_ok=True)
    with (job.folder / "output.txt").open("w") as output, written_to(output):
        try:
            load_plugins()
            run = train_for(
                job.recipe,
                job.folder,
                seed=job.seed,
                minutes=job.minutes,
                words=["--trainer.enable_checkpointing", "false", *job.words, *job.setting.arguments],
                step=job.step,
                kind=type("RunOfJob", (InputsRun,), {"extra": job.extra, "samples": job.samples}),
            )
            scores = score(run, job.scoring, seed=job.seed)  # type: ignore[arg-type]
        except (Exception, SystemExit) as error:  # a mistake of one setting does not end the others
            if isinstance(error, SystemExit) and error.code != _WRONG_WORDS:
                raise  # the sweep itself is to end, as by Ctrl-C
            traceback.print_exc()
            why = " ".join(str(error).split())[:300] or type(error).__name__
            return {**line, "error": f"{why} (see {job.folder / 'output.txt'})"}
    figures = {
        "steps": len(run.clock.ends),
        "seconds": run.clock.seconds,
        "step_seconds": run.clock.seconds / len(run.clock.ends),
    }
    return {**line, **figures, "scores": scores}


def rank(line: Mapping[str, Any], by: str) -> float:
    """Return what runs are ordered by: the mean over probes of the gain, or of the trained encoder's score."""
    return mean(found[by] for found in line["scores"].values())


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a log; one that was cut off is not there."""
    lines = []
    for text in path.read_text().splitlines() if path.is_file() else ():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def run_all(jobs: Sequence[Job], beside: int) -> Iterator[dict[str, Any]]:
    """Measure all, so many beside each other, and give each line as it is known."""
    if beside == 1 or len(jobs) == 1:
        yield from map(measure, jobs)
        return
    with ProcessPoolExecutor(min(beside, len(jobs)), mp_context=multiprocessing.get_context("spawn")) as pool:
        for done in as_completed([pool.submit(measure, job) for job in jobs]):
            yield done.result()


def sweep(given: argparse.Namespace, words: list[str]) -> list[dict[str, Any]]:
    """Run all rounds, except for what the log has: its lines, those of the last round first, the best first.

    Raises:
        ValueError: the space cannot be used, or all runs of a round failed.
    """
    settings = draw_settings(read_space(given.space), given.settings, seed=given.seed)
    scoring = Scoring(
        protocol=given.protocol,
        probes=tuple(given.probes),
        pooling=given.pooling,
        labels=given.labels and tuple(given.labels),
        repeats=given.repeats,
        label_share=given.label_share,
    )
    plan, log = rounds(len(settings), given.budget, most=given.rounds), given.out / "log.jsonl"
    given.out.mkdir(parents=True, exist_ok=True)
    steps: dict[str, float] = {}
    found: list[dict[str, Any]] = []
    for number, (count, minutes) in enumerate(plan):
        print(f"round {number + 1} of {len(plan)}: {count} runs of {minutes:.2f} CPU minutes", flush=True)
        same = {"recipe": given.recipe, "arguments": words, "extra": given.extra, "seed": given.seed}
        same |= {"round": number, "minutes": round(minutes, 6), "scoring": json.loads(json.dumps(vars(scoring)))}
        known = {
            json.dumps(line["words"]): line
            for line in read_log(log)
            if "error" not in line and all(line.get(name) == value for name, value in same.items())
        }
        lines = [known[json.dumps(s.words)] for s in settings if json.dumps(s.words) in known]
        jobs = [
            Job(
                recipe=given.recipe, setting=s, words=words, seed=given.seed, minutes=minutes, scoring=scoring,
                folder=given.out / f"round{number}_{_place(given.out, s)}", extra=given.extra,
                step=steps.get(json.dumps(s.words)), threads=given.threads, name=same,
            )
            for s in settings if json.dumps(s.words) not in known
        ]  # fmt: skip
        for line in run_all(jobs, given.jobs):
            with log.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(f"  {_named(line)}: {line['error'] if 'error' in line else _scored(line)}", flush=True)
            lines += [line] if "error" not in line else []
        if not lines:
            raise ValueError(f"all {count} runs of round {number + 1} failed; their errors stand above and in {log}")
        lines.sort(key=partial(rank, by=given.by), reverse=True)
        found = [*lines, *found]
        kept = [json.dumps(line["words"]) for line in lines[: plan[number + 1][0] if number + 1 < len(plan) else None]]
        steps |= {json.dumps(line["words"]): line["step_seconds"] for line in lines}
        settings = [s for s in settings if json.dumps(s.words) in kept]
    return found


def _place(out: Path, setting: Setting) -> str:
    """Number a setting in its folder: the same for the same words."""
    path = out / "settings.json"
    known = json.loads(path.read_text()) if path.is_file() else []
    if setting.words not in known:
        known.append(setting.words)
        path.write_text(json.dumps(known, indent=2) + "\n")
    return f"{known.index(setting.words):03d}"


def _named(line: Mapping[str, Any]) -> str:
    return ", ".join(f"{axis.rsplit('.', 1)[-1]} {value}" for axis, value in line["chosen"].items())


def _scored(line: Mapping[str, Any]) -> str:
    each = (f"{name} {found['trained']:.3f} ({found['gain']:+.3f})" for name, found in line["scores"].items())
    return f"{line['steps']} steps, {', '.join(each)}"


def rows(lines: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Make the table's head and its rows: a setting where it came last."""
    seen: dict[str, Mapping[str, Any]] = {}
    for line in lines:
        seen.setdefault(json.dumps(line["words"]), line)
    axes = list(dict.fromkeys(axis for line in lines for axis in line["chosen"]))
    probes = list(dict.fromkeys(probe for line in lines for probe in line["scores"]))
    head = ["round", *(axis.rsplit(".", 1)[-1] for axis in axes), "steps", "seconds"]
    head += [column for probe in probes for column in (probe, "untrained", "gain [95%]")]
    table_rows = []
    for line in seen.values():
        cells = [str(line["round"] + 1), *(str(line["chosen"].get(axis, "")) for axis in axes)]
        cells += [str(line["steps"]), f"{line['seconds']:.0f}"]
        for found in (line["scores"][probe] for probe in probes):
            cells += [f"{found['trained']:.3f}", f"{found['untrained']:.3f}"]
            cells.append(f"{found['gain']:+.3f} [{found['low']:.3f}, {found['high']:.3f}]")
        table_rows.append(cells)
    return head, table_rows


def main(args: list[str] | None = None) -> list[dict[str, Any]]:
    """Run what is missing, print the table."""
    parser = options(__doc__, "sweep")
    parser.add_argument("--recipe", required=True, help="a shipped configuration, or a file")
    parser.add_argument("--space", type=Path, required=True, help="YAML file of the values to try")
    parser.add_argument("--budget", type=float, required=True, metavar="MINUTES", help="CPU minutes of all training")
    parser.add_argument("--settings", type=int, help="how many combinations are tried, at random (all)")
    parser.add_argument("--rounds", type=int, help="at most (until one setting is left)")
    parser.add_argument("--jobs", type=int, default=1, help="runs beside each other")
    parser.add_argument("--seed", type=int, default=0, help="of runs, divisions and the random combinations")
    parser.add_argument("--protocol", choices=["split", "repeated"], default="split")
    parser.add_argument("--repeats", type=int, default=20, help="divisions of --protocol repeated")
    parser.add_argument(
        "--probes", nargs="+", choices=["knn", "knn_cv", "logistic", "svm", "ridge"], default=["knn", "logistic"]
    )
    parser.add_argument("--pooling", choices=["mean", "max", "mean+max", "quarters", "segments"], default="mean")
    parser.add_argument("--labels", nargs="+", help="label columns to predict (all)")
    parser.add_argument("--label-share", type=float, default=1.0, help="share of the labels that probes are fitted on")
    parser.add_argument("--by", choices=["gain", "trained"], default="gain", help="what runs are ranked by")
    parser.add_argument("--extra", help="another data.root, whose inputs are trained on without labels")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/sweep"))
    given, words = parser.parse_known_args(args)
    at_least(parser, given, settings=1, rounds=1, jobs=1, repeats=2, threads=1)
    if given.budget <= 0 or not 0 < given.label_share <= 1:
        parser.error("--budget must be above 0, --label-share above 0 and at most 1")
    torch.set_num_threads(given.threads)
    try:
        lines = sweep(given, words)
    except ValueError as error:
        parser.error(str(error))
    print(table(*rows(lines)))
    best = lines[0]
    print("best: " + " ".join(itertools.chain(words, Setting(best["chosen"], best["words"]).arguments)))
    write_json(given.json, {**vars(given), "arguments": words, **machine()}, {"runs": lines})
    return lines


if __name__ == "__main__":
    main(sys.argv[1:])
