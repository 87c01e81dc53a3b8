"""Show a progress bar that reads the loss from the device only when it is drawn."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from jepa_lightning.names.shown import Shown

SHOWN = {"train/loss": "loss", "train/samples_per_second": "samples/s"}


class LossBar(Shown, TQDMProgressBar):
    """Show Lightning's progress bar with the loss and samples per second.

    Lightning reads a metric logged with `prog_bar=True` at the end of every batch, drawn or not: one host
    sync per step. This bar reads the metrics in `SHOWN` only when it is drawn.

    Args:
        refresh_rate: steps between two updates.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> from jepa_lightning.callbacks import LossBar
        >>> trainer = Trainer(max_steps=10, accelerator="cpu", logger=False, callbacks=[LossBar(refresh_rate=5)])
        >>> next(callback for callback in trainer.callbacks if isinstance(callback, LossBar))
        LossBar(refresh_rate=5)
    """

    def __init__(self, refresh_rate: int = 20) -> None:
        super().__init__(refresh_rate=refresh_rate)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return Lightning's metrics and the last logged values of `SHOWN`."""
        logged = trainer.callback_metrics
        shown = {label: float(logged[name]) for name, label in SHOWN.items() if name in logged}
        return {**super().get_metrics(trainer, pl_module), **shown}
