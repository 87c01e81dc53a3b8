"""Pretexts: cut x and y from a batch, and predict one from the other."""

from jepa_lightning.pretexts.alignment import Alignment, InfoNCE, Nearness, Sigmoid
from jepa_lightning.pretexts.base import Networks, Outcome, Prediction, Pretext
from jepa_lightning.pretexts.cross_modal import CrossModal
from jepa_lightning.pretexts.dense import Dense
from jepa_lightning.pretexts.hierarchical_rollout import HierarchicalRollout
from jepa_lightning.pretexts.hierarchy import Hierarchy
from jepa_lightning.pretexts.latent import LatentCodes
from jepa_lightning.pretexts.latent_rollout import LatentRollout
from jepa_lightning.pretexts.masked import Masked
from jepa_lightning.pretexts.rollout import Rollout
from jepa_lightning.pretexts.teacher_forcing import TeacherForcing
from jepa_lightning.pretexts.views import Views

__all__ = [
    "Alignment",
    "CrossModal",
    "Dense",
    "HierarchicalRollout",
    "Hierarchy",
    "InfoNCE",
    "LatentCodes",
    "LatentRollout",
    "Masked",
    "Nearness",
    "Networks",
    "Outcome",
    "Prediction",
    "Pretext",
    "Rollout",
    "Sigmoid",
    "TeacherForcing",
    "Views",
]
