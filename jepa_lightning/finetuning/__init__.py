"""Fine-tuning: an encoder and a head trained together on few or many labels.

Names are imported when they are first used: the help of `jepa-finetune` needs none of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jepa_lightning.finetuning.groups import layer_groups, set_drop_path, unfreeze
    from jepa_lightning.finetuning.heads import AttentiveHead, Head, LinearHead
    from jepa_lightning.finetuning.model import FineTuned, load_finetuned
    from jepa_lightning.finetuning.module import FineTuning

__all__ = [
    "AttentiveHead",
    "FineTuned",
    "FineTuning",
    "Head",
    "LinearHead",
    "layer_groups",
    "load_finetuned",
    "set_drop_path",
    "unfreeze",
]

_HOMES = {
    "groups": ("layer_groups", "set_drop_path", "unfreeze"),
    "heads": ("AttentiveHead", "Head", "LinearHead"),
    "model": ("FineTuned", "load_finetuned"),
    "module": ("FineTuning",),
}


def __getattr__(name: str) -> Any:
    """Import one of the names above."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
