"""Checkpoints that are whole or not there: written beside, flushed to the disk, then renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Trainer

from jepa_lightning.run.sharded import is_sharded, read_sharded
from jepa_lightning.run.writing import UNFINISHED, replacing

REPLACED = ".replaced"  # ends the name of a folder that is about to be deleted


class SafeCheckpointIO(TorchCheckpointIO):
    """Reads a checkpoint in one file or in shards; writes one file beside the older one and renames it.

    `last.ckpt` is written as `.last.ckpt.unfinished` in the same folder.
    Lightning's own goes through a file in the system's temporary folder: where that is another disk, what should be a
    rename is a copy, which a kill cuts short. It also holds a second copy of the checkpoint in memory. Checkpoints in
    shards are written by their strategy.
    """

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint; shards are joined."""
        return read_sharded(Path(path)) if is_sharded(Path(path)) else super().load_checkpoint(path, *args, **kwargs)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint; whatever was at `path` stays until the new one is complete.

        Raises:
            OSError: it could not be written; nothing is left of it, and the one before is whole.
        """
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target, move=publish) as beside, open(beside, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())


def protect(trainer: Trainer) -> None:
    """Give the trainer's strategy a `SafeCheckpointIO`, unless someone chose another than Lightning's default."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = SafeCheckpointIO()


def publish(beside: Path, target: Path) -> None:
    """Rename the file or folder `beside` to `target`, over what is there.

    A file is replaced at one blow. A folder cannot be: the old one is moved away first, and `tidy` brings it back
    should the process end just between.
    """
    old = target.with_name(f".{target.name}{REPLACED}")
    if target.is_dir() or (beside.is_dir() and target.exists()):
        remove(old)
        os.replace(target, old)
    os.replace(beside, target)
    with contextlib.suppress(OSError):  # not all file systems let a folder be flushed
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    remove(old)


def tidy(folder: str | Path) -> list[Path]:
    """Put the folder of checkpoints of a run that was killed in order.

    Returns:
        What was deleted: files and folders that were never finished, or replaced.
    """
    folder = Path(folder)
    for old in folder.glob(f".*{REPLACED}"):
        target = folder / old.name[1 : -len(REPLACED)]
        if not target.exists():
            os.replace(old, target)
    leftovers = [*folder.glob(f".*{UNFINISHED}"), *folder.glob(f".*{REPLACED}")]
    for path in leftovers:
        remove(path)
    return leftovers


def remove(path: Path) -> None:
    """Delete a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
