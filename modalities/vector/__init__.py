"""Vectors: JEPA on numbers, such as a robot's joints; world models take them from `TrajectoryData`."""

from modalities.vector.modality import Vector
from modalities.vector.tokenizer import VectorTokenizer

__all__ = ["Vector", "VectorTokenizer"]
