"""Maskers that need only a grid, an order, positions or a count: which tokens are seen, which are predicted."""

from jepa_lightning.maskers.base import Masker
from jepa_lightning.maskers.blocks import MultiBlock
from jepa_lightning.maskers.future import Future
from jepa_lightning.maskers.mixed import MixedMasker
from jepa_lightning.maskers.multi import MultiMasker
from jepa_lightning.maskers.order import OrderedRuns
from jepa_lightning.maskers.random import Random
from jepa_lightning.maskers.random_count import RandomCount
from jepa_lightning.maskers.spans import TimeSpans
from jepa_lightning.maskers.spatial import SpatialBlocks
from jepa_lightning.maskers.tube import Tube
from jepa_lightning.maskers.union import BlockUnion
from jepa_lightning.maskers.units import WholeUnits

__all__ = [
    "BlockUnion",
    "Future",
    "RandomCount",
    "Masker",
    "MixedMasker",
    "MultiBlock",
    "OrderedRuns",
    "Random",
    "MultiMasker",
    "SpatialBlocks",
    "TimeSpans",
    "Tube",
    "WholeUnits",
]
