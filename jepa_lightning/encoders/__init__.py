"""Encoders: tokens in, representations out."""

from jepa_lightning.encoders.base import Encoder, TokenSpec
from jepa_lightning.encoders.conv import ConvEncoder
from jepa_lightning.encoders.conv_net import TimmConvNet
from jepa_lightning.encoders.frozen import FrozenEncoder
from jepa_lightning.encoders.layers import check_layers, layer_numbers
from jepa_lightning.encoders.pooled import PooledEncoder
from jepa_lightning.encoders.positions import LinearPositions, MLPPositions, SinCosPositions
from jepa_lightning.encoders.stored_positions import StoredPositions
from jepa_lightning.encoders.timm_encoder import TimmEncoder
from jepa_lightning.encoders.transformer import Transformer
from jepa_lightning.encoders.vit import ViT

__all__ = [
    "ConvEncoder",
    "Encoder",
    "FrozenEncoder",
    "LinearPositions",
    "MLPPositions",
    "PooledEncoder",
    "SinCosPositions",
    "StoredPositions",
    "TimmConvNet",
    "TimmEncoder",
    "TokenSpec",
    "Transformer",
    "ViT",
    "check_layers",
    "layer_numbers",
]
