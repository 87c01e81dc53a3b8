"""Draw masks and features during a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from jepa_lightning.callbacks.transfer import transfer
from jepa_lightning.evaluation.pca import pca_colours
from jepa_lightning.modality import Batch
from jepa_lightning.module import JEPA
from jepa_lightning.names.shown import Shown
from jepa_lightning.pictures.files import write_pictures
from jepa_lightning.pictures.legend import FEATURES_LEGEND, Legend
from jepa_lightning.pretexts.trajectories import frames
from jepa_lightning.run.loggers import log_pictures
from jepa_lightning.targets import represent


class Pictures(Shown, Callback):
    """Write pictures of a few fixed samples to `pictures/` in the run's folder.

    `masks.png` shows context and targets at the start of training. `features_STEP.png`, before training and at each
    validation, shows the first three principal components of the token features as colours, for the evaluated encoder
    (`Target.evaluated`). Loggers that take pictures get them, too. The modality draws; if it draws nothing, there is no
    cost. Video is written twice: as a GIF with samples side by side, and as a PNG with a strip of at most eight frames
    for each of the first three samples.

    Args:
        samples: number of samples, the first of the validation set.
        enabled: False disables the callback.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from jepa_lightning.callbacks import Pictures
        >>> trainer = Trainer(max_steps=10, accelerator="cpu", logger=False, callbacks=[Pictures(samples=3)])
        >>> next(callback for callback in trainer.callbacks if isinstance(callback, Pictures))
        Pictures(samples=3)
    """

    def __init__(self, *, samples: int = 6, enabled: bool = True) -> None:
        self.samples = samples
        self.enabled = enabled
        self._batch: Batch | None = None

    def on_train_start(self, trainer: Trainer, pl_module: JEPA) -> None:  # type: ignore[override]
        """Select the samples, draw masks and the untrained features."""
        data: Any = getattr(trainer, "datamodule", None)
        applies = data is not None and self.enabled and isinstance(pl_module, JEPA)
        loader = data.val_dataloader() if applies else None
        if not loader:
            return
        batch = transfer(trainer, first(frames(next(iter(loader))), self.samples))
        with torch.no_grad():
            tokens = pl_module.tokenizer(batch)
            generator = pl_module.mask_generator("pictures", 0, 0)
            masks = pl_module.pretext.masks(pl_module.networks, tokens, generator)
        self._batch = batch
        drawn = pl_module.modality.draw_masks(batch, masks) if masks else None
        self._write(trainer, "masks", drawn, pl_module.modality.masks_legend)
        self._draw_features(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: JEPA) -> None:  # type: ignore[override]
        """Draw the current features."""
        if not trainer.sanity_checking:
            self._draw_features(trainer, pl_module)

    @torch.no_grad()
    def _draw_features(self, trainer: Trainer, pl_module: JEPA) -> None:
        if self._batch is None:
            return
        with trainer.precision_plugin.forward_context():
            tokens = pl_module.tokenizer(self._batch)
            features = represent(pl_module.evaluated_encoder, tokens)
        colours = pca_colours(features, tokens.valid)
        pictures = pl_module.modality.draw_features(self._batch, tokens, colours)
        when = f"At step {trainer.global_step}" if trainer.global_step else "Before training"
        self._write(trainer, f"features_{trainer.global_step:06d}", pictures, f"{FEATURES_LEGEND} {when}.")

    @rank_zero_only
    def _write(self, trainer: Trainer, name: str, pictures: list[Tensor] | None, legend: str) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        files = write_pictures(pictures, Path(trainer.default_root_dir) / "pictures", name, Legend(legend))
        log_pictures(trainer.loggers, files, name=f"pictures/{name.partition('_')[0]}", step=trainer.global_step)


def first(batch: Batch, samples: int) -> Batch:
    """Return the first samples of a batch, slicing every tensor and list in it."""

    def cut(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: cut(part) for key, part in value.items()}
        return value if isinstance(value, str) or not hasattr(value, "__getitem__") else value[:samples]

    return cut(batch)
