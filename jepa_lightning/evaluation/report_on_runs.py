"""Evaluate the checkpoints of runs: encode their data once, evaluate the features, and write a report."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule
from torch import Tensor

from jepa_lightning.evaluation.energies import energies
from jepa_lightning.evaluation.evaluate_features import Encoded, Protocol, Report, evaluate_features
from jepa_lightning.evaluation.features.extraction import Embed, Extracted, PoolAndStore, Splits, extract_splits
from jepa_lightning.evaluation.features.token_store import TokenStore
from jepa_lightning.evaluation.features.views import Views, training_views
from jepa_lightning.evaluation.open_data import OpenedData, errors_with, open_data
from jepa_lightning.evaluation.probes.probing import OF_TOKENS, Probe
from jepa_lightning.evaluation.prompts import Prompts, asked_prompts, score_prompts
from jepa_lightning.evaluation.report.results import RAW
from jepa_lightning.evaluation.report.write import notes_on_plots, write_report
from jepa_lightning.evaluation.retrieval import Recall, retrieval
from jepa_lightning.evaluation.runs import EncoderSettings, Run, file_hash, find_curves, is_multimodal, load_runs
from jepa_lightning.evaluation.runs import untrained_twins as build_twins
from jepa_lightning.loading import Frozen
from jepa_lightning.modality import Batch
from jepa_lightning.multimodal.modality import Multimodal
from jepa_lightning.names.printable import printable
from jepa_lightning.pictures.report import draw_neighbours
from jepa_lightning.run.locks import locked

RAW_WIDTH = 4096  # numbers of a sample's raw features, at most


def report_on_runs(
    checkpoints: Sequence[str | Path],
    *,
    data: LightningDataModule | Mapping[str, Any] | None,
    out: Path,
    probes: Sequence[Probe],
    labels: Sequence[str] | None,
    protocol: Protocol,
    k: int,
    energy: bool,
    settings: EncoderSettings,
    prompts: Prompts | None = None,
) -> Report:
    """Evaluate runs on data and write the report; the arguments are those of `evaluate`."""
    with locked(out / ".lock", f"expected {out} for this report, but another one is being written"):
        runs = load_runs(checkpoints, settings)
        encoder = runs[0].encoder
        opened = open_data(encoder, data, trust=settings.trust)
        with errors_with(opened.prefix):
            example = _example(opened, labels_needed=not is_multimodal(encoder))
        for label in [*(labels or ()), *([protocol.group] if protocol.group else ())]:
            if label not in example["labels"]:
                raise ValueError(
                    f"no label {label!r} in the data: it has {sorted(example['labels'])}{_more(label, opened.config)}"
                )
        asked = (
            None if prompts is None else asked_prompts(prompts, encoder, opened.module, [*example["labels"]], labels)
        )
        found = _Encoding(runs, opened, protocol, settings).encode(example, tokens=bool(OF_TOKENS & set(probes)))
        found.record["folder"] = str(out)
        report = _evaluate(found, probes=probes, labels=labels, k=k)
        last = [*found.splits.samples][-1]
        if energy:
            told = energies(runs, partial(found.splits.batches, last), settings, report.notes, seed=protocol.seed)
            report = dataclasses.replace(report, energy=told)
        if asked is not None:
            features = {name: found.extracted[name].features[last] for name in found.encoders}
            scores = score_prompts(found.encoders, features, *asked, pooling=settings.pooling, layers=settings.layers)
            report = dataclasses.replace(report, zero_shot=scores)
        curves = find_curves(runs, report.notes)
        try:
            write_report(report, out, runs=curves)
        except OSError as error:
            error.add_note(report.table())  # so that the result is not lost if the disk is full
            raise
        return report


def _example(opened: OpenedData, *, labels_needed: bool) -> Batch:
    """Read a few labelled samples, to report mistakes before the whole dataset is read."""
    loader = opened.module.probe_dataloader()
    if loader is None and not labels_needed:
        return opened.module.collate([opened.module.parts.example])
    if loader is None:
        raise ValueError("the data have no training labels: there is nothing to evaluate features on")
    return next(iter(loader))


def _more(label: str, config: Mapping[str, Any]) -> str:
    """What to do about a label that the data's settings leave out."""
    chosen = config["init_args"].get("labels")
    return f"; their setting labels names those to read: --data.labels [{','.join([*chosen, label])}]" if chosen else ""


