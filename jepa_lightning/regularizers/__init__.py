"""Regularizers: terms that prevent collapse."""

from jepa_lightning.regularizers.base import (
    On,
    Regularizer,
    RegularizerFactory,
    Regularizers,
    RegularizerSpec,
)
from jepa_lightning.regularizers.gather import sum_over_ranks
from jepa_lightning.regularizers.sigreg import SIGReg
from jepa_lightning.regularizers.vicreg import VICReg

__all__ = [
    "On",
    "Regularizer",
    "RegularizerFactory",
    "RegularizerSpec",
    "Regularizers",
    "SIGReg",
    "VICReg",
    "sum_over_ranks",
]
