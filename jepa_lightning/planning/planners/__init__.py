"""Planners: which actions have the lowest energy."""

from jepa_lightning.planning.planners.base import Energy, Plan, Planner
from jepa_lightning.planning.planners.gradient import Gradient
from jepa_lightning.planning.planners.sampling import CEM, MPPI, Categorical, RandomShooting

__all__ = ["CEM", "Categorical", "Energy", "Gradient", "MPPI", "Plan", "Planner", "RandomShooting"]
