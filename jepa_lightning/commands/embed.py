"""`jepa-embed`: the features of a data set, by a frozen encoder, in a file."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse
import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from jepa_lightning.checkpoints import find_checkpoint
from jepa_lightning.cli import fail, short_errors
from jepa_lightning.data import JEPADataModule, Samples, Unreadable
from jepa_lightning.data.in_order import SPLITS, InOrder, splits_in_order
from jepa_lightning.evaluation import extract
from jepa_lightning.evaluation.feature_files import Columns, Parts, check_format
from jepa_lightning.evaluation.pooling import Pooling
from jepa_lightning.loading import Frozen, load
from jepa_lightning.messages import shorten
from jepa_lightning.modality import Batch
from jepa_lightning.plugins import load_plugins
from jepa_lightning.rebuild import Config, build_data
from jepa_lightning.trust import Untrusted, only_trusted

PART = 4096  # samples in a part, about: what is lost when a run is killed


def embed(args: Sequence[str] | None = None) -> None:
    """Entry point of `jepa-embed`. Mistakes of the user end in a few lines and exit code 2."""
    with short_errors("jepa-embed"):
        given, words = _parse(sys.argv[1:] if args is None else list(args))
        check_format(given.out)
        encoder = load(
            given.checkpoint, encoder=given.encoder, which=given.which, trust=given.trust, map_location=_device(given)
        )
        config = data_config(encoder.config or {}, words, trust=given.trust)
        overrides = {"drop_last": False, **({"batch_size": given.batch_size} if given.batch_size else {})}
        config["init_args"] = {**config.get("init_args", {}), **overrides}
        data = build_data(config, {}, encoder.modality, trust=given.trust)
        if not isinstance(data, JEPADataModule):
            raise ValueError(f"expected a JEPADataModule, got {type(data).__name__}: only their splits have an order")
        checkpoint = find_checkpoint(given.checkpoint, given.which)
        identity = {"checkpoint": _hash(checkpoint), "encoder": given.encoder, "data": config}
        shapes = write_features(
            encoder, data, given.out, split=given.split, pooling=given.pooling, part=given.part, identity=identity
        )
        rows, width = shapes["features"]
        labels = [name.removeprefix("labels.") for name in shapes if name.startswith("labels.")]
        print(f"{given.out}: {rows} samples, {width} features, labels: {', '.join(labels) or 'none'}")


def write_features(
    encoder: Frozen,
    data: JEPADataModule,
    out: Path,
    *,
    split: str = "all",
    pooling: Pooling = "mean",
    part: int = PART,
    identity: Mapping[str, Any] | None = None,
) -> dict[str, tuple[int, ...]]:
    """Write the features of all readable samples, in order, with the evaluation transform, to `out`.

    Unreadable samples have no row; they are logged by name. Several clips of one video are one row, their mean. It
    works in parts (`OUT.parts`): killed and called again with the same arguments, it goes on after the last part.

    Args:
        encoder: what computes them.
        data: with `drop_last=False`.
        out: .npz, .safetensors or .parquet, see `jepa_lightning.evaluation.feature_files`.
        split: "train", "val", "test" or "all".
        pooling: of the tokens.
        part: samples in a part, about.
        identity: what else tells this run from others that write the same file.

    Returns:
        The shapes of the columns written.

    Raises:
        ValueError: `out` cannot be written, or its parts are another run's; too many samples cannot be read; there is
            no such split.
    """
    check_format(out)
    samples, collate = splits_in_order(data, split)
    steps = max(1, part // data.batch_size)  # batches in a part
    plan = [
        _Part(name, start, min(start + steps * data.batch_size, len(whole)))
        for name, whole in samples.items()
        for start in range(0, len(whole), steps * data.batch_size)
    ]
    identity = {**(identity or {}), "pooling": pooling, "split": split, "batch_size": data.batch_size, "batches": steps}
    out.parent.mkdir(parents=True, exist_ok=True)
    parts = Parts(out, {**identity, "samples": {name: _names(whole) for name, whole in samples.items()}})
    totals = {id(whole.dataset): len(whole.dataset) for whole in samples.values()}  # type: ignore[arg-type]
    by_source = {key: Unreadable(total=total, limit=data.max_unreadable) for key, total in totals.items()}
    records = {name: by_source[id(whole.dataset)] for name, whole in samples.items()}  # held out is of the same source
    for name, reasons in parts.unreadable.items():
        records[name].reasons |= reasons
    done = len(parts.files)
    started = sum(step.stop - step.start for step in plan[:done])
    total = sum(len(whole) for whole in samples.values())
    embed_batch = partial(encoder.embed, pooling=pooling)
    with tqdm(total=total, initial=started, unit=" samples", disable=None) as bar:
        for name, whole in samples.items():
            todo = [step for step in plan[done:] if step.split == name]
            if not todo:
                continue
            batches = iter(
                DataLoader(
                    InOrder(whole, start=todo[0].start),
                    batch_size=data.batch_size,
                    num_workers=data.train_dataloader().num_workers,
                    collate_fn=collate,
                )
            )
            for step in todo:
                few = islice(batches, -(-(step.stop - step.start) // data.batch_size))
                columns, missing = _encode(few, embed_batch, split=name, record=records[name], bar=bar)
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
    parser = jsonargparse.ArgumentParser(prog="jepa-embed", exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data", fail_untyped=False, required=True)
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


def _encode(
    batches: Iterable[Batch], embed_batch: Callable[[Batch], Tensor], *, split: str, record: Unreadable, bar: Any
) -> tuple[Columns, dict[str, str]]:
    """A part: its columns, and the id and reason of each sample that could not be read."""
    found: list[Columns] = []
    missing: dict[str, str] = {}
    for batch in batches:
        unreadable = batch.pop("unreadable")
        record.add(unreadable)
        missing |= dict(unreadable)
        if "id" in batch:
            found.append(_columns(embed_batch, batch, split=split))
            bar.update(len(found[-1]["id"]))
        bar.update(len(unreadable))
    return _join(found), missing


def _columns(embed_batch: Callable[[Batch], Tensor], batch: Batch, *, split: str) -> Columns:
    features = extract(embed_batch, [batch])  # which joins several clips of one video
    ids = list(dict.fromkeys(batch["source"])) if "source" in batch else batch["id"]
    columns = {"features": features.values.numpy(), "id": np.array(ids), "split": np.array([split] * len(ids))}
    return columns | {f"labels.{name}": value.numpy() for name, value in features.labels.items()}


def _join(found: Sequence[Columns]) -> Columns:
    """Batches below each other; labels that some lack, or have in another shape, are left out."""

    def fits(name: str) -> bool:
        return len({columns[name].shape[1:] if name in columns else None for columns in found}) == 1

    return {name: np.concatenate([columns[name] for columns in found]) for name in (found or [{}])[0] if fits(name)}


def _names(samples: Samples) -> str:
    """A hash of the samples' names in order: of other data, the beginning must not be kept."""
    names = hashlib.sha256()
    for index in samples.indices:
        names.update(samples.sample_id(int(index)).encode() + b"\0")
    return names.hexdigest()


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _device(given: argparse.Namespace) -> str:
    if given.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("expected a CUDA device for --device cuda, found none: leave it out, or say --device cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if given.device == "auto" else str(given.device)


class _Options(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        fail(shorten(message, self), program="jepa-embed")


def _parse(args: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = _Options(
        prog="jepa-embed",
        allow_abbrev=False,
        description="Write the features of a data set, by the frozen encoder of a run, to a file, with labels and ids.",
        epilog="--data.KEY VALUE changes any setting of the run's data, as in jepa-fit: --data.root DIR. "
        "--data CLASS names another data module. A run that was killed goes on when it is started again.",
    )
    parser.add_argument("--checkpoint", required=True, help="folder of a run, or checkpoint")
    parser.add_argument("--which", choices=["last", "best"], default="last", help="which checkpoint of the folder")
    parser.add_argument("--out", type=Path, required=True, help="file to write: .npz, .safetensors or .parquet")
    parser.add_argument("--split", choices=[*SPLITS, "all"], default="all")
    parser.add_argument("--pooling", choices=["mean", "max", "mean+max"], default="mean", help="of a sample's tokens")
    parser.add_argument("--encoder", choices=["teacher", "context"], default="teacher")
    parser.add_argument("--batch_size", type=_positive, help="in place of the run's")
    parser.add_argument("--part", type=_positive, default=PART, help="samples that are lost at most in a killed run")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument(
        "--trust", nargs="+", default=[], metavar="PACKAGE", help="packages whose classes the run may name"
    )
    given, words = parser.parse_known_args(args)
    strange = [word for word in words if word.startswith("-") and not re.match(r"--data(\.|=|$)", word)]
    if strange:
        parser.error(f"unrecognized arguments: {strange[0]}")
    return given, words


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {text}")
    return value
