"""Features of whole splits on the way to a file, in parts, so that a killed run loses little."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from jepa_lightning.config.rebuild import strings
from jepa_lightning.data import JEPADataModule, Samples
from jepa_lightning.data.files.file_list import FileList
from jepa_lightning.encoders.last_layers import check_count
from jepa_lightning.encoders.pooling import Pooling
from jepa_lightning.evaluation.features.extraction import Splits
from jepa_lightning.evaluation.features.files import Parts, check_format
from jepa_lightning.loading import Frozen
from jepa_lightning.multimodal.modality import Multimodal

_FILES = 1000  # right in a folder, whose sizes are looked at
PART = 4096  # samples in a part, about: what is lost when a run is killed


def write_features(
    encoder: Frozen,
    data: JEPADataModule,
    out: Path,
    *,
    split: str = "all",
    pooling: Pooling = "mean",
    layers: int = 1,
    part: int = PART,
    identity: Mapping[str, Any] | None = None,
) -> dict[str, tuple[int, ...]]:
    """Write the features of all readable samples, in order, with the evaluation transform, to `out`.

    Unreadable samples have no row; they are logged by name. Several clips of one video are one row, their mean. It
    works in parts (`OUT.parts`): killed and called again with the same arguments, it resumes after the last part.

    Args:
        encoder: what computes them.
        data: bound to the encoder's modality.
        out: .npz, .safetensors or .parquet, see `jepa_lightning.evaluation.features.files`.
        split: "train", "val", "test" or "all".
        pooling: of the tokens.
        layers: the last layers whose features lie side by side, see `Frozen.embed`.
        part: samples in a part, about.
        identity: what else tells this run from others that write the same file.

    Returns:
        The shapes of the columns written.

    Raises:
        ValueError: `out` cannot be written, or its parts are another run's; too many samples cannot be read; there is
            no such split, or are not so many layers.
    """
    check_format(out)
    check_count(encoder.encoder, layers)
    if part < 1:
        raise ValueError(f"expected part of at least 1 sample, got {part}")
    splits = Splits(data, split)
    samples = splits.samples
    steps = max(1, part // data.batch_size)  # batches in a part
    plan = [
        _Part(name, start, min(start + steps * data.batch_size, len(whole)))
        for name, whole in samples.items()
        for start in range(0, len(whole), steps * data.batch_size)
    ]
    identity = {
        **(identity or {}),
        "pooling": pooling,
        "layers": layers,
        "split": split,
        "batch_size": data.batch_size,
        "batches": steps,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    parts = Parts(out, {**identity, "samples": {name: _names(whole) for name, whole in samples.items()}})
    for name, reasons in parts.unreadable.items():
        splits.records[name].reasons |= reasons
    done = len(parts.files)
    started = sum(step.stop - step.start for step in plan[:done])
    embedders = {"features": partial(encoder.embed, pooling=pooling, layers=layers)}
    with tqdm(total=len(splits), initial=started, unit=" samples", disable=None) as bar:
        for name in samples:
            todo = [step for step in plan[done:] if step.split == name]
            if not todo:
                continue
            batches = splits.batches(name, start=todo[0].start)
            for step in todo:
                few = islice(batches, -(-(step.stop - step.start) // data.batch_size))
                columns, missing = splits.encode(name, few, embedders, bar=bar)
                if columns and isinstance(encoder.modality, Multimodal):
                    own = encoder.modality.apart(torch.from_numpy(columns["features"]))
                    columns |= {f"features.{of}": values.numpy() for of, values in own.items()}
                parts.append(columns, split=name, unreadable=missing)
    return parts.join()


@dataclass(frozen=True)
class _Part:
    split: str
    start: int
    stop: int


def _names(samples: Samples) -> str:
    """A hash of the samples' names in order, and their files' sizes and times: of other data, no part must be kept."""
    names = hashlib.sha256()
    files = getattr(samples.dataset, "files", samples.dataset)
    path = files.path if isinstance(files, FileList) else None
    for index in map(int, samples.indices):
        state = "" if path is None else _state(path(index))
        names.update(f"{samples.sample_id(index)}\0{state}\0".encode(errors="backslashreplace"))
    return names.hexdigest()


def named_files(config: Any) -> dict[str, str]:
    """Size and time of the files that a data configuration names, and of those right in a folder that it names."""
    found: dict[str, str] = {}
    for word in strings(config):
        folder = Path(word).expanduser()
        try:
            files = sorted(folder.iterdir()) if folder.is_dir() else [folder]
            found |= {str(file): _state(file) for file in files[:_FILES] if file.is_file()}
        except OSError:  # no name of a file, or none that may be looked at
            continue
    return found


def _state(path: str | Path) -> str:
    try:
        found = os.stat(path)
    except OSError:
        return "missing"
    return f"{found.st_size} bytes at {found.st_mtime_ns}"
