"""Train Joint Embedding Predictive Architectures on any modality with PyTorch Lightning.

All names here are imported when first used: `import jepa_lightning` itself does not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jepa_lightning._version import __version__ as __version__

if TYPE_CHECKING:  # what editors and type checkers see; the same names as below
    from jepa_lightning import callbacks as callbacks
    from jepa_lightning import data as data
    from jepa_lightning import encoders as encoders
    from jepa_lightning import evaluation as evaluation
    from jepa_lightning import maskers as maskers
    from jepa_lightning import objectives as objectives
    from jepa_lightning import planning as planning
    from jepa_lightning import predictors as predictors
    from jepa_lightning import pretexts as pretexts
    from jepa_lightning import regularizers as regularizers
    from jepa_lightning import schedules as schedules
    from jepa_lightning import targets as targets
    from jepa_lightning.evaluation.embed import embed as embed
    from jepa_lightning.evaluation.evaluate import evaluate as evaluate
    from jepa_lightning.finetuning.finetune import finetune as finetune
    from jepa_lightning.finetuning.model import FineTuned as FineTuned
    from jepa_lightning.finetuning.model import load_finetuned as load_finetuned
    from jepa_lightning.loading import Frozen as Frozen
    from jepa_lightning.loading import load as load
    from jepa_lightning.loading import load_jepa as load_jepa
    from jepa_lightning.modality import Batch as Batch
    from jepa_lightning.modality import Modality as Modality
    from jepa_lightning.modality import Tokenizer as Tokenizer
    from jepa_lightning.module import JEPA as JEPA
    from jepa_lightning.pictures.view import view as view
    from jepa_lightning.planning.plan import plan as plan
    from jepa_lightning.planning.world import World as World
    from jepa_lightning.planning.world import load_world as load_world
    from jepa_lightning.tokens import Masks as Masks
    from jepa_lightning.tokens import Tokens as Tokens
    from jepa_lightning.weights.exporting.export import export as export
    from jepa_lightning.weights.importing import import_weights as import_weights

_LAZY = {  # public name: module that defines it; None for the module of that name itself
    "JEPA": "module",
    "Batch": "modality",
    "FineTuned": "finetuning.model",
    "Frozen": "loading",
    "Masks": "tokens",
    "Modality": "modality",
    "Tokenizer": "modality",
    "Tokens": "tokens",
    "World": "planning.world",
    "embed": "evaluation.embed",
    "evaluate": "evaluation.evaluate",
    "export": "weights.exporting.export",
    "finetune": "finetuning.finetune",
    "import_weights": "weights.importing",
    "load": "loading",
    "load_finetuned": "finetuning.model",
    "load_jepa": "loading",
    "load_world": "planning.world",
    "plan": "planning.plan",
    "view": "pictures.view",
    "callbacks": None,
    "data": None,
    "encoders": None,
    "evaluation": None,
    "maskers": None,
    "objectives": None,
    "planning": None,
    "predictors": None,
    "pretexts": None,
    "regularizers": None,
    "schedules": None,
    "targets": None,
}

__all__ = [*_LAZY]


def __getattr__(name: str) -> Any:
    """Import a name of `_LAZY` when it is first asked for, and keep it."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _LAZY[name]
    found = import_module(f"{__name__}.{home or name}")
    globals()[name] = found if home is None else getattr(found, name)
    return globals()[name]


def __dir__() -> list[str]:
    """All names, imported or not."""
    return sorted({*globals(), *_LAZY} - {"Any", "TYPE_CHECKING", "import_module"})
