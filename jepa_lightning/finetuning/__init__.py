"""Fine-tuning: an encoder and a head trained together on few or many labels.

Names are imported when they are first used: the help of `jepa-finetune` needs none of them.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jepa_lightning.finetuning.groups import layer_groups, set_drop_path, unfreeze
    from jepa_lightning.finetuning.heads import AttentiveHead, DenseHead, Head, LinearHead
    from jepa_lightning.finetuning.model import FineTuned, load_finetuned
    from jepa_lightning.finetuning.module import FineTuning

__all__ = [
    "AttentiveHead",
    "DenseHead",
    "FineTuned",
    "FineTuning",
    "Head",
    "LinearHead",
    "layer_groups",
    "load_finetuned",
    "set_drop_path",
    "unfreeze",
]


def __getattr__(name: str) -> Any:
    """Import one of the names above."""
    home: Any
    if name in ("layer_groups", "set_drop_path", "unfreeze"):
        from jepa_lightning.finetuning import groups

        home = groups
    elif name in ("AttentiveHead", "DenseHead", "Head", "LinearHead"):
        from jepa_lightning.finetuning import heads

        home = heads
    elif name in ("FineTuned", "load_finetuned"):
        from jepa_lightning.finetuning import model

        home = model
    elif name == "FineTuning":
        from jepa_lightning.finetuning import module

        home = module
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(home, name)