class _Encoding:
    """The features of all runs, of their untrained twins and of raw input, and what a report says of them.

    Attributes:
        encoded: by name, in the order of the table.
        notes: what was left out, and why.
        pairs: of names, to be compared.
        record: settings that the report keeps.
        splits: of the data.
        extracted: by name, the features by split.
        encoders: by name, trained and untrained.
    """

    def __init__(self, runs: Sequence[Run], opened: OpenedData, protocol: Protocol, settings: EncoderSettings) -> None:
        self.runs, self.opened, self.protocol, self.settings = runs, opened, protocol, settings
        self.notes: list[str] = []
        self.encoded: dict[str, Encoded] = {}
        self.pairs: list[tuple[str, str]] = []
        self.record: dict[str, Any] = {}
        self.extracted: dict[str, Extracted] = {}
        self.splits: Splits
        self.encoders: dict[str, Frozen]

    def encode(self, example: Batch, *, tokens: bool) -> _Encoding:
        """Encode the data in one pass; with `tokens`, keep those for probes of tokens."""
        runs, how = self.runs, self.settings
        twins, untrained = build_twins(runs, self.notes)
        encoders = self.encoders = {run.name: run.encoder for run in runs} | untrained
        embedders: dict[str, Embed] = {
            name: partial(which.embed, pooling=how.pooling, layers=how.layers) for name, which in encoders.items()
        }
        for name, embed in embedders.items():
            try:
                embed(example)
            except (ValueError, KeyError) as error:
                raise ValueError(f"the data do not fit the encoder {name!r}: {error}") from error
        raw = self._raw(example)
        if raw is not None:
            embedders[RAW] = raw
        splits = Splits(self.opened.module, "all")
        if example["labels"] or self.protocol.kind != "split":
            splits = evaluated_splits(splits, self.protocol, self.notes)
        else:
            names = [*splits.samples]
            splits.samples = {name: splits.samples[name] for name in (names[0], names[-1])}
        storing = {name: _storing(which, self.settings) for name, which in encoders.items()} if tokens else {}
        found = extract_splits(splits, embedders | storing)
        self.splits, self.extracted = splits, found
        views = training_views(splits, embedders, found, seed=self.protocol.seed)
        if isinstance(views, str):
            self.notes.append(f"alignment: skipped, since {views}")
        self.encoded = {n: _encoded(of, n, None if isinstance(views, str) else views) for n, of in found.items()}
        if self.protocol.kind != "split":
            self.encoded = {name: _together(of, found[name]) for name, of in self.encoded.items()}
        self.pairs = [(run.name, twins[run.name]) for run in runs if run.name in twins]
        self.pairs += [(run.name, RAW) for run in runs if raw is not None]
        self.pairs += [(run.name, runs[0].name) for run in runs[1:]]
        self.record = self._record(splits, {split: len(ids) for split, ids in next(iter(found.values())).ids.items()})
        return self

    def _raw(self, example: Batch) -> Embed | None:
        """Return a function for raw features, or None and a note if there are none."""
        modality = self.runs[0].encoder.modality
        raw = modality.raw_features(example)
        if raw is None:
            self.notes.append(f"raw: the modality {modality.name} defines no raw features")
            return None
        if raw.shape[1] > RAW_WIDTH:
            self.notes.append(f"raw: skipped, since {raw.shape[1]:,} numbers a sample are more than {RAW_WIDTH:,}")
            return None

        def embed(batch: Batch) -> Tensor:
            found = modality.raw_features(batch)
            if found is None:
                raise ValueError(f"the modality {modality.name} gives raw features for some batches and not others")
            return found

        return embed

    def _record(self, splits: Splits, sizes: Mapping[str, int]) -> dict[str, Any]:
        names = list(splits.samples)
        division = f"the splits {', '.join(names)} together"
        if self.protocol.kind == "split":
            division = f"fitted on the split {names[0]}, scored on the split {names[1]}"
        missing = {key: why for record in splits.records.values() for key, why in record.reasons.items()}
        if missing:
            self.notes.append(f"{len(missing)} samples cannot be read and are missing for all encoders")
        config = self.opened.config
        return {
            "checkpoints": {run.name: {"file": str(run.file), "sha256": file_hash(run.file)} for run in self.runs},
            "encoder": self.settings.encoder,
            "pooling": self.settings.pooling,
            "layers": self.settings.layers,
            "data": {
                "class": config["class_path"],
                "root": str(config["init_args"].get("root")),
                "settings": json.loads(json.dumps(config["init_args"], default=str)),
            },
            "splits": dict(sizes),
            "division_of_data": f"{division} ({', '.join(f'{name}: {size} samples' for name, size in sizes.items())})",
            "unreadable": missing,
        }


