"""Predictors: from the context's representations and the targets' positions to the targets' representations."""

from jepa_lightning.predictors.adaln import AdaLNPredictor
from jepa_lightning.predictors.base import NoPredictor, Predictor, PredictorFactory, PredictorSpec
from jepa_lightning.predictors.conv import ConvPredictor
from jepa_lightning.predictors.frame_causal import FrameCausalPredictor
from jepa_lightning.predictors.mlp import MLPPredictor
from jepa_lightning.predictors.residual import GRUPredictor, ResidualPredictor
from jepa_lightning.predictors.rollout import Past, rollout
from jepa_lightning.predictors.transformer import TransformerPredictor

__all__ = [
    "AdaLNPredictor",
    "ConvPredictor",
    "FrameCausalPredictor",
    "GRUPredictor",
    "MLPPredictor",
    "NoPredictor",
    "Past",
    "Predictor",
    "PredictorFactory",
    "PredictorSpec",
    "ResidualPredictor",
    "TransformerPredictor",
    "rollout",
]
