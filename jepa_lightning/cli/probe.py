"""`jepa-probe`: how good the representation of a run is, beside the untrained encoder, raw input and chance."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

from torch import Tensor

from jepa_lightning.cli.embed import data_config
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
from jepa_lightning.cli.runs import Run, find_curves, load_runs, untrained_twins
from jepa_lightning.config.rebuild import Config
from jepa_lightning.data import JEPADataModule
from jepa_lightning.evaluation.evaluate_features import Encoded, Protocol, Report, evaluate_features
from jepa_lightning.evaluation.features.extraction import Embed, Extracted, PoolAndStore, Splits, extract_splits
from jepa_lightning.evaluation.features.pooling import pool_tokens
from jepa_lightning.evaluation.features.token_store import TokenStore
from jepa_lightning.evaluation.features.views import Views, training_views
from jepa_lightning.evaluation.probes.probing import DESCRIPTIONS
from jepa_lightning.evaluation.report.results import RAW
from jepa_lightning.evaluation.report.write import notes_on_plots, write_report
from jepa_lightning.loading import Frozen
from jepa_lightning.modality import Batch
from jepa_lightning.pictures.report import draw_neighbours
from jepa_lightning.printable import printable
from jepa_lightning.run.checkpoints import find_checkpoint
from jepa_lightning.run.locks import locked

RAW_WIDTH = 4096  # numbers of a sample's raw features, at most


def probe(args: Sequence[str] | None = None) -> None:
    """Entry point of `jepa-probe`. Mistakes of the user end in a few lines and exit code 2."""
    with short_errors("jepa-probe"):
        given, words = _parse(sys.argv[1:] if args is None else list(args))
        out = _folder(given)
        protocol = Protocol(
            kind=given.protocol,
            folds=given.folds,
            repeats=given.repeats,
            test_share=given.test_share,
            group=given.group,
            label_shares=tuple(given.label_shares),
            label_draws=given.label_draws,
            shots=tuple(given.shots),
            ways=given.ways,
            episodes=given.episodes,
            seed=given.seed,
        )
        with locked(out / ".lock", f"expected {out} for this report, but another is being made"):
            runs = load_runs(given)
            stored = runs[0].encoder.config or {}
            config = data_config(stored, words, trust=given.trust)
            data, example = _open(config, runs[0].encoder, given)
            report = _judge(given, runs, data, example, protocol, config)
            curves = find_curves(runs, report.notes)
            print(report.table())  # which is not lost should the report have no room
            page = write_report(report, out, runs=curves)
            print(f"data: {report.settings['data']['class']}, {report.settings['division_of_data']}")
            print(f"report: {page}")


def _folder(given: argparse.Namespace) -> Path:
    """Where the report goes."""
    if given.out is not None:
        if given.out.exists() and not given.out.is_dir():
            raise ValueError(f"expected a folder for --out, got the file {given.out}")
        return cast(Path, given.out)
    first = Path(given.checkpoint[0]).expanduser()
    found = find_checkpoint(first, given.which)  # which says if it does not exist at all
    if len(given.checkpoint) > 1 or found == first:
        what = "several checkpoints" if len(given.checkpoint) > 1 else "a checkpoint that is no run's folder"
        raise ValueError(f"expected --out FOLDER with {what}: their report has no place of its own")
    return first / "probe"


def _open(config: Config, encoder: Frozen, given: argparse.Namespace) -> tuple[JEPADataModule, Batch]:
    """The data and a few samples, so that mistakes show before the whole data set is read."""
    try:
        data = data_in_order(config, encoder.modality, given)
        loader = data.probe_dataloader()
    except ValueError as error:
        if config["class_path"] == ((encoder.config or {}).get("data") or {}).get("class_path"):
            raise
        name = config["class_path"].rpartition(".")[2]
        raise ValueError(f"{name}, for a run of the modality {encoder.modality.name}: {error}") from error
    if loader is None:
        raise ValueError("the data have no labels to learn from: there is nothing to judge features by")
    return data, next(iter(loader))


def _judge(
    given: argparse.Namespace,
    runs: Sequence[Run],
    data: JEPADataModule,
    example: Batch,
    protocol: Protocol,
    config: Config,
) -> Report:
    asked = [*(given.labels or ()), *([protocol.group] if protocol.group else ())]
    for label in asked:
        if label not in example["labels"]:
            raise ValueError(
                f"no label {label!r} in the data: it has {sorted(example['labels'])}{_more(label, config)}"
            )
    notes: list[str] = []
    twins, untrained = untrained_twins(runs, notes)
    encoders = {run.name: run.encoder for run in runs} | untrained
    embedders: dict[str, Embed] = {
        name: partial(encoder.embed, pooling=given.pooling, layers=given.layers) for name, encoder in encoders.items()
    }
    for name, embed in embedders.items():
        try:
            embed(example)
        except (ValueError, KeyError) as error:
            raise ValueError(f"the data do not fit the encoder {name!r}: {error}") from error
    modality = runs[0].encoder.modality
    raw = modality.raw_features(example)
    if raw is None:
        notes.append(f"raw: the modality {modality.name} names no features without learning")
    elif raw.shape[1] > RAW_WIDTH:
        notes.append(f"raw: left out, since {raw.shape[1]:,} numbers a sample are more than {RAW_WIDTH:,}")
    else:
        embedders[RAW] = _raw(runs[0].encoder)
    splits = _splits(data, protocol, notes)
    found = extract_splits(splits, embedders | _keeping(encoders, given))
    views = training_views(splits, embedders, found, seed=given.seed)
    if isinstance(views, str):
        notes.append(f"alignment: left out, since {views}")
    encoded = {name: _encoded(of, name, None if isinstance(views, str) else views) for name, of in found.items()}
    names = list(splits.samples)
    if protocol.kind == "split":
        division = f"learnt from the split {names[0]}, judged by the split {names[1]}"
    else:
        division = f"the splits {', '.join(names)} together"
        encoded = {name: _together(of, found[name]) for name, of in encoded.items()}
    sizes = {split: len(ids) for split, ids in next(iter(found.values())).ids.items()}
    division += f" ({', '.join(f'{split}: {size} samples' for split, size in sizes.items())})"
    missing = {key: why for record in splits.records.values() for key, why in record.reasons.items()}
    if missing:
        notes.append(f"{len(missing)} samples cannot be read and are missing for all encoders alike")
    pairs = [(run.name, twins[run.name]) for run in runs if run.name in twins]
    pairs += [(run.name, RAW) for run in runs if RAW in embedders]
    pairs += [(run.name, runs[0].name) for run in runs[1:]]
    classes = data.classes
    report = evaluate_features(
        encoded,
        protocol=protocol,
        probes=given.probes,
        labels=given.labels,
        class_names={data.label: classes} if classes and data.label else None,
        compare=pairs,
        k=given.k,
        device=choose_device(given),
        progress=_progress,
        settings={
            "checkpoints": {run.name: {"file": str(run.file), "sha256": file_hash(run.file)} for run in runs},
            "encoder": given.encoder,
            "pooling": given.pooling,
            "layers": given.layers,
            "data": {
                "class": config["class_path"],
                "root": str(config["init_args"].get("root")),
                "settings": json.loads(json.dumps(config["init_args"], default=str)),
            },
            "splits": sizes,
            "division_of_data": division,
            "unreadable": missing,
        },
    )
    near = draw_neighbours(splits, found, modality, notes)
    ids = [name for names in next(iter(found.values())).ids.values() for name in names]
    return dataclasses.replace(report, notes=[*notes, *report.notes, *notes_on_plots()], ids=ids, neighbours=near)


def _more(label: str, config: Config) -> str:
    """What to do about a label that the data's settings leave out."""
    chosen = config["init_args"].get("labels")
    return f"; their setting labels names those to read: --data.labels [{','.join([*chosen, label])}]" if chosen else ""


