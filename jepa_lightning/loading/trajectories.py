"""The data of a run on trajectories."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from jepa_lightning.config.rebuild import build_data
from jepa_lightning.data.trajectories import TrajectoryData
from jepa_lightning.modality import Modality


def trajectory_data(
    config: Mapping[str, Any] | None, modality: Modality, trust: Collection[str], overrides: Mapping[str, Any]
) -> TrajectoryData:
    """The data module of a run's configuration.

    Raises:
        ValueError: there is none in it, or it is not one of trajectories.
    """
    stored = (config or {}).get("data")
    if not isinstance(stored, dict) or "class_path" not in stored:
        raise ValueError("expected the run's config.yaml beside its checkpoints, found none with data in it")
    data = build_data(stored, overrides, modality, trust=trust)
    if not isinstance(data, TrajectoryData):
        raise ValueError(f"expected a run on TrajectoryData, got {type(data).__name__}")
    return data
