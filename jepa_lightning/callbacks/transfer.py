"""Batches of a callback's own, brought to where the model is."""

from __future__ import annotations

from lightning.pytorch import Trainer

from jepa_lightning.modality import Batch


def transfer(trainer: Trainer, batch: Batch) -> Batch:
    """A batch as the trainer's loops hand it to the module: in its precision (16-true, bf16-true) and on its device."""
    batch = trainer.precision_plugin.convert_input(batch)
    return trainer.strategy.batch_to_device(batch, trainer.strategy.root_device)
