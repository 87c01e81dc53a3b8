"""Checkpoints of a run: the last state and the best."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from jepa_lightning.callbacks.probe import OnlineProbe


class LastCheckpoint(ModelCheckpoint):
    """Keeps `checkpoints/last.ckpt` in the run's folder: after each validation, and when training ends.

    Args:
        every_n_train_steps: save every so many optimiser steps instead, for runs with long epochs.
    """

    def __init__(self, *, every_n_train_steps: int | None = None) -> None:
        super().__init__(
            filename="last",
            every_n_train_steps=every_n_train_steps,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the folder."""
        self.dirpath = self.dirpath or _folder(trainer)
        super().setup(trainer, pl_module, stage)

    def _find_last_checkpoints(self, trainer: Trainer) -> set[str]:
        self.dirpath = self.dirpath or _folder(trainer)  # `ckpt_path: last` is looked up before setup
        return super()._find_last_checkpoints(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final state, wherever in the rhythm of validations the run ended."""
        super().on_train_end(trainer, pl_module)
        if trainer.global_step != self._last_global_step_saved and not self._should_skip_saving_checkpoint(trainer):
            self._save_none_monitor_checkpoint(trainer, self._monitor_candidates(trainer))


class BestCheckpoint(ModelCheckpoint):
    """Keeps `checkpoints/best.ckpt` in the run's folder.

    Best is the highest `probe/linear` where the data has classes (a falling loss proves nothing in a JEPA), or the
    highest `probe/r2_NAME` of its first continuous label; without labels, the lowest `val/loss`.
    """

    def __init__(self) -> None:
        super().__init__(
            filename="best",
            monitor="val/loss",
            save_on_train_epoch_end=False,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the folder, and what is best by what this run measures."""
        self.dirpath = self.dirpath or _folder(trainer)
        probes = [c for c in trainer.callbacks if isinstance(c, OnlineProbe)]  # type: ignore[attr-defined]
        metric = next(filter(None, (probe.main_metric(trainer) for probe in probes)), None)
        if metric is not None:
            self.monitor, self.mode, self.kth_value = metric, "max", torch.tensor(-torch.inf)
        super().setup(trainer, pl_module, stage)


def _folder(trainer: Trainer) -> str:
    return str(Path(trainer.default_root_dir) / "checkpoints")
