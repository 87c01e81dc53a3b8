"""The last state of a run, kept so that it can be resumed."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from jepa_lightning.callbacks.non_finite import require_finite
from jepa_lightning.config.shown import Shown
from jepa_lightning.optimization import is_accumulating, is_logged
from jepa_lightning.run.checkpoint_io import protect, publish, tidy
from jepa_lightning.run.folder import Place
from jepa_lightning.run.interruption import Interrupted, StopSignals, requeue_slurm, requeues
from jepa_lightning.run.resume import refuse_other_optimizer
from jepa_lightning.run.writing import unfinished


class LastCheckpoint(Shown, Checkpoint):
    """Keeps `checkpoints/last.ckpt` in the run's folder, so that a resumed run goes on as if nothing had happened.

    It is saved before and after each validation (after each epoch of a run that has none), every so often, and when
    training ends. Nothing that fails in a validation loses the steps before it: a resumed run begins with it.

    It is always the state between two optimiser steps, and it is written in two moves: whole beside the earlier one
    when the step is done, and under its name once the metrics of that step are written. So a kill at any moment loses
    no row of metrics and repeats none. Weights that are not finite never replace it. Before the validation after the
    very last of `max_steps`, it gets its name only when that validation fails: a run without steps to go validates no
    more.

    SIGTERM, SIGUSR1 and Ctrl-C save it after the present step and end the run (`Interrupted`); see
    `jepa_lightning.run.interruption`. In a list of callbacks it belongs behind those whose state it should hold.

    From Python, resume by the path of last.ckpt: Lightning looks up `ckpt_path="last"` for callbacks of its own alone.
    A new run is refused in a folder that has another's.

    Args:
        every_n_train_steps: save also every so many optimiser steps; null or 0: not.
        every_minutes: save also when the last one is so old, for long epochs; null: not. With several processes it is
            looked at when metrics are logged.
        signals: whether signals end the run in order.

    Attributes:
        requeue: whether SIGUSR1 puts a SLURM job back into the queue, after saving; for a command that resumes by
            itself.
        best_model_path: of last.ckpt once it was written, by the name under which Lightning and its loggers ask.

    Example:
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
        """Choose the folder, and clear away what a killed run left unfinished."""
        self._path = last_path(trainer)
        protect(trainer)
        if stage == "fit" and trainer.is_global_zero:
            tidy(self._path.parent)
        self._place = Place(trainer.default_root_dir)

    # When ----------------------------------------------------------------------------------------------------------

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to signals; Lightning has just put its own handlers in place."""
        self._listen(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; metrics of steps that the checkpoint knows nothing of will be written anew.

        Raises:
            ValueError: the run begins anew and the folder holds another's last.ckpt, or what is resumed is of another
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
        """Save after an optimiser step where it is time; where a validation follows, it saves once more."""
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
        """The step before is over and its metrics are written."""
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
        """Have Lightning begin with the validation where the state is from before it."""
        if self._before_validation:
            _count_validation(checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]["total"], 1)

    def state_dict(self) -> dict[str, Any]:
        """Whether a validation is still to come."""
        return {"before_validation": self._before_validation}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As `state_dict`."""
        self._to_validate = state_dict.get("before_validation", False)

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
        if self._saved_step:
            self._publish(trainer)
        if (last := last_path(trainer)).exists():  # what has failed may have been the setup
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
        """Write the checkpoint beside the earlier one; `again` also where this step was saved."""
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
        """Give what was written its name."""
        if trainer.is_global_zero and _beside(self._path).exists():
            self._place.check()
            publish(_beside(self._path), self._path)
            for logger in trainer.loggers:
                logger.after_save_checkpoint(self)  # type: ignore[arg-type]


def _count_validation(total: dict[str, int], change: int) -> None:
    """Count a validation batch as started and not done: by this Lightning knows that it was in the middle of one."""
    total["ready"] += change
    total["started"] += change


def in_training(trainer: Trainer) -> bool:
    """Whether this is no sanity check and no `Trainer.validate`."""
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


def _validates(trainer: Trainer) -> bool:
    """Whether there is anything to validate on."""
    batches = trainer.num_val_batches
    return bool(sum(batches) if isinstance(batches, list) else batches)


def _beside(path: str | Path) -> Path:
    """Where last.ckpt waits for its name: a name that `SafeCheckpointIO` writes to, too, by way of another."""
    return unfinished(Path(path))


def last_path(trainer: Trainer) -> Path:
    """Where last.ckpt lies."""
    return Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
