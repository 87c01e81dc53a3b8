"""Judging frozen representations."""

from jepa_lightning.evaluation.features.pooled import Features, extract
from jepa_lightning.evaluation.probes.classification import fit_linear, knn_predict, probe
from jepa_lightning.evaluation.rank import effective_rank

__all__ = ["Features", "effective_rank", "extract", "fit_linear", "knn_predict", "probe"]
