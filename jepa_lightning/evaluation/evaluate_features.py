"""Evaluate features of several encoders with probes, under one protocol."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from torch import Tensor

from jepa_lightning.evaluation.collapse import MIN_RANK, MIN_STD, collapse
from jepa_lightning.evaluation.features.encoded import Encoded, parts, project
from jepa_lightning.evaluation.features.pooled import Features
from jepa_lightning.evaluation.features.token_store import TokenFeatures
from jepa_lightning.evaluation.probes.probing import CLASSIFIERS, DESCRIPTIONS, OF_TOKENS, Probe
from jepa_lightning.evaluation.probes.scoring import Scoring
from jepa_lightning.evaluation.probes.tasks import Protocol, Task, find_tasks, make_splits
from jepa_lightning.evaluation.report.report import Report
from jepa_lightning.evaluation.report.results import RAW, UNTRAINED, Confusion, Difference, Score
from jepa_lightning.scale.threads import one_thread_if_small

__all__ = ["Encoded", "Protocol", "Report", "evaluate_features"]

_PACKAGES = ("jepa-lightning", "torch", "lightning", "scikit-learn", "scipy", "numpy")


def evaluate_features(
    encoders: Mapping[str, Encoded],
    *,
    protocol: Protocol | None = None,
    probes: Sequence[Probe] = ("knn", "knn_cv", "logistic", "ridge"),
    labels: Sequence[str] | None = None,
    class_names: Mapping[str, Sequence[str]] | None = None,
    pairs: Sequence[tuple[str, str]] | None = None,
    k: int = 20,
    device: str = "cpu",
    settings: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] | None = None,
    labels_needed: bool = True,
) -> Report:
    """Probe the features of all encoders with the same splits, and compare them.

    Args:
        encoders: features by name, in the order of the table: trained ones under any name, "untrained", "raw". All
            must hold the same samples in the same order.
        protocol: how to split the samples; None: the data's own train and test part.
        probes: "knn", "knn_cv", "logistic" and "svm" predict class labels, "ridge" continuous ones, "attentive" both,
            for encoders that have tokens, "dense" maps of pixels of either kind, from single tokens on a grid.
        labels: label columns to predict; None: all usable ones; the report's notes name the others.
        class_names: names of the classes 0, 1, ... of each label.
        pairs: pairs of names to compare, the first minus the second; None: every trained encoder minus "untrained"
            and minus "raw", if present. Names that start with "untrained" or "raw" are not trained.
        k: number of neighbours of "knn".
        device: device for attentive and dense probes.
        settings: further settings for the report, such as checkpoints, pooling and data.
        progress: called with one line about the next probe.
        labels_needed: whether data without labels are an error; else their report has no probes.

    Raises:
        ValueError: encoders with different samples, a label that cannot be predicted, or too few samples.
    """
    protocol = protocol or Protocol()
    first = _check(encoders, protocol, probes)
    pairs = _pairs(encoders, pairs)
    everything = {name: encoded.values.float() for name, encoded in encoders.items()}
    columns = first.labels
    groups = None
    if protocol.group is not None:
        groups = Features(first.values, columns).class_label(protocol.group)
    tokens = _tokens(encoders, probes)
    tasks: list[Task] = []
    notes = ["the data have no labels, so there are no probes"]
    if columns or labels_needed:
        tasks, notes = find_tasks(
            columns, asked=labels, names=class_names, group=protocol.group, maps="dense" in probes
        )
    if tokens:
        needing = " or ".join(probe for probe in probes if probe in OF_TOKENS)
        notes += [f"{name}: no {needing} probe, since it has no tokens" for name in encoders if name not in tokens]
    scores: list[Score] = []
    differences: list[Difference] = []
    confusions: list[Confusion] = []
    for task in tasks:
        fitting = [probe for probe in probes if _fits(probe, task)]
        if not fitting:
            kind, wanted = ("classes", "knn, logistic, svm") if task.classes else ("continuous", "ridge")
            wanted += " or attentive"
            notes.append(f"label {task.name!r}: not evaluated, since it is {kind} and no probe is {wanted}")
            continue
        try:
            splits = make_splits(task, protocol, train=len(first.train.values), groups=groups)
        except ValueError as error:
            if labels is not None:
                raise ValueError(f"label {task.name!r}: {error}") from error
            notes.append(f"label {task.name!r}: {error} (skipped)")
            continue
        scoring = Scoring(task, protocol, splits, everything, pairs, k, tokens=tokens, device=device)
        try:
            with one_thread_if_small(max(values.numel() for values in [*everything.values(), *_values(tokens)])):
                for probe in fitting:
                    if progress:
                        progress(f"{task.name}: {probe}")
                    scoring.run(probe, confuse=probe == min(fitting, key=_rank))
                if protocol.shots and task.classes:
                    notes += scoring.episodes(strict=labels is not None)
        except ValueError as error:
            raise ValueError(f"label {task.name!r}: {error}") from error
        scores, differences = scores + scoring.scores, differences + scoring.differences
        confusions += scoring.confusions
    if not scores and labels_needed:
        raise ValueError("; ".join(notes))
    looked_at = {name: parts(encoded, own_split=protocol.kind == "split") for name, encoded in encoders.items()}
    return Report(
        scores=scores,
        differences=differences,
        collapses={
            name: collapse(looked_at[name][0], encoded.views, viewed=encoded.viewed)
            for name, encoded in encoders.items()
        },
        confusions=confusions,
        embeddings=[project(name, *part) for name, part in looked_at.items()],
        tasks=tasks,
        notes=notes,
        settings={**_settings(protocol, probes, k, encoders), **(settings or {})},
    )


def _tokens(encoders: Mapping[str, Encoded], probes: Sequence[Probe]) -> dict[str, TokenFeatures]:
    """Return the tokens of the encoders that have them, if a probe needs them."""
    needing = [probe for probe in probes if probe in OF_TOKENS]
    if not needing:
        return {}
    found = {name: encoded.tokens for name, encoded in encoders.items() if encoded.tokens is not None}
    if not found:
        raise ValueError(f"expected token features of at least one encoder for the probe {needing[0]}, got none")
    for name, tokens in found.items():
        if len(tokens.values) != len(encoders[name].values):
            raise ValueError(
                f"expected tokens of all {len(encoders[name].values)} samples of {name!r}, got {len(tokens.values)}"
            )
    return found


def _fits(probe: Probe, task: Task) -> bool:
    """Whether a probe is for a task: maps are for "dense", which is for nothing else."""
    if task.maps or probe == "dense":
        return task.maps and probe == "dense"
    return probe == "attentive" or (probe != "ridge") == task.classes


def _values(tokens: Mapping[str, TokenFeatures]) -> list[Tensor]:
    return [found.values for found in tokens.values()]


def _rank(probe: Probe) -> int:
    return CLASSIFIERS.index(probe) if probe in CLASSIFIERS else len(CLASSIFIERS)


def _check(encoders: Mapping[str, Encoded], protocol: Protocol, probes: Sequence[str]) -> Encoded:
    """Check that all encoders hold the same samples, and return the first."""
    if not encoders:
        raise ValueError("expected features of at least one encoder, got none")
    unknown = [probe for probe in probes if probe not in DESCRIPTIONS]
    if unknown or not probes:
        raise ValueError(f"expected probes among {', '.join(DESCRIPTIONS)}, got {', '.join(unknown) or 'none'}")
    name, first = next(iter(encoders.items()))
    for other, encoded in encoders.items():
        if protocol.kind == "split" and encoded.test is None:
            raise ValueError(
                f"encoder {other!r}: the protocol split needs features of a test part; without one use folds, repeated "
                "or groups"
            )
        sizes = [len(encoded.train.values), len(encoded.values)]
        expected = [len(first.train.values), len(first.values)]
        if sizes != expected or set(encoded.labels) != set(first.labels) or not all(
            np.array_equal(value.numpy(), first.labels[label].numpy(), equal_nan=value.is_floating_point())
            for label, value in encoded.labels.items()
        ):  # fmt: skip
            raise ValueError(f"expected the same samples and labels for all encoders, but {other!r} and {name!r} "
                             "differ")  # fmt: skip
    return first


def _pairs(encoders: Mapping[str, Encoded], pairs: Sequence[tuple[str, str]] | None) -> list[tuple[str, str]]:
    if pairs is None:
        trained = [name for name in encoders if not name.startswith((UNTRAINED, RAW))]
        return [(name, other) for name in trained for other in (UNTRAINED, RAW) if other in encoders]
    for name in (name for pair in pairs for name in pair):
        if name not in encoders:
            raise ValueError(f"no encoder {name!r} to compare: there are {list(encoders)}")
    return list(pairs)


def _settings(protocol: Protocol, probes: Sequence[Probe], k: int, encoders: Mapping[str, Encoded]) -> dict[str, Any]:
    return {
        "protocol": str(protocol),
        "probes": {probe: DESCRIPTIONS[probe] for probe in probes} | ({"k": k} if "knn" in probes else {}),
        "division": asdict(protocol),
        "collapsed_below": {"effective_rank": MIN_RANK, "relative_std": MIN_STD},
        "samples": {
            name: {"train": len(e.train.values), "test": 0 if e.test is None else len(e.test.values)}
            | {"width": e.train.values.shape[1]}
            | ({} if e.tokens is None else {"tokens": e.tokens.values.shape[1]})
            for name, e in encoders.items()
        },
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
