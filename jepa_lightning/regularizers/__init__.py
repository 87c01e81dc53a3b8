"""Regularisers: what keeps representations from collapsing."""

from jepa_lightning.regularizers.base import (
    On,
    Regularizer,
    RegularizerFactory,
    RegularizerSpec,
    check_batch_size,
    number_names,
)
from jepa_lightning.regularizers.gather import sum_over_ranks
from jepa_lightning.regularizers.vicreg import VICReg

__all__ = [
    "On",
    "Regularizer",
    "RegularizerFactory",
    "RegularizerSpec",
    "VICReg",
    "check_batch_size",
    "number_names",
    "sum_over_ranks",
]
