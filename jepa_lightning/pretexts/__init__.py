"""Pretexts: cut x and y from a batch, and predict one from the other."""

from jepa_lightning.pretexts.base import Networks, Outcome, Prediction, Pretext
from jepa_lightning.pretexts.dense import Dense
from jepa_lightning.pretexts.latent import LatentCodes
from jepa_lightning.pretexts.masked import Masked
from jepa_lightning.pretexts.rollout import Rollout
from jepa_lightning.pretexts.views import Views

__all__ = ["Dense", "LatentCodes", "Masked", "Networks", "Outcome", "Prediction", "Pretext", "Rollout", "Views"]
