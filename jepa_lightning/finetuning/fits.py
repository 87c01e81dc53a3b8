"""One fit: an encoder and a head trained on some labels, the epoch chosen on the validation split."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from jepa_lightning.data import JEPADataModule
from jepa_lightning.evaluation.features.pooled import extract
from jepa_lightning.finetuning.model import FineTuned
from jepa_lightning.finetuning.module import FineTuning
from jepa_lightning.run.checkpoint_io import protect
from jepa_lightning.run.folder import AppendingCSVLogger
from jepa_lightning.run.writing import replacing

FIT, WEIGHTS = "fit.json", "weights.pt"


@dataclass(frozen=True)
class Fit:
    """What a fit came to.

    Attributes:
        validation: best score on the validation split; None where there is none.
        epoch: of that score, counted from 1, 0 for the model as it began; the last one without a validation split.
        steps: optimiser steps of the whole fit.
        learning_rate: of the head.
    """

    validation: float | None
    epoch: int
    steps: int
    learning_rate: float


def fit(
    model: FineTuned,
    data: JEPADataModule,
    folder: Path,
    *,
    epochs: int,
    validate: bool,
    trainer: dict[str, Any],
    **settings: Any,
) -> Fit:
    """Train a model in place; it ends with the weights of the chosen epoch.

    A fit that is complete in the folder is read, one that was stopped is resumed.

    Args:
        model: encoder and head.
        data: with the training samples, and a validation split if `validate`.
        folder: of metrics and checkpoints.
        epochs: to train.
        validate: choose the epoch on the validation split; else it is the last one.
        trainer: arguments of Lightning's Trainer.
        **settings: of `FineTuning`.
    """
    module = FineTuning(model, **settings)
    done = folder / FIT
    if done.is_file():
        model.load_state_dict(torch.load(folder / WEIGHTS, weights_only=True, map_location="cpu"))
        return Fit(**json.loads(done.read_text()))
    best = ModelCheckpoint(
        dirpath=folder / "checkpoints",
        filename="best",
        monitor=module.metric if validate else None,
        mode="max",
        save_last=True,
        enable_version_counter=False,
        auto_insert_metric_name=False,
    )
    with quiet():
        run = Trainer(
            max_epochs=epochs,
            default_root_dir=folder,
            logger=AppendingCSVLogger(folder),
            callbacks=[best],
            num_sanity_val_steps=0,
            limit_val_batches=1.0 if validate else 0,
            enable_model_summary=False,
            enable_progress_bar=False,
            log_every_n_steps=10,
            **trainer,
        )
        protect(run)
        last = folder / "checkpoints" / "last.ckpt"
        run.fit(module, datamodule=data, ckpt_path=str(last) if last.is_file() else None, weights_only=True)
    content = torch.load(best.best_model_path or last, weights_only=True, map_location="cpu")
    module.load_state_dict(content["state_dict"])
    score = None if best.best_model_score is None or not validate else float(best.best_model_score)
    run.strategy.barrier()  # all have read it
    found = Fit(score, int(content["epoch"]) + 1, run.global_step, settings["learning_rate"])
    if run.is_global_zero:
        torch.save(model.state_dict(), folder / WEIGHTS)
        with replacing(done) as beside:
            beside.write_text(json.dumps(asdict(found)))
        shutil.rmtree(folder / "checkpoints")
    run.strategy.barrier()  # all find it complete
    return found


@torch.no_grad()
def outputs_of(model: FineTuned, batches: Any) -> Tensor:
    """Return classes (n,) as numbers from 0, or values (n, d), of batches; the clips of a video are averaged."""
    found = extract(model.eval(), (batch for batch in batches if "id" in batch)).values
    return found.argmax(1) if model.classifies else found


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's notes on every Trainer to itself; warnings and errors stay."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
