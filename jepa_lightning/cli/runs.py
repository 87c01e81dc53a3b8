"""The runs that a command line names, beside their untrained twins."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from jepa_lightning.cli.options import choose_device
from jepa_lightning.evaluation.report.metrics import read_metrics
from jepa_lightning.evaluation.report.results import RAW, UNTRAINED
from jepa_lightning.loading import Frozen, load
from jepa_lightning.run.checkpoints import find_checkpoint

TRAINED = "trained"


@dataclass(frozen=True)
class Run:
    """A checkpoint: its name in the table, its file, the folder of its run if it is known, and its encoder."""

    name: str
    file: Path
    folder: Path | None
    encoder: Frozen


def load_runs(given: argparse.Namespace) -> list[Run]:
    """The encoders of `--checkpoint`.

    Raises:
        ValueError: one cannot be loaded, or they are of several modalities.
    """
    files = [find_checkpoint(path, given.which) for path in given.checkpoint]
    folders = []
    for path, file in zip(given.checkpoint, files, strict=True):
        known = Path(path).expanduser()
        inside = file.parent.parent if file.parent.name == "checkpoints" else None
        folders.append(known if known.is_dir() and known != file else inside)  # a checkpoint in shards is a folder
    runs: list[Run] = []
    for name, file, folder in zip(_names(files, folders), files, folders, strict=True):
        encoder = load(file, encoder=given.encoder, trust=given.trust, map_location=choose_device(given))
        if runs and encoder.modality.name != runs[0].encoder.modality.name:
            kinds = f"{runs[0].encoder.modality.name} ({runs[0].name}) and {encoder.modality.name} ({name})"
            raise ValueError(f"expected checkpoints of one modality, got {kinds}: probe them apart")
        runs.append(Run(name, file, folder, encoder))
    return runs


def _names(files: Sequence[Path], folders: Sequence[Path | None]) -> list[str]:
    """Names of the checkpoints: "trained" for one, else that of the run's folder, each different."""
    if len(files) == 1:
        return [TRAINED]
    names: list[str] = []
    for file, folder in zip(files, folders, strict=True):
        name = file.stem if folder is None else folder.resolve().name
        name = f"run {name}" if name.startswith((UNTRAINED, RAW)) else name
        number, free = 2, name
        while free in names:
            number, free = number + 1, f"{name} {number}"
        names.append(free)
    return names


def untrained_twins(runs: Sequence[Run], notes: list[str]) -> tuple[dict[str, str], dict[str, Frozen]]:
    """Each run's encoder before training; a note is added of those that cannot be built.

    Returns:
        The name of each run's twin, and the twins by name; runs that began alike share one.
    """
    names: dict[str, str] = {}
    twins: dict[str, Frozen] = {}
    for run in runs:
        try:
            twin = run.encoder.untrained()
        except (ValueError, OSError) as error:
            notes.append(f"{UNTRAINED}: not beside {run.name!r}: {error}")
            continue
        same = [name for name, other in twins.items() if _alike(twin, other)]
        names[run.name] = same[0] if same else (UNTRAINED if len(runs) == 1 else f"{UNTRAINED} {run.name}")
        twins.setdefault(names[run.name], twin)
    return names, twins


def _alike(one: Frozen, other: Frozen) -> bool:
    """Whether two encoders of jepa-fit compute the same."""
    if _shape(one) != _shape(other):
        return False
    state, others = one.state_dict(), other.state_dict()
    return state.keys() == others.keys() and all(torch.equal(value, others[key]) for key, value in state.items())


def _shape(encoder: Frozen) -> str:
    """What a configuration says of the tokenizer and the encoder."""
    modality = (encoder.config or {})["model"]["modality"]
    settings = {key: value for key, value in (modality.get("init_args") or {}).items() if key != "masker"}
    return json.dumps([modality.get("class_path"), settings], sort_keys=True, default=str)


def find_curves(runs: Sequence[Run], notes: list[str]) -> dict[str, Path]:
    """The metrics.csv of each run that has one; of those that cannot be drawn, a note is added."""
    found: dict[str, Path] = {}
    for run in runs:
        path = None if run.folder is None else run.folder / "metrics.csv"
        if path is not None and path.is_file():
            try:
                read_metrics(path)
            except ValueError as error:
                notes.append(f"no curves of {run.name!r}: {error}")
            else:
                found[run.name] = path
    return found
