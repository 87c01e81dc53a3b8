"""What is wrong with the trainer's settings that Lightning does not say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def check_trainer(trainer: Mapping[str, Any]) -> None:
    """Refuse numbers that Lightning takes and fails by, or that make training climb.

    Raises:
        ValueError: one is out of its range.
    """
    for name in ("accumulate_grad_batches", "check_val_every_n_epoch"):
        value = trainer.get(name)
        if isinstance(value, int) and value < 1:
            raise ValueError(f"expected trainer.{name} of at least 1, got {value}")
    clip = trainer.get("gradient_clip_val")
    if clip is not None and not clip >= 0:
        raise ValueError(f"expected trainer.gradient_clip_val of at least 0 (null: no clipping), got {clip}")
