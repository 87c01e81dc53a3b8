"""Maskers that need only a grid or a count of tokens: which tokens are seen, which are predicted."""

from jepa_lightning.maskers.base import Masker
from jepa_lightning.maskers.blocks import MultiBlock
from jepa_lightning.maskers.random import Random

__all__ = ["Masker", "MultiBlock", "Random"]
