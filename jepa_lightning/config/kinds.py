"""The kinds of parts that a configuration names, and the base class of each."""

from __future__ import annotations

import inspect
from pydoc import locate

KINDS = {
    "configs": None,
    "recipes": None,
    "modalities": "jepa_lightning.modality.Modality",
    "data": "lightning.pytorch.LightningDataModule",
    "pretexts": "jepa_lightning.pretexts.Pretext",
    "alignments": "jepa_lightning.pretexts.Alignment",
    "targets": "jepa_lightning.targets.Target",
    "encoders": "jepa_lightning.encoders.Encoder",
    "maskers": "jepa_lightning.maskers.Masker",
    "predictors": "jepa_lightning.predictors.Predictor",
    "objectives": "jepa_lightning.objectives.PredictionLoss",
    "regularizers": "jepa_lightning.regularizers.Regularizer",
    "schedules": "jepa_lightning.schedules.Schedule",
    "planners": "jepa_lightning.planning.Planner",
    "costs": "jepa_lightning.planning.Cost",
    "actors": "jepa_lightning.planning.ActorTraining",
}
"""What `jepa-fit list` lists; files have no class."""


def subclasses(base: type) -> list[type]:
    """All classes below a class that were imported."""
    direct: list[type] = base.__subclasses__()
    return direct + [cls for child in direct for cls in subclasses(child)]


def classes_of(kind: str) -> list[type]:
    """The classes of a kind that a configuration can name, of those that were imported, by name.

    Classes of Lightning, torch and other libraries around are left out, as are abstract and private ones.

    Args:
        kind: a key of `KINDS` that has classes.

    Examples:
        >>> from jepa_lightning.config.kinds import classes_of
        >>> [cls.__name__ for cls in classes_of("schedules")][:2]
        ['Constant', 'CosineRamp']
    """
    base = locate(KINDS[kind] or "")
    assert isinstance(base, type)
    library = base.__module__.partition(".")[0]
    found = {
        cls
        for cls in subclasses(base)
        if not inspect.isabstract(cls)
        and not any(part.startswith("_") for part in f"{cls.__module__}.{cls.__qualname__}".split("."))
        and "<locals>" not in cls.__qualname__
        and (library == "jepa_lightning" or not cls.__module__.startswith(f"{library}."))
    }
    return sorted(found, key=lambda cls: cls.__name__)
