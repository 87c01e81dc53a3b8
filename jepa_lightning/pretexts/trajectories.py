"""Batches of trajectories: T observations and the T - 1 actions between them.

A batch with `actions` (B, T - 1, A) holds trajectories. All its other tensors (the modality's own key, labels) have T
entries a sample: observation t, action t, observation t + 1.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from jepa_lightning.modality import Batch


def trajectory_length(batch: Batch) -> int:
    """T, the observations of each trajectory.

    Raises:
        ValueError: the batch has no actions, or they have not two axes after the batch's.
    """
    actions = batch.get("actions")
    if not isinstance(actions, Tensor) or actions.ndim != 3:
        got = sorted(batch) if actions is None else f"actions {tuple(getattr(actions, 'shape', ()))}"
        raise ValueError(f"expected a batch of trajectories with actions (B, T - 1, A), got {got}: use TrajectoryData")
    return actions.shape[1] + 1


def frames(batch: Batch) -> Batch:
    """The observations of all trajectories as samples of their own, (B, T, ...) to (B T, ...).

    Labels come along, `id` is the trajectory's with the number of the observation, and actions are left out. A batch
    without actions is one of single samples, and stays as it is.

    Raises:
        ValueError: an entry does not have T observations.

    Examples:
        >>> import torch
        >>> from jepa_lightning.pretexts.trajectories import frames
        >>> batch = {"image": torch.zeros(2, 3, 1, 8, 8), "actions": torch.zeros(2, 2, 5), "id": ["a", "b"]}
        >>> frames(batch)["image"].shape, frames(batch)["id"][:4]
        (torch.Size([6, 1, 8, 8]), ['a[0]', 'a[1]', 'a[2]', 'b[0]'])
    """
    if "actions" not in batch:
        return batch
    length = trajectory_length(batch)

    def fold(name: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: fold(key, part) for key, part in value.items()}
        if not isinstance(value, Tensor):
            return value
        if value.ndim < 2 or value.shape[1] != length:
            raise ValueError(
                f"expected {name!r} with {length} observations a trajectory, one more than actions, got the shape "
                f"{tuple(value.shape)}"
            )
        return value.flatten(0, 1)

    folded = {name: fold(name, value) for name, value in batch.items() if name not in ("actions", "id")}
    if "id" in batch:
        folded["id"] = [f"{name}[{t}]" for name in batch["id"] for t in range(length)]
    return folded


def first_observations(batch: Batch) -> Batch:
    """The first observation of each trajectory as a sample of its own, without actions: (B, T, ...) to (B, ...).

    A batch without actions stays as it is.
    """
    if "actions" not in batch:
        return batch
    length = trajectory_length(batch)
    every = frames({name: value for name, value in batch.items() if isinstance(value, Tensor | dict)})

    def first(value: Any) -> Any:
        return {key: first(part) for key, part in value.items()} if isinstance(value, dict) else value[::length]

    return {name: first(every[name]) if name in every else value for name, value in batch.items() if name != "actions"}
