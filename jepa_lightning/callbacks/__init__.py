"""Callbacks."""

from lightning.pytorch import Callback

from jepa_lightning.callbacks.best_checkpoint import BestCheckpoint
from jepa_lightning.callbacks.checkpoint import LastCheckpoint
from jepa_lightning.callbacks.collapse import CollapseMonitor
from jepa_lightning.callbacks.non_finite import NonFiniteGuard
from jepa_lightning.callbacks.pictures import Pictures
from jepa_lightning.callbacks.probe import OnlineProbe
from jepa_lightning.callbacks.progress import LossBar
from jepa_lightning.callbacks.summary import RunSummary

__all__ = [
    "BestCheckpoint",
    "CollapseMonitor",
    "NonFiniteGuard",
    "LastCheckpoint",
    "LossBar",
    "OnlineProbe",
    "Pictures",
    "RunSummary",
    "default_callbacks",
]


def default_callbacks() -> list[Callback]:
    """Return the callbacks that `jepa-fit` uses by default, for a Trainer made in Python."""
    return [
        CollapseMonitor(),
        NonFiniteGuard(),
        OnlineProbe(),
        Pictures(),
        RunSummary(),
        BestCheckpoint(),
        LastCheckpoint(),
    ]
