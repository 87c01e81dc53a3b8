"""All fits of a call of `finetune`: shares of the labels, draws of them, methods."""

from __future__ import annotations

import copy
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule
from torch import Tensor

from jepa_lightning._version import __version__
from jepa_lightning.evaluation.open_data import errors_with, open_data
from jepa_lightning.evaluation.probes.bootstrap import Moments, Outcome
from jepa_lightning.evaluation.runs import EncoderSettings
from jepa_lightning.finetuning.fits import Fit, fit
from jepa_lightning.finetuning.folder import begin, held, is_first
from jepa_lightning.finetuning.heads import AttentiveHead
from jepa_lightning.finetuning.labels import draw_labels, with_training_samples
from jepa_lightning.finetuning.maps import MapTask
from jepa_lightning.finetuning.model import FineTuned
from jepa_lightning.finetuning.outcome import FINETUNED, FROZEN, SCRATCH, UNTRAINED, FineTuneReport
from jepa_lightning.finetuning.tasks import PooledTask, Task
from jepa_lightning.loading import WhichEncoder, load, part_of
from jepa_lightning.randomness import seeded

_SEED = "PL_GLOBAL_SEED"  # which Lightning's seed_everything sets


class Study:
    """The encoder of a run and its untrained twin on labelled data; the arguments are those of `finetune`."""

    def __init__(
        self,
        checkpoint: Path,
        out: Path,
        *,
        data: LightningDataModule | Mapping[str, Any] | None,
        label: str | None,
        part: str | None,
        head: str,
        trust: Sequence[str],
        encoder: WhichEncoder | None,
        epochs: Sequence[int],
        rates: dict[str, list[float]],
        trainer: dict[str, Any],
        how: dict[str, Any],
    ) -> None:
        self.out, self.label, self.head, self.epochs = out, label, head, list(epochs)
        self.rates, self.trainer, self.how = rates, trainer, how
        where = "cpu" if trainer["accelerator"] == "cpu" else "auto"
        self.device = EncoderSettings(device=where).chosen_device
        self.trained = load(checkpoint, encoder=encoder, trust=trust, map_location=self.device)
        if part is not None:
            self.trained = part_of(self.trained, part)
        stored = ((self.trained.config or {}).get("data") or {}).get("init_args") or {}
        own = not isinstance(data, LightningDataModule) and "class_path" not in (data or {})
        if own and stored.get("views", 1) != 1:
            data = {"views": 1, "view_transform": None, **dict(data or {})}  # type: ignore[arg-type]
        opened = open_data(self.trained, data, trust=trust)
        with errors_with(opened.prefix):
            self.data = opened.module
            self.data.setup()
        self.settings: dict[str, Any] = {
            "version": __version__,
            "checkpoint": str(checkpoint),
            "data": opened.config,
            "encoder": encoder,
            "head": head,
            "epochs": list(epochs),
            "learning_rates": rates,
            **how,
            **trainer,
            **({} if part is None else {"part": part}),
        }

    def run(self, *, shares: Sequence[float], draws: int, baselines: bool, seed: int, resume: bool) -> FineTuneReport:
        """Fit and score everything, and write the report and the model."""
        self.settings |= {"label_shares": list(shares), "draws": draws, "seed": seed, "label": self.label}
        with held(self.out):
            if begin(self.out, self.settings, resume=resume):
                return FineTuneReport.read(self.out)
            self.epochs_of = dict(zip(shares, self.epochs * (len(shares) // len(self.epochs)), strict=True))
            report = FineTuneReport(settings=self.settings)
            drawn = {
                (share, number): draw_labels(self.data, self.label, share=share, seed=seed + number)
                for share in shares
                for number in range(draws)
            }
            chosen_on, scored_on = self._splits(report)
            everything = np.unique(np.concatenate(list(drawn.values())))
            splits = [split for split in (chosen_on, scored_on) if split is not None]
            kind = MapTask if self.head == "dense" else PooledTask
            self.task: Task = kind(
                self.trained,
                self.data,
                everything,
                splits,
                label=self.label,
                baselines=baselines,
                head=self.head,
                device=self.device,
            )
            best: tuple[tuple[float, float], FineTuned] | None = None
            for share in shares:
                outcomes: dict[str, list[Outcome | Moments]] = {}
                kept_rates: dict[str, float] = {}
                for number in range(draws):
                    indices = drawn[share, number]
                    for name in self.task.probed:
                        probed = self.task.probe(name, indices, scored_on, seed=seed + number)
                        outcomes.setdefault(name, []).append(probed)
                    for method in self.task.fitted:
                        given = self.rates.get(method, self.rates[FINETUNED])
                        rates = [kept_rates[method]] if method in kept_rates else given
                        started = time.perf_counter()
                        found, model = self._fit(
                            method, indices, rates, chosen_on, share=share, number=number, seed=seed + number
                        )
                        kept_rates[method] = found.learning_rate
                        self.task.keep(method, model)
                        outcome = self.task.score(model, scored_on, train=len(indices)).moments
                        outcomes.setdefault(method, []).append(outcome)
                        report.fits[f"{method}, {share:g}, draw {number}"] = {
                            **asdict(found),
                            "test": outcome.score,
                            "seconds": round(time.perf_counter() - started, 1),
                        }
                        _say(f"{method}, {share:g} of the labels, draw {number}: {outcome.measure} {outcome.score:.3f}")
                        rank = share, found.validation or 0.0
                        if method == FINETUNED and (best is None or rank > best[0]):
                            best = rank, model
                in_order = {n: outcomes[n] for n in (FINETUNED, FROZEN, SCRATCH, UNTRAINED) if n in outcomes}
                guessed = float(np.mean([self.task.chance(drawn[share, number], scored_on) for number in range(draws)]))
                report.add(self.task.goal.name, share, in_order, chance=guessed, seed=seed)
            assert best is not None
            if is_first():
                self._write(report, best[1])
            return report

    def _splits(self, report: FineTuneReport) -> tuple[str | None, str]:
        """Choose the split on which epochs are chosen, and the one that is scored."""
        there = [split for split in ("val", "test") if split in self.data.splits and self.data.part(split).labelled]
        if not there:
            raise ValueError("the data have neither a val nor a test split with labels: set data.val_fraction")
        if there == ["val", "test"]:
            count = len(self.data.part("val"))
            report.notes.append(f"epoch and learning rate chosen on {count} validation samples, scored once on test")
            return "val", "test"
        if any(len(rates) > 1 for rates in self.rates.values()):
            raise ValueError(
                f"the data have the labelled split {there[0]} alone: give one learning rate, or add a split"
            )
        report.notes.append(f"no split to choose the epoch on: that of the last epoch is scored, on {there[0]}")
        return None, there[0]

    def _fit(
        self,
        method: str,
        indices: np.ndarray,
        rates: Sequence[float],
        chosen_on: str | None,
        *,
        share: float,
        number: int,
        seed: int,
    ) -> tuple[Fit, FineTuned]:
        """Fit with each learning rate, and return the best on the validation split."""
        data = with_training_samples(self.data, indices, maps=self.head == "dense")
        tried: list[tuple[Fit, FineTuned]] = []
        for rate in rates:
            with seeded(seed), _order_by(seed):
                model = self.task.model(method, indices, seed=seed)
                begun = copy.deepcopy(model.state_dict()) if method == FINETUNED else None
                other = {SCRATCH: {"which": "all", "layer_decay": 1.0}, FINETUNED: {}}.get(method, {"which": "none"})
                name = f"{method.replace(' ', '_')}-{share:g}-{number}-{rate:g}"
                found = fit(
                    model,
                    data,
                    self.out / "fits" / name,
                    epochs=self.epochs_of[share],
                    validate=chosen_on is not None,
                    trainer=self.trainer,
                    learning_rate=rate,
                    **{**self.how, **other},
                )
                if begun is not None and chosen_on is not None and not isinstance(model.head, AttentiveHead):
                    found = self._or_as_it_began(model, found, begun, chosen_on)
            tried.append((found, model))
        return max(tried, key=lambda pair: -1.0 if pair[0].validation is None else pair[0].validation)

    def _or_as_it_began(self, model: FineTuned, found: Fit, begun: dict[str, Tensor], chosen_on: str) -> Fit:
        """Go back to the probe of the frozen features where no epoch was better on the validation split."""
        trained = copy.deepcopy(model.state_dict())
        model.load_state_dict(begun)
        before = self.task.score(model, chosen_on, train=0).moments.score
        if found.validation is not None and found.validation > before:
            model.load_state_dict(trained)
            return found
        return replace(found, validation=before, epoch=0)

    def _write(self, report: FineTuneReport, model: FineTuned) -> None:
        report.write(self.out)
        model.save_pretrained(self.out / "model")
        shutil.rmtree(self.out / "fits", ignore_errors=True)


@contextmanager
def _order_by(seed: int) -> Iterator[None]:
    """Inside, data modules order and augment training samples by this seed."""
    before = os.environ.get(_SEED)
    os.environ[_SEED] = str(seed)
    try:
        yield
    finally:
        os.environ.pop(_SEED)
        if before is not None:
            os.environ[_SEED] = before


def _say(line: str) -> None:
    if sys.stderr.isatty():
        print(line, file=sys.stderr)
