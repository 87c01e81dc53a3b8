"""Keep the best checkpoint of a run, by the online probe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info

from jepa_lightning.callbacks.checkpoint import in_training, last_path
from jepa_lightning.callbacks.non_finite import require_finite
from jepa_lightning.callbacks.probe import OnlineProbe
from jepa_lightning.names.shown import Shown
from jepa_lightning.run.checkpoint_io import protect


class BestCheckpoint(Shown, ModelCheckpoint):
    """Keep `checkpoints/best.ckpt` in the run's folder.

    Best is the highest `probe/linear` if the data have classes (a falling loss proves nothing in a JEPA), or the
    highest `probe/r2_NAME` of its first continuous label; without labels, the lowest `val/loss`. A run whose validation
    logs neither, as of `Views` without labels and regularizers, has no best checkpoint, which a line says.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> from jepa_lightning.callbacks import BestCheckpoint
        >>> trainer = Trainer(max_steps=10, accelerator="cpu", logger=False, callbacks=[BestCheckpoint()])
        >>> next(callback for callback in trainer.callbacks if isinstance(callback, BestCheckpoint))
        BestCheckpoint()
    """

    def __init__(self) -> None:
        self._told = False
        super().__init__(
            filename="best",
            monitor="val/loss",
            save_on_train_epoch_end=False,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Set the folder, and the metric to monitor."""
        self.dirpath = self.dirpath or str(last_path(trainer).parent)
        probes = [c for c in trainer.callbacks if isinstance(c, OnlineProbe)]  # type: ignore[attr-defined]
        metric = next(filter(None, (probe.main_metric(trainer) for probe in probes)), None)
        if metric is not None:
            self.monitor, self.mode, self.kth_value = metric, "max", torch.tensor(-torch.inf)
        super().setup(trainer, pl_module, stage)
        protect(trainer)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best score so far if best.ckpt lies in the folder, which may have been moved or copied."""
        folder = Path(str(self.dirpath))
        if not (folder / "best.ckpt").exists():
            return
        here = {"dirpath": self.dirpath}
        for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
            here[name] = _in(folder, state_dict.get(name, ""))
        models = {_in(folder, path): score for path, score in state_dict.get("best_k_models", {}).items()}
        super().load_state_dict({**state_dict, **here, "best_k_models": models})

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if the score is the best so far.

        Raises:
            Fault: the weights are not finite.
        """
        if not in_training(trainer):
            return
        if self.monitor not in trainer.callback_metrics:
            if not self._told:
                rank_zero_info(
                    f"No best checkpoint is kept, only the last: validation logs no {self.monitor}. Give labelled data "
                    "to probe with or, for a loss on single views, set model.regularizers"
                )
            self._told = True
            return
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            require_finite(trainer, kept=f"{self.dirpath}/best.ckpt")
        super().on_validation_end(trainer, pl_module)


def _in(folder: Path, path: str) -> str:
    """Give the path of a file of that name in the folder."""
    return str(folder / Path(path).name) if path else ""
