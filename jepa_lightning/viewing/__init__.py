"""What a trained JEPA sees, as pictures: features, neighbours, attention and prediction errors of chosen samples."""

from jepa_lightning.viewing.attention import Attention, attention_of_probe
from jepa_lightning.viewing.chosen import ChosenSamples
from jepa_lightning.viewing.errors import TokenErrors, token_errors
from jepa_lightning.viewing.neighbours import Gallery, chance_of_same, nearest, same_label
from jepa_lightning.viewing.tokens import draw_features, draw_heat, draw_masks

__all__ = [
    "Attention",
    "ChosenSamples",
    "Gallery",
    "TokenErrors",
    "attention_of_probe",
    "chance_of_same",
    "draw_features",
    "draw_heat",
    "draw_masks",
    "nearest",
    "same_label",
    "token_errors",
]