def _raw(encoder: Frozen) -> Embed:
    def embed(batch: Batch) -> Tensor:
        found = encoder.modality.raw_features(batch)
        if found is None:
            raise ValueError(f"the modality {encoder.modality.name} gives raw features for some batches and not others")
        return found

    return embed


def _splits(data: JEPADataModule, protocol: Protocol, notes: list[str]) -> Splits:
    """The splits that a protocol looks at: all, or the training and the test split; val where that has no labels."""
    splits = Splits(data, "all")
    if protocol.kind == "split":
        there = [name for name in ("test", "val") if name in splits.samples]
        if not there:
            raise ValueError("the data have neither a test nor a val split: use --protocol folds")
        second = next((name for name in there if splits.samples[name].labelled), None)
        if second is None:
            raise ValueError(f"the split {' and the split '.join(there)} have no labels: use --protocol folds")
        notes += [f"the split {name} has no labels, so {second} is the one to be judged by" for name in there
                  if there.index(name) < there.index(second)]  # fmt: skip
        splits.samples = {name: splits.samples[name] for name in ("train", second)}
    return splits


def _keeping(encoders: Mapping[str, Frozen], given: argparse.Namespace) -> dict[str, Embed]:
    """For the attentive probe, embedders that keep the tokens besides."""
    if "attentive" not in given.probes:
        return {}
    return {
        name: PoolAndStore(
            partial(encoder.tokens, layers=given.layers), partial(pool_tokens, how=given.pooling), TokenStore()
        )
        for name, encoder in encoders.items()
    }


