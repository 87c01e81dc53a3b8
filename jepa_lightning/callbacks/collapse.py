"""Watches for collapse: representations that are the same for every sample."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from jepa_lightning.evaluation.collapse import MIN_RANK, MIN_STD
from jepa_lightning.evaluation.rank import effective_rank
from jepa_lightning.pretexts import Outcome
from jepa_lightning.tokens import Latents


class CollapseMonitor(Callback):
    """Logs the effective rank and the spread of pooled features, and warns in plain words when they collapse.

    Features of the last `samples` training samples are pooled over tokens; a model that tells positions apart but not
    samples counts as collapsed too. `collapse/effective_rank` is RankMe (Garrido et al. 2023, on centred features) and
    `collapse/std` the standard deviation over samples, mean over channels, of the target (which is layer-normed before
    it is pooled); `collapse/context_effective_rank` and `collapse/context_std` are those of the context, layer-normed
    for the comparison. Of several contexts (V-JEPA's masks, views) they are the mean of each one's. All in float32.
    Between two looks the features are pooled and kept, on their device; nothing is read from it.

    Args:
        every_n_steps: optimiser steps between two looks; the trainer's `log_every_n_steps` by default. A shorter run
            gets one look, at the end of its first epoch.
        samples: how many samples a look takes in; the rank cannot exceed it.
        min_std: warn below this spread ...
        min_rank: ... or below this effective rank.
        enabled: False switches it off.
    """

    def __init__(
        self,
        *,
        every_n_steps: int | None = None,
        samples: int = 512,
        min_std: float = MIN_STD,
        min_rank: float = MIN_RANK,
        enabled: bool = True,
    ) -> None:
        if samples < 2:
            raise ValueError(f"samples must be at least 2 to speak of a spread, got {samples}")
        self.every_n_steps = every_n_steps
        self.samples = samples
        self.min_std = min_std
        self.min_rank = min_rank
        self.enabled = enabled
        self.warned = False
        self._looked = 0
        self._recent: dict[str, list[deque[Tensor]]] = {"target": [], "context": []}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remember the pooled features of this batch; look at the remembered ones every so often."""
        outcome = outcome_of(outputs)
        if not self.enabled or outcome is None:
            return
        step, every = trainer.global_step, self.every_n_steps or getattr(trainer, "log_every_n_steps", 0) or 50
        self._remember("target", outcome.target)
        self._remember("context", [_normed(latents) for latents in outcome.context])
        if step and step % every == 0 and step != self._looked:
            self._looked = step
            self._look(pl_module, step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look once in a run that is too short for a look on the way."""
        if self.enabled and not self._looked and any(self._recent.values()):
            self._looked = trainer.global_step
            self._look(pl_module, trainer.global_step)

    def _remember(self, name: str, found: list[Latents]) -> None:
        while len(self._recent[name]) < len(found):
            self._recent[name].append(deque())
        for recent, latents in zip(self._recent[name], found, strict=False):
            recent.append(latents.pooled().flatten(1))
            while sum(map(len, recent)) - len(recent[0]) >= self.samples:
                recent.popleft()

    def _look(self, pl_module: LightningModule, step: int) -> None:
        seen: dict[str, tuple[float, float]] = {}
        for name, found in self._recent.items():
            features = [torch.cat(list(recent))[-self.samples :] for recent in found]
            if not features or min(map(len, features)) < 2:
                continue
            ranks, spreads = [float(effective_rank(f)) for f in features], [float(f.std(0).mean()) for f in features]
            seen[name] = sum(ranks) / len(ranks), sum(spreads) / len(spreads)
            prefix = "collapse/" if name == "target" else "collapse/context_"
            values = {f"{prefix}effective_rank": seen[name][0], f"{prefix}std": seen[name][1]}
            pl_module.log_dict(values, batch_size=len(features[0]))
        if not seen:
            return
        rank, std = seen.get("target") or seen["context"]
        healthy = rank >= self.min_rank and std >= self.min_std
        if not healthy and not self.warned:  # NaN is not healthy either
            self.warned = True
            finite = math.isfinite(rank) and math.isfinite(std)
            rank_zero_warn(collapse_message(step, rank, std) if finite else divergence_message(step))


def outcome_of(outputs: Any) -> Outcome | None:
    """What a JEPA's training step produced; None of another module's."""
    return outputs.get("outcome") if isinstance(outputs, dict) else None


def _normed(latents: Latents) -> Latents:
    values = latents.values.float()
    return replace(latents, values=F.layer_norm(values, values.shape[-1:]))


def collapse_message(step: int, rank: float, std: float) -> str:
    """What the monitor saw and which settings to change."""
    return (
        f"The representations have collapsed at step {step}: pooled over tokens, the target's features vary by a "
        f"standard deviation of only {std:.2g} over samples and fill {rank:.1f} dimensions (effective rank). The model "
        "says nearly the same of every sample, however low the loss is. What helps, in this order: a lower "
        "model.learning_rate peak or a longer warmup; a model.target.momentum that starts nearer to 1 (0.996 to "
        "0.9996); larger or more targets in the masker; a larger data.batch_size; a regulariser on the context "
        "(model.regularizers: [VICReg])."
    )


def divergence_message(step: int) -> str:
    """What to do when the features are NaN or infinite."""
    return (
        f"Training has diverged: at step {step} the target's features hold NaN or infinity, and will go on to. What "
        "helps, in this order: a lower model.learning_rate peak or a longer warmup; trainer.gradient_clip_val (1.0); "
        "trainer.precision 32-true or bf16-mixed in place of 16-mixed. Look also for NaN in the data."
    )
