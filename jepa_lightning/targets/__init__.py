"""Targets: what encodes y, and with which gradient."""

from jepa_lightning.targets.base import FrozenTarget, Target, TargetFactory, encode, evaluating, represent
from jepa_lightning.targets.ema import EMA
from jepa_lightning.targets.online import Online
from jepa_lightning.targets.pretrained import Pretrained
from jepa_lightning.targets.raw import RawTokens

__all__ = [
    "EMA",
    "FrozenTarget",
    "Online",
    "Pretrained",
    "RawTokens",
    "Target",
    "TargetFactory",
    "encode",
    "evaluating",
    "represent",
]
