"""Train Joint Embedding Predictive Architectures on any modality with PyTorch Lightning."""

from jepa_lightning.modality import Batch, Modality, Tokenizer
from jepa_lightning.module import JEPA
from jepa_lightning.tokens import Masks, Tokens

__version__ = "0.1.0"
__all__ = ["JEPA", "Batch", "Masks", "Modality", "Tokenizer", "Tokens"]
