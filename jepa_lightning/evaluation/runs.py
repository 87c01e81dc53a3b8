"""Load the runs to evaluate and their random-init (untrained) encoders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from jepa_lightning.encoders.pooling import Pooling
from jepa_lightning.evaluation.report.metrics import read_metrics
from jepa_lightning.evaluation.report.results import RAW, UNTRAINED
from jepa_lightning.loading import Frozen, WhichEncoder, load
from jepa_lightning.multimodal.modality import Multimodal
from jepa_lightning.run.checkpoints import Which, find_checkpoint

TRAINED = "trained"


@dataclass(frozen=True)
class EncoderSettings:
    """How to load and use the encoder of a run.

    Attributes:
        which: checkpoint of a run's folder, "last" or "best".
        encoder: "target", "context", or None for the run's evaluated encoder.
        pooling: how a sample's tokens are pooled.
        layers: number of last layers to concatenate.
        device: "auto" (a GPU if available) or a torch device.
        trust: packages whose classes the run may name.
    """

    which: Which = "last"
    encoder: WhichEncoder | None = None
    pooling: Pooling = "mean"
    layers: int = 1
    device: str = "auto"
    trust: Sequence[str] = ()

    @property
    def chosen_device(self) -> str:
        """Return the device selected by `device`.

        Raises:
            ValueError: an unknown device, or no GPU.
        """
        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        try:
            kind = torch.device(self.device).type
        except RuntimeError:
            raise ValueError(f"expected the device auto, cpu, cuda or cuda:NUMBER, got {self.device!r}") from None
        if kind == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"expected a GPU for the device {self.device}, found none: leave it out, or use cpu")
        return self.device

    def load(self, checkpoint: str | Path) -> Frozen:
        """Load the encoder of a checkpoint on that device.

        Raises:
            ValueError: as `jepa_lightning.load`.
        """
        device = self.chosen_device
        return load(checkpoint, encoder=self.encoder, which=self.which, trust=self.trust, map_location=device)


@dataclass(frozen=True)
class Run:
    """A checkpoint: its name in the table, its file, the folder of its run if it is known, and its encoder."""

    name: str
    file: Path
    folder: Path | None
    encoder: Frozen


def report_folder(checkpoints: Sequence[str | Path], out: str | Path | None, *, which: Which = "last") -> Path:
    """Where a report goes: `out`, or else `probe` in the folder of the only run.

    Raises:
        ValueError: there is no such folder, or `out` is a file.
    """
    if not checkpoints:
        raise ValueError("expected the folder of a run, or several, got none")
    if out is not None:
        folder = Path(out).expanduser()
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"expected a folder for out, got the file {folder}")
        return folder
    first = Path(checkpoints[0]).expanduser()
    found = find_checkpoint(first, which)  # which says if it does not exist at all
    if len(checkpoints) > 1 or found == first:
        what = "several checkpoints" if len(checkpoints) > 1 else "a checkpoint that is no run's folder"
        raise ValueError(f"expected out, a folder, with {what}: their report has no place of its own")
    return first / "probe"


def load_runs(checkpoints: Sequence[str | Path], settings: EncoderSettings) -> list[Run]:
    """Load the encoders of checkpoints, or of the folders of runs.

    Raises:
        ValueError: one cannot be loaded, or they are of several modalities.
    """
    files = [find_checkpoint(path, settings.which) for path in checkpoints]
    folders = []
    for path, file in zip(checkpoints, files, strict=True):
        known = Path(path).expanduser()
        inside = file.parent.parent if file.parent.name == "checkpoints" else None
        folders.append(known if known.is_dir() and known != file else inside)  # a checkpoint in shards is a folder
    runs: list[Run] = []
    for name, file, folder in zip(_names(files, folders), files, folders, strict=True):
        encoder = settings.load(file)
        if runs and encoder.modality.name != runs[0].encoder.modality.name:
            kinds = f"{runs[0].encoder.modality.name} ({runs[0].name}) and {encoder.modality.name} ({name})"
            raise ValueError(f"expected checkpoints of one modality, got {kinds}: evaluate them separately")
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


def is_multimodal(encoder: Frozen) -> bool:
    """Return whether a run is one of several modalities, which retrieval evaluates without labels."""
    return isinstance(encoder.modality, Multimodal)


def untrained_twins(runs: Sequence[Run], notes: list[str]) -> tuple[dict[str, str], dict[str, Frozen]]:
    """Build each run's encoder before training; add a note for those that cannot be built.

    Returns:
        The name of each run's untrained encoder, and these encoders by name; runs with equal initial weights share one.
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
    """Return whether two encoders of jepa-fit compute the same."""
    if _shape(one) != _shape(other):
        return False
    state, others = one.state_dict(), other.state_dict()
    return state.keys() == others.keys() and all(torch.equal(value, others[key]) for key, value in state.items())


def _shape(encoder: Frozen) -> str:
    """Return a configuration's settings of the tokenizer and the encoder."""
    modality = (encoder.config or {})["model"]["modality"]
    settings = {key: value for key, value in (modality.get("init_args") or {}).items() if key != "masker"}
    return json.dumps([modality.get("class_path"), settings], sort_keys=True, default=str)


def find_curves(runs: Sequence[Run], notes: list[str]) -> dict[str, Path]:
    """Return the metrics.csv of each run that has one; add a note for those that cannot be plotted."""
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


def file_hash(path: Path) -> str:
    """Compute the SHA-256 of a file; for a sharded checkpoint (a folder), of its files' names and hashes."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
        return hashlib.sha256("".join(f"{file.name} {file_hash(file)}\n" for file in files).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
