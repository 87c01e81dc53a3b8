"""Keep the last checkpoint of a run, so that it can be resumed."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from jepa_lightning.callbacks.non_finite import require_finite
from jepa_lightning.names.shown import Shown
from jepa_lightning.optimization import is_accumulating, is_logged
from jepa_lightning.run.checkpoint_io import protect, publish, tidy
from jepa_lightning.run.folder import Place
from jepa_lightning.run.interruption import Fault, StopSignals, requeues
from jepa_lightning.run.resume import refuse_other_optimizer
from jepa_lightning.run.signals import Interrupted, requeue_slurm
from jepa_lightning.run.writing import unfinished


class LastCheckpoint(Shown, Checkpoint):
    """Keep `checkpoints/last.ckpt` in the run's folder, so that the run resumes exactly.

    It is saved before and after each validation (after each epoch in a run without validation), at the given
    intervals, and when training ends. A failing validation loses no steps: a resumed run begins with that validation.

    It always holds the state between two optimiser steps. It is first written completely under another name when the
    step is done, and renamed once the metrics of that step are written. So a kill at any moment loses
    no row of metrics and repeats none. Non-finite weights never replace it. Before the validation after the
    last of `max_steps`, it is renamed only if that validation fails, since a run without remaining steps does not
    validate again.

    SIGTERM, SIGUSR1 and Ctrl-C save it after the current step and end the run (`Interrupted`); see
    `jepa_lightning.run.interruption`. In a list of callbacks, put it after those whose state it should hold.

    From Python, resume with the path of last.ckpt: Lightning supports `ckpt_path="last"` only for its own callbacks.
    A new run is refused in a folder that holds another run's last.ckpt.

    Args:
        every_n_train_steps: also save every n optimiser steps; null or 0 disables.
        every_minutes: also save when the last checkpoint is this old, for long epochs; null disables. With several
            processes this is checked when metrics are logged.
        signals: whether signals save a checkpoint and end the run.

    Attributes:
        requeue: whether SIGUSR1 requeues a SLURM job after saving; for a command that resumes by itself.
        best_model_path: path of last.ckpt once written; Lightning and its loggers read this name.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> from jepa_lightning.callbacks import LastCheckpoint
        >>> callbacks = [LastCheckpoint(every_n_train_steps=100)]
        >>> trainer = Trainer(max_steps=10, accelerator="cpu", logger=False, callbacks=callbacks)
        >>> next(callback for callback in trainer.callbacks if isinstance(callback, LastCheckpoint))
        LastCheckpoint(every_n_train_steps=100)
    """

    best_model_score = None  # Lightning's loggers ask for these
    save_top_k = 1

    def __init__(
        self, *, every_n_train_steps: int | None = None, every_minutes: float | None = 15.0, signals: bool = True
    ) -> None:
        if every_n_train_steps is not None and every_n_train_steps < 0:
            raise ValueError(f"every_n_train_steps must be positive or null, got {every_n_train_steps}")
        if every_minutes is not None and not every_minutes > 0:
            raise ValueError(f"every_minutes must be positive or null, got {every_minutes:g}")
        self.every_n_train_steps = every_n_train_steps
        self.every_minutes = every_minutes
        self.signals = StopSignals() if signals else None
        self.requeue = False
        self.best_model_path = ""
        self._wanted = False  # at the next step
        self._saved_step = 0  # nothing is saved before the first
        self._saved_at = 0.0
        self._stop = False
        self._before_validation = False  # whether what is being saved is from before a validation
        self._to_validate = False  # whether the run was resumed from there, and has not validated yet

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Set the folder, and remove partial files of a killed run."""
        self._path = last_path(trainer)
        protect(trainer)
        if stage == "fit" and trainer.is_global_zero:
            tidy(self._path.parent)
        self._place = Place(trainer.default_root_dir)

    # When ----------------------------------------------------------------------------------------------------------

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the signal handlers, after Lightning has installed its own."""
        self._listen(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the timer, and drop the metrics of steps after the checkpoint.

        Raises:
            ValueError: a new run in a folder that holds another run's last.ckpt, or a resumed run with another
                optimiser.
        """
        self._listen(trainer)
        self._saved_at = time.monotonic()
        if trainer.ckpt_path is not None:
            refuse_other_optimizer(trainer)
            for logger in trainer.loggers:
                forget = getattr(logger, "forget_from", None)
                if forget is not None:
                    forget(trainer.global_step, validation=self._to_validate)
        elif self._path.exists() and not self.best_model_path and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            raise ValueError(
                f"expected a folder without a run, or a checkpoint to resume from, got {self._path} of an earlier run: "
                f"give Trainer.fit ckpt_path={str(self._path)!r}, or the Trainer another default_root_dir"
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save after an optimiser step when due; a validation that follows saves once more."""
        if is_accumulating(trainer):
            return
        self._stop = self.signals is not None and self.signals.agreed()
        at_end = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch and not _validates(trainer)
        if self._is_time(trainer) or at_end or self._stop or self._wanted:
            self._write(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the state that was validated."""
        if not in_training(trainer):
            return
        self._wanted = True
        if not is_accumulating(trainer):
            self._write(trainer, again=True)
            self._publish(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Rename the checkpoint: the metrics of the previous step are written."""
        self._publish(trainer)
        self._end_if_told(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the state that is about to be validated."""
        if not in_training(trainer):
            return
        if self._to_validate:
            self._to_validate = False
            _count_validation(trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.__dict__, -1)
        elif not is_accumulating(trainer):
            self._before_validation = True
            try:
                self._write(trainer, again=True)
            finally:
                self._before_validation = False
        if self._stop or not 0 <= trainer.max_steps <= trainer.global_step:
            self._publish(trainer)
        self._end_if_told(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let Lightning begin with the validation if the state is from before it."""
        if self._before_validation:
            _count_validation(checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]["total"], 1)

    def state_dict(self) -> dict[str, Any]:
        """Return whether a validation is still due."""
        return {"before_validation": self._before_validation}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore whether a validation is still due."""
        self._to_validate = state_dict.get("before_validation", False)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn if the validation that was due is skipped."""
        if self._to_validate:
            rank_zero_warn(
                f"all {trainer.global_step} steps were made when the last validation failed, so a resumed run skips "
                "it: jepa-fit validate --ckpt_path last runs it"
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Rename the checkpoint, as at the start of a batch."""
        self._publish(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final state."""
        self._write(trainer)
        self._publish(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keep the last checkpoint and name it; save nothing of a run that has failed. Remove the signal handlers.

        They go here, since Lightning gives them back only if nothing else fails while it ends the run: a dead data
        worker raises its error anew whenever another one ends.
        """
        if self.signals is not None:
            self.signals.uninstall()
        if self._saved_step:
            with suppress(Fault):  # the run's folder is gone
                self._publish(trainer)
        if (last := last_path(trainer)).exists():  # the setup may have failed
            exception.add_note(f"{last} is complete: --auto_resume true resumes from it.")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remove the signal handlers."""
        if self.signals is not None:
            self.signals.uninstall()

    def _listen(self, trainer: Trainer) -> None:
        if self.signals is not None and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.signals.install()

    def _end_if_told(self, trainer: Trainer) -> None:
        if self._stop and self.signals is not None and self.signals.received is not None:
            told = self.requeue and self.signals.received == signal.SIGUSR1
            if told and trainer.is_global_zero and requeues(trainer.strategy):
                requeue_slurm()
            raise Interrupted(self.signals.received, self.best_model_path)

    def _is_time(self, trainer: Trainer) -> bool:
        step, every = trainer.global_step, self.every_n_train_steps
        if every and step % every == 0:
            return True
        if self.every_minutes is None or (trainer.world_size > 1 and not is_logged(trainer)):
            return False
        due = time.monotonic() - self._saved_at > 60 * self.every_minutes
        return due if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(due, all=False)

    # How -----------------------------------------------------------------------------------------------------------

    def _write(self, trainer: Trainer, *, again: bool = False) -> None:
        """Write the checkpoint beside the earlier one; with `again`, also if this step was saved."""
        self._wanted = False
        self._place.check()
        if trainer.fast_dev_run or (self._saved_step == trainer.global_step and not again):  # type: ignore[attr-defined]
            return
        self.best_model_path = str(self._path)
        require_finite(trainer, kept=self.best_model_path)
        trainer.save_checkpoint(_beside(self._path))
        self._saved_step = trainer.global_step
        self._saved_at = time.monotonic()

    def _publish(self, trainer: Trainer) -> None:
        """Rename the checkpoint just written to last.ckpt."""
        if trainer.is_global_zero and _beside(self._path).exists():
            self._place.check()
            publish(_beside(self._path), self._path)
            for logger in trainer.loggers:
                logger.after_save_checkpoint(self)  # type: ignore[arg-type]


def _count_validation(total: dict[str, int], change: int) -> None:
    """Count a validation batch as started and not done, which tells Lightning that a validation was under way."""
    total["ready"] += change
    total["started"] += change


def in_training(trainer: Trainer) -> bool:
    """Return whether this is neither a sanity check nor `Trainer.validate`."""
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


def _validates(trainer: Trainer) -> bool:
    """Return whether there are validation batches."""
    batches = trainer.num_val_batches
    return bool(sum(batches) if isinstance(batches, list) else batches)


def _beside(path: str | Path) -> Path:
    """Return the temporary path of last.ckpt, to which `SafeCheckpointIO` also writes by way of another."""
    return unfinished(Path(path))


def last_path(trainer: Trainer) -> Path:
    """Return the path of last.ckpt."""
    return Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