def _encoded(found: Extracted, name: str, views: Views | None) -> Encoded:
    """What an encoder makes of the data: the first split to learn from, the second, if any, to be judged by."""
    train, *others = found.features.values()
    seen = (None, None) if views is None else (views.features[name], views.rows)
    return Encoded(train, others[0] if others else None, views=seen[0], viewed=seen[1], tokens=found.tokens)


def _together(encoded: Encoded, found: Extracted) -> Encoded:
    """The same with the features of all splits below each other, and the labels that all have."""
    everything, *others = found.features.values()
    for part in others:
        joined = Encoded(everything, part)
        everything = dataclasses.replace(everything, values=joined.values, labels=joined.labels)
    return dataclasses.replace(encoded, train=everything, test=None)


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        print(f"probing {printable(line)}", file=sys.stderr)


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected more than 0 and less than 1, got {text}")
    return value


def _parse(args: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = Options(
        prog="jepa-probe",
        allow_abbrev=False,
        description="Judge the frozen encoders of runs by probes on labelled data, beside the same encoders before "
        "training, raw input and chance.",
        epilog="--data.KEY VALUE changes any setting of the first run's data, which are used for all: --data.root DIR. "
        "--data CLASS names another data module.",
    )
    parser.add_argument("--checkpoint", nargs="+", required=True, help="folders of runs, or checkpoints")
    parser.add_argument("--out", type=Path, help="folder of the report (RUN/probe)")
    parser.add_argument(
        "--probes", nargs="+", choices=list(DESCRIPTIONS), default=["knn", "logistic", "ridge"], metavar="PROBE",
        help="among knn, logistic, svm (classes), ridge (continuous labels) and attentive (both; looks at all tokens)",
    )  # fmt: skip
    parser.add_argument("--labels", nargs="+", metavar="NAME", help="label columns to judge by (all)")
    parser.add_argument(
        "--protocol", choices=["split", "folds", "repeated", "groups"], default="split",
        help="the data's train and test split; or, of all samples: folds, random splits, one group left out",
    )  # fmt: skip
    parser.add_argument("--folds", type=positive, default=10)
    parser.add_argument("--repeats", type=positive, default=20, help="random splits of repeated")
    parser.add_argument("--test_share", type=_share, default=0.2, help="of the samples, of repeated")
    parser.add_argument("--group", help="class label that names the groups of groups, such as speaker")
    parser.add_argument(
        "--label_shares", nargs="+", type=_share, default=[], metavar="SHARE",
        help="probe with these shares of the training labels, too, such as 0.01 0.05 0.1",
    )  # fmt: skip
    parser.add_argument("--label_draws", type=positive, default=5, help="draws of the labels at each share, of split")
    parser.add_argument(
        "--shots", nargs="+", type=positive, default=[], metavar="N",
        help="few-shot episodes with so many samples a class, such as 1 5",
    )  # fmt: skip
    parser.add_argument("--ways", type=positive, help="classes an episode (5, or as many as there are)")
    parser.add_argument("--episodes", type=positive, default=2000, help="their number, a multiple of 100")
    parser.add_argument("--seed", type=int, default=0, help="of whatever is drawn")
    parser.add_argument("--k", type=positive, default=20, help="neighbours of knn")
    add_encoder_options(parser)
    add_layers_option(parser)
    return parser.parse_split(args)
