"""`jepa-embed`: the features of a data set, by a frozen encoder, in a file."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import jsonargparse
from lightning.pytorch import LightningDataModule
from tqdm import tqdm

from jepa_lightning.cli.errors import short_errors
from jepa_lightning.cli.options import (
    Options,
    add_encoder_options,
    add_layers_option,
    choose_device,
    data_in_order,
    file_hash,
    positive,
)
from jepa_lightning.config.bounded_yaml import MODE, check_values
from jepa_lightning.config.messages import shorten
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.config.rebuild import Config, strings
from jepa_lightning.config.trust import Untrusted, only_trusted
from jepa_lightning.data import JEPADataModule, Samples
from jepa_lightning.data.files.file_list import FileList
from jepa_lightning.data.in_order import SPLITS
from jepa_lightning.evaluation.features.extraction import Splits
from jepa_lightning.evaluation.features.files import Parts, check_format
from jepa_lightning.evaluation.features.last_layers import check_count
from jepa_lightning.evaluation.features.pooling import Pooling
from jepa_lightning.loading import Frozen, load
from jepa_lightning.printable import printable
from jepa_lightning.run.checkpoints import find_checkpoint
from jepa_lightning.run.locks import locked

_FILES = 1000  # right in a folder, whose sizes are looked at
PART = 4096  # samples in a part, about: what is lost when a run is killed


def embed(args: Sequence[str] | None = None) -> None:
    """Entry point of `jepa-embed`. Mistakes of the user end in a few lines and exit code 2."""
    with short_errors("jepa-embed"):
        given, words = _parse(sys.argv[1:] if args is None else list(args))
        check_format(given.out)
        with locked(
            given.out.with_name(f".{given.out.name}.lock"), f"expected {given.out} for this, but it is written"
        ):
            check_format(given.out)  # another may have just finished it
            shapes = _embed(given, words)
        rows, width = shapes["features"]
        labels = [name.removeprefix("labels.") for name in shapes if name.startswith("labels.")]
        print(f"{given.out}: {rows} samples, {width} features, labels: {printable(', '.join(labels)) or 'none'}")


def _embed(given: argparse.Namespace, words: list[str]) -> dict[str, tuple[int, ...]]:
    encoder = load(
        given.checkpoint,
        encoder=given.encoder,
        which=given.which,
        trust=given.trust,
        map_location=choose_device(given),
    )
    config = data_config(encoder.config or {}, words, trust=given.trust)
    data = data_in_order(config, encoder.modality, given)
    checkpoint = find_checkpoint(given.checkpoint, given.which)
    identity = {
        "checkpoint": file_hash(checkpoint),
        "encoder": given.encoder,
        "data": config,
        "files": named_files(config),
    }
    how = {"split": given.split, "pooling": given.pooling, "layers": given.layers, "part": given.part}
    try:
        return write_features(encoder, data, given.out, **how, identity=identity)
    except OSError as error:
        error.add_note("What is done is kept in OUT.parts: the same command goes on from there.")
        raise


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
    works in parts (`OUT.parts`): killed and called again with the same arguments, it goes on after the last part.

    Args:
        encoder: what computes them.
        data: with `drop_last=False`.
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
                parts.append(columns, split=name, unreadable=missing)
    return parts.join()


def data_config(config: Config, words: Sequence[str], *, trust: Sequence[str] = ()) -> Config:
    """The data's part of a run's configuration, with what the words of a command line change in it.

    Args:
        config: the run's; its `data` may be missing where the words name a class.
        words: `--data.root photos --data.csv ...`, or `--data CLASS ...` for another data module.
        trust: packages whose classes may be named.

    Raises:
        ValueError: no class is named at all, or the words do not fit it.
    """
    stored = config.get("data")
    if any(word == "--data" or word.startswith("--data=") for word in words):
        stored = None
        load_plugins()  # so that their short names are known
    elif not isinstance(stored, dict):
        raise ValueError(
            "the run's config.yaml is not beside its checkpoint, so its data are not known: name the run's folder, or "
            "a data module, such as --data ImageData --data.root DIR"
        )
    parser = jsonargparse.ArgumentParser(prog="jepa-embed", exit_on_error=False, parser_mode=MODE)
    parser.add_subclass_arguments(LightningDataModule, "data", fail_untyped=False, required=True)
    check_values(stored)
    first = [] if stored is None else ["--data", json.dumps(stored)]
    try:
        with only_trusted(trust):
            return parser.parse_args([*first, *words]).data.as_dict()
    except Untrusted:
        raise
    except (argparse.ArgumentError, ValueError, TypeError, ImportError) as error:
        raise ValueError(shorten(str(error), parser)) from error


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


def _parse(args: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = Options(
        prog="jepa-embed",
        allow_abbrev=False,
        description="Write the features of a data set, by the frozen encoder of a run, to a file, with labels and ids.",
        epilog="--data.KEY VALUE changes any setting of the run's data, as in jepa-fit: --data.root DIR. "
        "--data CLASS names another data module. A run that was killed goes on when it is started again.",
    )
    parser.add_argument("--checkpoint", required=True, help="folder of a run, or checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="file to write: .npz, .safetensors or .parquet")
    parser.add_argument("--split", choices=[*SPLITS, "all"], default="all")
    parser.add_argument("--part", type=positive, default=PART, help="samples that are lost at most in a killed run")
    add_encoder_options(parser)
    add_layers_option(parser)
    return parser.parse_split(args)
