"""Pretexts: how the two parts x and y of a JEPA are cut from a batch, and what is predicted from what."""

from jepa_lightning.pretexts.base import Networks, Outcome, Prediction, Pretext
from jepa_lightning.pretexts.masked import Masked
from jepa_lightning.pretexts.rollout import Rollout
from jepa_lightning.pretexts.views import Views

__all__ = ["Masked", "Networks", "Outcome", "Prediction", "Pretext", "Rollout", "Views"]
