"""Evaluation of frozen representations: `jepa_lightning.evaluate` on runs, and its parts.

Names are imported when they are first used: the help of the commands needs none of them.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jepa_lightning.evaluation.features.pooled import Features, extract
    from jepa_lightning.evaluation.probes.classification import fit_linear, probe
    from jepa_lightning.evaluation.probes.neighbours import knn_predict
    from jepa_lightning.evaluation.rank import effective_rank, lidar

__all__ = ["Features", "effective_rank", "extract", "fit_linear", "knn_predict", "lidar", "probe"]


def __getattr__(name: str) -> Any:
    """Import one of the names above."""
    if name in ("Features", "extract"):
        from jepa_lightning.evaluation.features import pooled

        return getattr(pooled, name)
    if name in ("fit_linear", "probe"):
        from jepa_lightning.evaluation.probes import classification

        return getattr(classification, name)
    if name == "knn_predict":
        from jepa_lightning.evaluation.probes.neighbours import knn_predict

        return knn_predict
    if name in ("effective_rank", "lidar"):
        from jepa_lightning.evaluation import rank

        return getattr(rank, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
