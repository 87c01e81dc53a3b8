"""Log samples per second during a run, and write a table and summary.json at its end."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from jepa_lightning.callbacks.best_checkpoint import BestCheckpoint
from jepa_lightning.callbacks.collapse import outcome_of
from jepa_lightning.callbacks.header import header
from jepa_lightning.callbacks.probe import OnlineProbe
from jepa_lightning.callbacks.verdict import progress
from jepa_lightning.evaluation.report.table import table as columns
from jepa_lightning.module import JEPA
from jepa_lightning.names.printable import say
from jepa_lightning.names.shown import Shown
from jepa_lightning.optimization import is_logged
from jepa_lightning.run.loggers import log_summary

LOGGED = {
    "train_loss": "train/loss",
    "effective_rank": "collapse/effective_rank",
    "feature_std": "collapse/std",
    "knn": "probe/knn",
    "knn_untrained": "probe/knn_untrained",
    "linear": "probe/linear",
    "linear_untrained": "probe/linear_untrained",
}


class RunSummary(Shown, Callback):
    """Log samples per second, and end a run with a table and `summary.json` in its folder (not of `fast_dev_run`).

    The summary is a flat object: modality, steps, seconds, samples_per_second, train_loss, effective_rank, feature_std,
    knn, knn_untrained, linear, linear_untrained (accuracies 0-1), checkpoint; and for each continuous label r2_NAME and
    r2_NAME_untrained. Values that the run does not have are null.
    `seconds` is the wall time of fit. Samples per second counts the samples of all ranks and only the time of training
    batches, not of validation.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from jepa_lightning.callbacks import RunSummary
        >>> trainer = Trainer(max_steps=10, accelerator="cpu", logger=False, callbacks=[RunSummary()])
        >>> next(callback for callback in trainer.callbacks if isinstance(callback, RunSummary))
        RunSummary()
    """

    def __init__(self) -> None:
        self.summary: dict[str, Any] = {}
        self._start = self._window_start = 0.0
        self._samples = self._window_samples = 0
        self._training_seconds = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: JEPA) -> None:  # type: ignore[override]
        """Start the clock."""
        self._start = time.perf_counter()
        self._samples = self._window_samples = 0
        self._training_seconds = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: JEPA) -> None:  # type: ignore[override]
        """Say what the run will do, and start counting samples."""
        if isinstance(pl_module, JEPA):
            rank_zero_info(header(trainer, pl_module))
        self._window_start = time.perf_counter()

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: JEPA, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count samples; log the rate at logging steps."""
        self._window_samples += _samples(outputs, batch) * trainer.world_size
        if is_logged(trainer):
            rate = self._window_samples / max(time.perf_counter() - self._window_start, 1e-9)
            pl_module.log("train/samples_per_second", rate, batch_size=1)
            self._close_window()

    def on_validation_start(self, trainer: Trainer, pl_module: JEPA) -> None:  # type: ignore[override]
        """Stop counting: validation is not training."""
        self._close_window()

    def on_validation_end(self, trainer: Trainer, pl_module: JEPA) -> None:  # type: ignore[override]
        """Say what the probes found, and resume counting."""
        if not trainer.sanity_checking and trainer.is_global_zero:
            found = progress(trainer.current_epoch, {k: float(v) for k, v in trainer.callback_metrics.items()})
            if found is not None:
                rank_zero_info(found)
        self._window_start = time.perf_counter()

    def _close_window(self) -> None:
        now = time.perf_counter()
        if self._window_samples:
            self._training_seconds += now - self._window_start
            self._samples += self._window_samples
        self._window_start, self._window_samples = now, 0

    def on_fit_end(self, trainer: Trainer, pl_module: JEPA) -> None:  # type: ignore[override]
        """Print the table and write the file, unless no step was made: an earlier summary says more."""
        self._close_window()
        if not self._samples:
            return
        numbers = {name: float(value) for name, value in trainer.callback_metrics.items()}
        metrics = {name: value for name, value in numbers.items() if math.isfinite(value)}  # JSON has no NaN
        self.summary = {
            "modality": getattr(getattr(pl_module, "modality", None), "name", None),
            "steps": trainer.global_step,
            "seconds": round(time.perf_counter() - self._start, 2),
            "samples_per_second": round(self._samples / self._training_seconds, 2) if self._samples else None,
            **{name: metrics.get(logged) for name, logged in LOGGED.items()},
            "checkpoint": _last_checkpoint(trainer),
            **{name.removeprefix("probe/"): value for name, value in metrics.items() if name.startswith("probe/r2_")},
        }
        self._close(trainer)

    @rank_zero_only
    def _close(self, trainer: Trainer) -> None:
        path = Path(trainer.default_root_dir) / "summary.json"
        written = ""
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self.summary, indent=2) + "\n")
            written = f"\nsummary            {path}"
        log_summary(trainer.loggers, self.summary, step=trainer.global_step)
        module = trainer.lightning_module
        closing = f"\n\n{self._closing(trainer, module)}" if isinstance(module, JEPA) else ""
        say(f"{table(self.summary)}{written}{closing}")

    def _closing(self, trainer: Trainer, module: JEPA) -> str:
        """Say in sentences what the table's first rows mean, and what to type next."""
        folder, callbacks = trainer.default_root_dir, trainer.callbacks  # type: ignore[attr-defined]
        probe = next((c for c in callbacks if isinstance(c, OnlineProbe)), None)
        probed = None if probe is None else probe.probed
        trained, untrained = self.summary["linear"], self.summary["linear_untrained"]
        lines = []
        if probe is None or not probe.applies(trainer):
            lines.append("No probe: it is switched off, or there are no validation data, or no labels in both parts.")
        elif not any(name.startswith(("probe/", "val/")) for name in trainer.callback_metrics):
            lines.append("No probe: the run ended before its first validation.")
        elif probed is None and not any(name.startswith("r2_") for name in self.summary):
            lines.append(
                "No probe: no label is known in both the training and the validation data, or R2 is not defined, for "
                "its validation values are all the same."
            )
        elif probed is not None and None not in (trained, untrained):
            lines += [str(probed), f"linear probe of the last weights: {probed.verdict(trained, untrained)}"]
            best = next((c for c in callbacks if isinstance(c, BestCheckpoint)), None)
            score = best.best_model_score if best is not None and best.monitor == "probe/linear" else None
            if best is not None and score is not None and float(score) > trained:
                verdict = probed.verdict(float(score), untrained)
                lines.append(f"linear probe of {best.best_model_path}, which was chosen by it: {verdict}")
        if self.summary["checkpoint"] is None:
            return "\n".join(lines)
        plans = f"jepa-plan {folder} plans with it; " if module.pretext.action_dim is not None else ""
        kept = any(isinstance(c, BestCheckpoint) and c.best_model_path for c in callbacks)
        also = f"; jepa-probe {folder} --which best the best checkpoint" if kept else ""
        return "\n".join([*lines, f"next: {plans}jepa-probe {folder} evaluates it{also}"])


