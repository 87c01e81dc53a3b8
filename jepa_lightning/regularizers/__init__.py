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
from jepa_lightning.regularizers.levels import UpperLevels
from jepa_lightning.regularizers.sigreg import SIGReg
from jepa_lightning.regularizers.subspaces import SubspaceSIGReg
from jepa_lightning.regularizers.trajectory import Straightening, TemporalSimilarity, TrajectoryVICReg
from jepa_lightning.regularizers.vicreg import VICReg
from jepa_lightning.regularizers.visreg import VISReg

__all__ = [
    "InverseDynamics",
    "On",
    "Regularizer",
    "RegularizerFactory",
    "RegularizerSpec",
    "Regularizers",
    "SIGReg",
    "Straightening",
    "SubspaceSIGReg",
    "TemporalSimilarity",
    "TrajectoryVICReg",
    "UpperLevels",
    "VICReg",
    "VISReg",
    "sum_over_ranks",
]
