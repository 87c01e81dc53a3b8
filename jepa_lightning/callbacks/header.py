"""What a run is about to do, in three lines: the data, the model, the length."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch import Trainer
from torch import nn

from jepa_lightning.module import JEPA
from jepa_lightning.names.printable import printable
from jepa_lightning.optimization import run_length


def header(trainer: Trainer, module: JEPA) -> str:
    """Describe a run that is about to begin."""
    data: Any = getattr(trainer, "datamodule", None)
    modality, spec = module.modality, module.modality.spec
    parts = [f"{size} {part}" for part, size in _sizes(trainer) if size]
    tokens = f", {math.prod(spec.grid)} tokens of {spec.shape}" if spec.grid else ""
    nets = {"encoder": module.encoder, "predictor": module.predictor}
    about = [f"{role} {_size(part)}" for role, part in nets.items() if list(part.parameters())]
    target = f"target {_name(module.target)}"
    epochs = trainer.max_epochs
    length = f"{run_length(trainer):,} steps" + (
        f" in {epochs} epochs" if (epochs or 0) > 0 > trainer.max_steps else ""
    )
    bare = trainer.fast_dev_run  # type: ignore[attr-defined]
    written = "nothing is written" if bare else f"everything is written to {trainer.default_root_dir}"
    rows = {
        "data": f"{_name(data) if data is not None else 'loaders'}: {' and '.join(parts) or 'a stream'} samples",
        "model": f"{_name(module.pretext)} on {modality.name}{tokens}; {', '.join([*about, target])}",
        "run": f"{length}; {written}",
    }
    return printable("\n".join(f"{name:<7}{text}" for name, text in rows.items()), lines=True)


def _sizes(trainer: Trainer) -> list[tuple[str, str | None]]:
    of_run: Any = trainer
    loaders = {"training": of_run.train_dataloader, "validation": of_run.val_dataloaders}
    return [(part, _length(loader)) for part, loader in loaders.items()]


def _length(loader: Any) -> str | None:
    try:
        return f"{len(loader.dataset):,}"
    except (AttributeError, TypeError):  # no loader, several, or a stream
        return None


def _size(part: nn.Module) -> str:
    """A part's class and number of parameters, such as "ViT (354 K)"."""
    count = sum(parameter.numel() for parameter in part.parameters())
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= size:
            return f"{_name(part)} ({count / size:.3g} {unit})"
    return f"{_name(part)} ({count})"


def _name(thing: object) -> str:
    return type(thing).__name__
