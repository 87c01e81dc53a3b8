"""Trajectories: observations and the actions between them, from files or from an environment."""

from jepa_lightning.data.trajectories.episodes import Episodes, Window, blocks
from jepa_lightning.data.trajectories.module import Observations, TrajectoryData

__all__ = ["Episodes", "Observations", "TrajectoryData", "Window", "blocks"]