def _samples(outputs: Any, batch: Any) -> int:
    """Samples of a batch: a JEPA's outcome knows, of another module's step the batch says."""
    outcome = outcome_of(outputs)
    return outcome.batch_size if outcome is not None else len(batch["id"] if isinstance(batch, dict) else batch)


def _last_checkpoint(trainer: Trainer) -> str | None:
    written = [getattr(c, "best_model_path", "") for c in trainer.checkpoint_callbacks]
    return next((path for path in written if Path(path).name == "last.ckpt"), next(filter(None, written), None))


def table(summary: dict[str, Any]) -> str:
    """The summary for a person: probes beside their untrained twins."""

    def show(value: Any) -> str:
        return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

    regressions = [name for name in summary if name.startswith("r2_") and not name.endswith("_untrained")]
    probes = ["knn", "linear", *regressions]
    rows = []
    for name in probes:
        trained, untrained = summary[name], summary.get(f"{name}_untrained")
        difference = None if trained is None or untrained is None else trained - untrained
        cells = ["-" if v is None else f"{v:.3f}" for v in (trained, untrained)]
        rows.append([f"{name:<18}", *cells, "-" if difference is None else f"{difference:+.3f}"])
    rest = [name for name in summary if name.removesuffix("_untrained") not in probes]
    probed = columns(("probe", "trained", "untrained", "difference"), rows)
    return "\n".join(["", probed, "", *(f"{name:<18} {show(summary[name])}" for name in rest)])