def _evaluate(found: _Encoding, *, probes: Sequence[Probe], labels: Sequence[str] | None, k: int) -> Report:
    data = found.opened.module
    classes = data.classes
    report = evaluate_features(
        found.encoded,
        protocol=found.protocol,
        probes=probes,
        labels=labels,
        class_names={data.label: classes} if classes and data.label else None,
        pairs=found.pairs,
        k=k,
        device=found.settings.chosen_device,
        progress=_progress,
        settings=found.record,
        labels_needed=not is_multimodal(found.runs[0].encoder),
    )
    near = draw_neighbours(found.splits, found.extracted, found.runs[0].encoder.modality, found.notes)
    ids = [name for names in next(iter(found.extracted.values())).ids.values() for name in names]
    notes = [*found.notes, *report.notes, *notes_on_plots()]
    return dataclasses.replace(report, notes=notes, ids=ids, neighbours=near, retrieval=_retrieval(found))


def _retrieval(found: _Encoding) -> dict[str, list[Recall]]:
    """Compute the recalls of each encoder among the samples of the last split; none of a single modality."""
    modality = found.runs[0].encoder.modality
    if not isinstance(modality, Multimodal):
        return {}
    split = [*found.splits.samples][-1]
    return {
        name: retrieval(modality.apart(of.features[split].values))
        for name, of in found.extracted.items()
        if name != RAW
    }


def evaluated_splits(splits: Splits, protocol: Protocol, notes: list[str]) -> Splits:
    """The splits that a protocol looks at: all, or the training and the test split; val where that has no labels."""
    if protocol.kind == "split":
        there = [name for name in ("test", "val") if name in splits.samples]
        if not there:
            raise ValueError("the data have neither a test nor a val split: use --protocol folds")
        second = next((name for name in there if splits.samples[name].labelled), None)
        if second is None:
            raise ValueError(f"the split {' and the split '.join(there)} have no labels: use --protocol folds")
        notes += [f"the split {name} has no labels, so {second} is used for scoring" for name in there
                  if there.index(name) < there.index(second)]  # fmt: skip
        splits.samples = {name: splits.samples[name] for name in ("train", second)}
    return splits


def _storing(encoder: Frozen, settings: EncoderSettings) -> Embed:
    """For probes of tokens, an embedder that keeps them besides."""
    return PoolAndStore(partial(encoder.encode, pooling=settings.pooling, layers=settings.layers), TokenStore())


def _encoded(found: Extracted, name: str, views: Views | None) -> Encoded:
    """Return the features of an encoder: the first split for training, the second, if any, for scoring."""
    train, *others = found.features.values()
    seen = (None, None) if views is None or name not in views.features else (views.features[name], views.rows)
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
