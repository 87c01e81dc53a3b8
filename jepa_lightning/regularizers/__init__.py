"""Regularizers: terms that prevent collapse."""

from jepa_lightning.regularizers.base import (
    On,
    Regularizer,
    RegularizerFactory,
    Regularizers,
    RegularizerSpec,
)
from jepa_lightning.regularizers.gather import sum_over_ranks
from jepa_lightning.regularizers.inverse_dynamics import InverseDynamics
from jepa_lightning.regularizers.sigreg import SIGReg
from jepa_lightning.regularizers.trajectory import Straightening, TemporalSimilarity, TrajectoryVICReg
from jepa_lightning.regularizers.vicreg import VICReg

__all__ = [
    "InverseDynamics",
    "On",
    "Regularizer",
    "RegularizerFactory",
    "RegularizerSpec",
    "Regularizers",
    "SIGReg",
    "Straightening",
    "TemporalSimilarity",
    "TrajectoryVICReg",
    "VICReg",
    "sum_over_ranks",
]
