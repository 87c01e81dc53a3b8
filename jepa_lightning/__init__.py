"""Train Joint Embedding Predictive Architectures on any modality with PyTorch Lightning."""

from typing import TYPE_CHECKING, Any

from jepa_lightning._version import __version__ as __version__
from jepa_lightning.modality import Batch, Modality, Tokenizer
from jepa_lightning.module import JEPA
from jepa_lightning.tokens import Masks, Tokens

if TYPE_CHECKING:
    from jepa_lightning.evaluation.embed import embed
    from jepa_lightning.evaluation.evaluate import evaluate
    from jepa_lightning.loading import Frozen, load, load_jepa
    from jepa_lightning.pictures.view import view

__all__ = [
    "JEPA",
    "Batch",
    "Frozen",
    "Masks",
    "Modality",
    "Tokenizer",
    "Tokens",
    "embed",
    "evaluate",
    "load",
    "load_jepa",
    "view",
]


def __getattr__(name: str) -> Any:
    """What is used after training when it is asked for: training needs none of it, nor what it imports."""
    if name in ("Frozen", "load", "load_jepa"):
        from jepa_lightning import loading

        return getattr(loading, name)
    if name == "evaluate":
        from jepa_lightning.evaluation.evaluate import evaluate

        return evaluate
    if name == "embed":
        from jepa_lightning.evaluation.embed import embed

        return embed
    if name == "view":
        from jepa_lightning.pictures.view import view

        return view
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
