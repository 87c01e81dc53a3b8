"""Several modalities in one module: a batch holds an image and its caption, a video and its sound."""

from jepa_lightning.multimodal.encoder import MultimodalEncoder
from jepa_lightning.multimodal.masker import EachMasker
from jepa_lightning.multimodal.modality import Multimodal
from jepa_lightning.multimodal.positions import JointPositions
from jepa_lightning.multimodal.tokenizer import JointTokenizer

__all__ = ["EachMasker", "JointPositions", "JointTokenizer", "Multimodal", "MultimodalEncoder"]
