"""Whether a run's folder holds a run to go on with."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from jepa_lightning.checkpoint_io import tidy
from jepa_lightning.sharded import is_sharded, read_rest


class Earlier(Enum):
    """What is in a run's folder: nothing to go on with, a run that was cut short, or one that reached its end."""

    NONE = "none"
    UNFINISHED = "unfinished"
    FINISHED = "finished"


def earlier_run(trainer: Trainer) -> tuple[Earlier, Path]:
    """What the trainer's folder holds, and the path of its last checkpoint.

    A run is finished when it closed with a `summary.json` and has made all the steps that the trainer asks for now:
    with more `max_epochs` or `max_steps` than before it is unfinished again.
    """
    folder = Path(trainer.default_root_dir)
    last = folder / "checkpoints" / "last.ckpt"
    if trainer.is_global_zero and last.parent.is_dir():
        tidy(last.parent)  # which may bring last.ckpt back
    if not last.exists():
        return Earlier.NONE, last
    closed = (folder / "summary.json").is_file()
    return Earlier.FINISHED if closed and _at_end(trainer, _read(last)) else Earlier.UNFINISHED, last


def _read(path: Path) -> dict[str, Any]:
    if is_sharded(path):
        return read_rest(path)
    return torch.load(path, map_location="cpu", mmap=True, weights_only=True)  # which reads no weights


def _at_end(trainer: Trainer, checkpoint: dict[str, Any]) -> bool:
    if 0 <= trainer.max_steps <= checkpoint["global_step"]:
        return True
    epochs = trainer.max_epochs
    if epochs is None or epochs < 0:
        return False
    loop = checkpoint["loops"]["fit_loop"]
    progress, batches = loop["epoch_progress"]["current"], loop["epoch_loop.batch_progress"]
    return progress["processed"] >= epochs or (progress["ready"] >= epochs and batches["is_last_batch"])
