"""Train Joint Embedding Predictive Architectures on any modality with PyTorch Lightning."""

from typing import TYPE_CHECKING, Any

from jepa_lightning._version import __version__ as __version__
from jepa_lightning.modality import Batch, Modality, Tokenizer
from jepa_lightning.module import JEPA
from jepa_lightning.tokens import Masks, Tokens

if TYPE_CHECKING:
    from jepa_lightning.loading import Frozen, load, load_jepa
    from jepa_lightning.planning import World, load_world

__all__ = [
    "JEPA",
    "Batch",
    "Frozen",
    "Masks",
    "Modality",
    "Tokenizer",
    "Tokens",
    "World",
    "load",
    "load_jepa",
    "load_world",
]


def __getattr__(name: str) -> Any:
    """What a trained run is loaded with, when it is asked for: training needs none of it, nor what it imports."""
    if name in ("World", "load_world"):
        from jepa_lightning import planning

        return getattr(planning, name)
    if name not in ("Frozen", "load", "load_jepa"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from jepa_lightning import loading

    return getattr(loading, name)
