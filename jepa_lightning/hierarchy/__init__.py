"""A JEPA on top of another: segments of long samples, each the pooled representation of a first level."""

from jepa_lightning.hierarchy.encoder import SegmentEncoder
from jepa_lightning.hierarchy.modality import Segments
from jepa_lightning.hierarchy.tokenizer import SegmentTokenizer, SegmentTokens

__all__ = ["SegmentEncoder", "SegmentTokenizer", "SegmentTokens", "Segments"]
