"""Checkpoints of a run: the last state and the best."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_warn

from jepa_lightning.callbacks.non_finite import require_finite
from jepa_lightning.callbacks.probe import OnlineProbe
from jepa_lightning.optimization import is_logged
from jepa_lightning.run.checkpoint_io import protect, publish, tidy
from jepa_lightning.run.folder import Place
from jepa_lightning.run.interruption import Interrupted, StopSignals, requeue_slurm
from jepa_lightning.run.writing import unfinished


class LastCheckpoint(ModelCheckpoint):
    """Keeps `checkpoints/last.ckpt` in the run's folder, so that a resumed run goes on as if nothing had happened.

    It is saved before and after each validation (after each epoch of a run that has none), every so often, and when
    training ends. So nothing that fails in a validation loses the steps before it; a run that is resumed from before a
    validation begins with that validation.

    It is always the state between two optimiser steps, and it is written in two moves: whole beside the earlier one
    when the step is done, and under its name once the metrics of that step are written. So a kill at any moment loses
    no row of metrics and repeats none. Weights that are not finite never replace it. Before the validation after the
    very last of `max_steps`, it gets its name only when that validation fails: a run without steps to go validates no
    more.

    SIGTERM, SIGUSR1 and Ctrl-C save it after the present step and end the run (`Interrupted`); see
    `jepa_lightning.run.interruption`. In a list of callbacks it belongs behind those whose state it should hold.

    Args:
        every_n_train_steps: save also every so many optimiser steps.
        every_minutes: save also when the last one is so old, for long epochs; null: not. With several processes it is
            looked at when metrics are logged.
        signals: whether signals end the run in order.

    Attributes:
        requeue: whether SIGUSR1 puts a SLURM job back into the queue, after saving; for a command that resumes by
            itself.
    """

    def __init__(
        self, *, every_n_train_steps: int | None = None, every_minutes: float | None = 15.0, signals: bool = True
    ) -> None:
        super().__init__(
            filename="last",
            every_n_train_steps=every_n_train_steps,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )
        if every_minutes is not None and not every_minutes > 0:
            raise ValueError(f"every_minutes must be positive or null, got {every_minutes:g}")
        self.every_minutes = every_minutes
        self.signals = StopSignals() if signals else None
        self._wanted = False  # at the next chance
        self._saved_at = 0.0
        self._stop = False
        self._before_validation = False  # whether what is being saved is from before a validation
        self._to_validate = False  # whether the run was resumed from there, and has not validated yet
        self.requeue = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the folder, and clear away what a killed run left unfinished."""
        self.dirpath = self.dirpath or _folder(trainer)
        super().setup(trainer, pl_module, stage)
        protect(trainer)
        if stage == "fit" and trainer.is_global_zero:
            tidy(self.dirpath)
        self._place = Place(trainer.default_root_dir)

    def _find_last_checkpoints(self, trainer: Trainer) -> set[str]:
        self.dirpath = self.dirpath or _folder(trainer)  # `ckpt_path: last` is looked up before setup
        return super()._find_last_checkpoints(trainer)

    # When ----------------------------------------------------------------------------------------------------------

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to signals; Lightning has just put its own handlers in place."""
        self._listen(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; metrics of steps that the checkpoint knows nothing of will be written anew."""
        super().on_train_start(trainer, pl_module)
        self._listen(trainer)
        self._saved_at = time.monotonic()
        if trainer.ckpt_path is not None:
            _refuse_other_optimizer(trainer)
            for logger in trainer.loggers:
                forget = getattr(logger, "forget_from", None)
                if forget is not None:
                    forget(trainer.global_step, validation=self._to_validate)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save after an optimiser step where it is time, unless a validation is about to follow, which saves."""
        loop = trainer.fit_loop.epoch_loop
        if loop._should_accumulate():
            return
        self._stop = self.signals is not None and self.signals.agreed()
        validation = validation_follows(trainer)
        self._wanted |= self._is_time(trainer) or (loop.batch_progress.is_last_batch and not validates(trainer))
        if (self._stop or self._wanted) and not validation:
            self._write(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the state that was validated."""
        if trainer.sanity_checking:
            return
        self._wanted = True
        if not trainer.fit_loop.epoch_loop._should_accumulate():
            self._write(trainer)
            self._publish(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The step before is over and its metrics are written."""
        self._publish(trainer)
        self._end_if_told(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the state that is about to be validated."""
        if trainer.sanity_checking:
            return
        if self._to_validate:
            self._to_validate = False
            _count_validation(trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.__dict__, -1)
        elif not trainer.fit_loop.epoch_loop._should_accumulate():
            self._before_validation = True
            try:
                self._write(trainer)
            finally:
                self._before_validation = False
            self._last_global_step_saved = 0  # the same step is saved once more, validated
        if self._stop or not 0 <= trainer.max_steps <= trainer.global_step:
            self._publish(trainer)
        self._end_if_told(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Have Lightning begin with the validation where the state is from before it."""
        if self._before_validation:
            _count_validation(checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]["total"], 1)

    def state_dict(self) -> dict[str, Any]:
        """With whether a validation is still to come."""
        return {**super().state_dict(), "before_validation": self._before_validation}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember whether a validation is still to come."""
        self._to_validate = state_dict.get("before_validation", False)
        super().load_state_dict(state_dict)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so where the validation that was to come was left out."""
        if self._to_validate:
            rank_zero_warn(
                f"all {trainer.global_step} steps were made when the last validation failed, so a resumed run leaves "
                "it out: jepa-fit validate --ckpt_path last runs it"
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As at the start of a batch."""
        self._publish(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final state, wherever in the rhythm of validations the run ended."""
        self._write(trainer)
        self._publish(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keep what was written, and say so where there is some; save nothing of a run that has failed."""
        self._publish(trainer)
        last = Path(self.dirpath or _folder(trainer)) / "last.ckpt"
        if last.exists():
            exception.add_note(f"{last} is whole: --auto_resume true goes on from it.")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen no longer."""
        if self.signals is not None:
            self.signals.uninstall()

    def _listen(self, trainer: Trainer) -> None:
        if self.signals is not None and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.signals.install()

    def _end_if_told(self, trainer: Trainer) -> None:
        if self._stop and self.signals is not None and self.signals.received is not None:
            cluster = trainer._accelerator_connector.cluster_environment
            by_slurm = isinstance(cluster, SLURMEnvironment) and cluster.auto_requeue
            if self.requeue and by_slurm and trainer.is_global_zero and self.signals.received == signal.SIGUSR1:
                requeue_slurm()
            raise Interrupted(self.signals.received, self.best_model_path)

    def _is_time(self, trainer: Trainer) -> bool:
        step, every = trainer.global_step, self._every_n_train_steps
        if every and step % every == 0:
            return True
        if self.every_minutes is None or (trainer.world_size > 1 and not is_logged(trainer)):
            return False
        due = time.monotonic() - self._saved_at > 60 * self.every_minutes
        return due if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(due, all=False)

    # How -----------------------------------------------------------------------------------------------------------

    def _write(self, trainer: Trainer) -> None:
        """Write the checkpoint beside the earlier one."""
        self._wanted = False
        self._place.check()
        if self._should_skip_saving_checkpoint(trainer):
            return
        self._save_none_monitor_checkpoint(trainer, self._monitor_candidates(trainer))
        self._saved_at = time.monotonic()

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        require_finite(trainer, kept=filepath)
        trainer.save_checkpoint(_beside(filepath), self.save_weights_only)
        self._last_global_step_saved = trainer.global_step
        self._last_checkpoint_saved = filepath

    def _publish(self, trainer: Trainer) -> None:
        """Give what was written its name."""
        target = Path(self.best_model_path or "last.ckpt")
        if trainer.is_global_zero and _beside(target).exists():
            self._place.check()
            publish(_beside(target), target)
            for logger in trainer.loggers:
                logger.after_save_checkpoint(self)


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
        protect(trainer)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        require_finite(trainer, kept=filepath)
        super()._save_checkpoint(trainer, filepath)


def _refuse_other_optimizer(trainer: Trainer) -> None:
    """See that an optimiser's restored state is of its kind: torch takes any, and fails in the first step.

    Raises:
        ValueError: it is not.
    """
    for optimizer in trainer.optimizers:
        missing = sorted({key for group in optimizer.param_groups for key in optimizer.defaults.keys() - group.keys()})
        if missing:
            kind = type(getattr(optimizer, "optimizer", optimizer)).__name__
            raise ValueError(
                f"expected the state of an optimiser {kind} in {trainer.ckpt_path}, got another's (it has no "
                f"{', '.join(missing)}): resume with the model.optimizer that the run began with"
            )


def _count_validation(total: dict[str, int], change: int) -> None:
    """Count a validation batch as started and not done: by this Lightning knows that it was in the middle of one."""
    total["ready"] += change
    total["started"] += change


def validation_follows(trainer: Trainer) -> bool:
    """Whether Lightning will validate right after the batch that is being ended."""
    loop = trainer.fit_loop.epoch_loop
    return validates(trainer) and loop._should_check_val_fx(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]


def validates(trainer: Trainer) -> bool:
    """Whether there is anything to validate on."""
    batches = trainer.num_val_batches
    return bool(sum(batches) if isinstance(batches, list) else batches)


def _beside(path: str | Path) -> Path:
    """Where last.ckpt waits for its name: a name that `SafeCheckpointIO` writes to, too, by way of another."""
    return unfinished(Path(path))


def _folder(trainer: Trainer) -> str:
    return str(Path(trainer.default_root_dir) / "checkpoints")
