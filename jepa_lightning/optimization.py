"""Parameter groups, scaled learning rates and fused kernels of the optimiser; logging steps."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.optim import Adam, AdamW, Optimizer


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Return the trained parameters in non-empty groups with and without weight decay; see `decays`.

    A pretext with a `learning_rate_scale` has two groups of its own.
    """
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    decaying, scale = decays(module), getattr(getattr(module, "pretext", None), "learning_rate_scale", 1.0)
    groups: list[dict[str, Any]] = []
    for own in (False, True) if scale != 1.0 else (None,):
        found = [(name, p) for name, p in trained if own is None or name.startswith("pretext.") == own]
        kept = {"lr_scale": scale} if own else {}
        groups += [
            {"params": [p for name, p in found if name in decaying], "decays": True, **kept},
            {"params": [p for name, p in found if name not in decaying], "decays": False, "weight_decay": 0.0, **kept},
        ]
    return [group for group in groups if group["params"]]


def decays(module: nn.Module) -> set[str]:
    """Return the names of the parameters that weight decay applies to: the weight matrices of `module`.

    Biases, the weights of norms and of embeddings, and single parameters (positions, mask, class and register
    tokens, layer scales) never decay.
    """
    return {
        f"{path}.{name}" if path else name
        for path, part in module.named_modules()
        for name, parameter in part.named_parameters(recurse=False)
        if parameter.ndim > 1 and "weight" in name and not isinstance(part, nn.Embedding)
    }


def fused_by_default(optimizer: Optimizer) -> bool | None:
    """Return whether to use torch's fused kernel if the user has not chosen: one launch instead of dozens.

    Returns:
        True for Adam and AdamW if all parameters are on a CUDA device, False if not, and None if there is no choice
        to make: another optimiser, or one with `fused` or `foreach` set (or settings that exclude them).
    """
    if type(optimizer) not in (Adam, AdamW):
        return None
    if any(group.get(name) for group in optimizer.param_groups for name in ("capturable", "differentiable")):
        return None
    if any(group.get(name) is not None for group in optimizer.param_groups for name in ("fused", "foreach")):
        return None
    return all(p.is_cuda and p.is_floating_point() for group in optimizer.param_groups for p in group["params"])


def set_fused(optimizer: Optimizer, fused: bool | None) -> Optimizer:
    """Use the fused kernel or not, overriding a checkpoint from another device; None changes nothing.

    The constructor's `fused=True` would also handle gradient scaling, with which the trainer refuses to clip
    gradients.
    """
    for group in optimizer.param_groups if fused is not None else ():
        group["fused"] = True if fused else None
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            if isinstance(state.get("step"), torch.Tensor):  # the fused kernel reads it on the device
                state["step"] = state["step"].to(parameter.device if fused else "cpu")
    return optimizer


def set_scheduled(optimizer: Any, learning_rate: float, weight_decay: float) -> None:
    """Set the values of a step; weight decay only in the groups that decay.

    Raises:
        ValueError: one is negative: training would climb, or weights would grow.
    """
    if not (learning_rate >= 0 and weight_decay >= 0):
        raise ValueError(
            f"expected a learning rate and a weight decay of at least 0 at every step, got {learning_rate:g} and "
            f"{weight_decay:g}: check model.learning_rate and model.weight_decay"
        )
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("lr_scale", 1.0)
        if group["decays"]:
            group["weight_decay"] = weight_decay


def run_length(trainer: Trainer) -> int:
    """Return the number of optimiser steps of the run.

    Raises:
        ValueError: the run has no end.
    """
    total = trainer.estimated_stepping_batches
    if total == float("inf"):
        raise ValueError("the schedules need to know the run's length: set trainer.max_epochs or trainer.max_steps")
    return int(total)


def batch_size(trainer: Trainer) -> int | None:
    """Return the batch size per process, from the training loader or the data module; else None."""
    sources = (trainer.train_dataloader, getattr(trainer, "datamodule", None))
    return next((n for n in (getattr(source, "batch_size", None) for source in sources) if n), None)


def largest_batch(trainer: Trainer) -> int | None:
    """Return the largest number of samples in a batch of a process; less than the batch size for small data."""
    samples = getattr(trainer.train_dataloader, "sampler", None)
    sizes = (batch_size(trainer), len(samples) if hasattr(samples, "__len__") else None)  # type: ignore[arg-type]
    return min((size for size in sizes if size), default=None)


def learning_rate_scale(trainer: Trainer, base_batch: int | None) -> float:
    """Return the samples per optimiser step over `base_batch` (Goyal et al. 2017, section 2.1); 1 if that is None.

    Raises:
        ValueError: the batch size is unknown.
    """
    if base_batch is None:
        return 1.0
    size = batch_size(trainer)
    if size is None:
        raise ValueError("base_batch needs to know the batch size: give a loader or a data module with batch_size")
    return size * trainer.world_size * trainer.accumulate_grad_batches / base_batch


def is_logged(trainer: Trainer) -> bool:
    """Return whether metrics are logged after the last optimiser step: every `trainer.log_every_n_steps`."""
    every = getattr(trainer, "log_every_n_steps", 0)
    return bool(every) and trainer.global_step > 0 and trainer.global_step % every == 0


def is_accumulating(trainer: Trainer) -> bool:
    """Return whether the current batch only accumulates gradients, without an optimiser step after it."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    if progress.current.ready % trainer.accumulate_grad_batches == 0:
        return False
    is_last = progress.is_last_batch or progress.current.ready == trainer.num_training_batches
    return trainer.strategy.handles_gradient_accumulation or not is_last
