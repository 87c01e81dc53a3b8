"""Monitor collapse: representations that are the same for every sample."""

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

from jepa_lightning.callbacks.collapse_messages import (
    collapse_message,
    divergence_message,
    idle_message,
    rising_message,
    still_message,
)
from jepa_lightning.evaluation.collapse import MIN_RANK, MIN_STD
from jepa_lightning.evaluation.rank import effective_rank, lidar
from jepa_lightning.names.shown import Shown
from jepa_lightning.pretexts import Outcome
from jepa_lightning.tokens import Latents

MIN_ACTIONS_STD = 0.1
"""Macro-actions whose standard deviation is less are the same whatever is done; layer-normed ones have about 1."""


class CollapseMonitor(Shown, Callback):
    """Log the effective rank and the standard deviation of pooled features, and warn when they collapse.

    Features of the last `samples` training samples are pooled over tokens: a model that separates positions but not
    samples counts as collapsed, too. `collapse/effective_rank` is RankMe (Garrido et al. 2023, on centred features) and
    `collapse/std` the standard deviation over samples, mean over channels, of the target (which is layer-normed before
    it is pooled); `collapse/context_effective_rank` and `collapse/context_std` are those of the context, layer-normed
    for comparison. With several contexts (V-JEPA's masks, views) they are the mean over contexts. All in float32.
    Several contexts of one shape, of at most 1,024 channels, also give `collapse/lidar` (Thilak et al. 2023): how many
    dimensions tell samples apart rather than their views or masks. No warning looks at it.
    Between two measurements the pooled features stay on their device; nothing is read from it.

    Of trajectories (an outcome with actions), `collapse/within` and `collapse/context_within` are the share of the
    states' variance that lies within trajectories. A state that holds the scenery alone has rank and spread, a very low
    prediction loss, and a share near zero: below `min_within` the monitor says so.

    Each level above the first (`HierarchicalRollout`) is watched by itself, its targets as the first's: rank, spread
    and share are `collapse/level2_effective_rank`, `collapse/level2_std`, `collapse/level2_within`, and so on;
    `collapse/level2_actions_std` is the spread of its macro-actions. Below 0.1 they say nothing, and it warns.

    Args:
        every_n_steps: optimiser steps between two measurements; by default the trainer's `log_every_n_steps`. A
            shorter run is measured once, at the end of its first epoch.
        samples: number of samples per measurement; the rank cannot exceed it.
        min_std: warn below this standard deviation.
        min_rank: warn below this effective rank.
        std_drop: warn if the standard deviation has fallen by this factor since the first measurement; null disables.
        rank_drop: warn if the rank has fallen by this factor since the first measurement; null disables. The two
            detect slow collapse long before the limits above.
        min_within: warn if less than this share of the variance lies within trajectories.
        loss_rise: warn of divergence if the mean loss since the last measurement is above this multiple of the first
            step's loss; null disables.
        enabled: False disables the callback.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> from jepa_lightning.callbacks import CollapseMonitor
        >>> callbacks = [CollapseMonitor(every_n_steps=50, min_rank=4.0)]
        >>> trainer = Trainer(max_steps=10, accelerator="cpu", logger=False, callbacks=callbacks)
        >>> next(callback for callback in trainer.callbacks if isinstance(callback, CollapseMonitor))
        CollapseMonitor(every_n_steps=50, min_rank=4.0)
    """

    def __init__(
        self,
        *,
        every_n_steps: int | None = None,
        samples: int = 512,
        min_std: float = MIN_STD,
        min_rank: float = MIN_RANK,
        std_drop: float | None = 10.0,
        rank_drop: float | None = 4.0,
        min_within: float = 0.005,
        loss_rise: float | None = 10.0,
        enabled: bool = True,
    ) -> None:
        if samples < 2:
            raise ValueError(f"samples must be at least 2 for a standard deviation, got {samples}")
        self.every_n_steps = every_n_steps
        self.samples = samples
        self.min_std = min_std
        for name, factor in (("std_drop", std_drop), ("rank_drop", rank_drop), ("loss_rise", loss_rise)):
            if factor is not None and not factor > 1:
                raise ValueError(f"{name} must be a factor above 1, or null, got {factor:g}")
        self.min_rank = min_rank
        self.std_drop = std_drop
        self.rank_drop = rank_drop
        self.loss_rise = loss_rise
        self.min_within = min_within
        self._still: set[str] = set()  # what it has warned of
        self._within: dict[str, list[Tensor]] = {}  # since the last look
        self._acted: dict[str, list[Tensor]] = {}
        self.enabled = enabled
        self._collapsed: set[str] = set()
        self.warned_of_loss = False
        self._looked = 0
        self._first: dict[str, tuple[float, float]] = {}  # rank and standard deviation at the first measurement
        self._first_loss: float | None = None
        self._losses: list[Tensor] = []  # since the last measurement
        self._recent: dict[str, list[deque[Tensor]]] = {"target": [], "context": []}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Store the pooled features of this batch; measure the stored ones every `every_n_steps`."""
        outcome = outcome_of(outputs)
        if not self.enabled or outcome is None:
            return
        self._losses.append(outputs["loss"].detach())
        step, every = trainer.global_step, self.every_n_steps or getattr(trainer, "log_every_n_steps", 0) or 50
        self._remember("target", outcome.target)
        self._remember("context", [_normed(latents) for latents in outcome.context])
        if outcome.actions is not None:
            for name, found in (("target", outcome.target), ("context", outcome.context)):
                self._remember_within(name, outcome, found)
        for number, level in enumerate(outcome.levels, start=2):
            self._remember(f"level{number}", level.target)
            self._remember_within(f"level{number}", level, level.target)
            spread = level.actions.float().flatten(0, 1).std(0).mean()  # type: ignore[union-attr]
            self._acted.setdefault(f"level{number}", []).append(spread)
        if step and step % every == 0 and step != self._looked:
            self._looked = step
            self._look(pl_module, step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure once in a run shorter than `every_n_steps`."""
        if self.enabled and not self._looked and any(self._recent.values()):
            self._looked = trainer.global_step
            self._look(pl_module, trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """Return the first measurement, for a resumed run."""
        first, levels = self._first.get("", ()), {name: list(found) for name, found in self._first.items() if name}
        return {"first": list(first), "first_loss": self._first_loss, "first_of_levels": levels}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the first measurement."""
        stored = {"": state_dict.get("first"), **state_dict.get("first_of_levels", {})}
        self._first = {name: (found[0], found[1]) for name, found in stored.items() if found}
        self._first_loss = state_dict.get("first_loss")

    def _look_at_loss(self, step: int) -> None:
        losses, self._losses = torch.stack([loss.float() for loss in self._losses]), []
        self._first_loss = float(losses[0]) if self._first_loss is None else self._first_loss
        first, now = self._first_loss, float(losses.mean())
        if self.loss_rise is not None and now > self.loss_rise * first > 0 and not self.warned_of_loss:
            self.warned_of_loss = True
            rank_zero_warn(rising_message(step, now, first))

    def _look_within(self, pl_module: LightningModule, step: int) -> None:
        for name, found in self._within.items():
            if not found:
                continue
            share, self._within[name] = float(torch.stack(found).mean()), []
            pl_module.log(f"{_prefix(name)}within", share, batch_size=1)
            level = "" if name in ("target", "context") else name
            if share < self.min_within and level not in self._still:
                self._still.add(level)
                rank_zero_warn(still_message(step, share, level))

        for name, spreads in self._acted.items():
            std, self._acted[name] = float(torch.stack(spreads).mean()) if spreads else math.inf, []
            if spreads:
                pl_module.log(f"{_prefix(name)}actions_std", std, batch_size=1)
            if std < MIN_ACTIONS_STD and f"{name} actions" not in self._still:
                self._still.add(f"{name} actions")
                rank_zero_warn(idle_message(step, std, name))

    def _remember_within(self, name: str, outcome: Outcome, found: list[Latents]) -> None:
        shares = [variance_within(outcome.by_trajectory(latents)) for latents in found]
        self._within.setdefault(name, []).extend(shares)

    def _remember(self, name: str, found: list[Latents]) -> None:
        kept = self._recent.setdefault(name, [])
        while len(kept) < len(found):
            kept.append(deque())
        for recent, latents in zip(kept, found, strict=False):
            recent.append(latents.pooled().flatten(1))
            while sum(map(len, recent)) - len(recent[0]) >= self.samples:
                recent.popleft()

    def _look(self, pl_module: LightningModule, step: int) -> None:
        if self._losses:
            self._look_at_loss(step)
        self._look_within(pl_module, step)
        seen: dict[str, tuple[float, float]] = {}
        for name, found in self._recent.items():
            features = [torch.cat(list(recent))[-self.samples :] for recent in found]
            if not features or min(map(len, features)) < 2:
                continue
            ranks, spreads = [float(effective_rank(f)) for f in features], [float(f.std(0).mean()) for f in features]
            seen[name] = sum(ranks) / len(ranks), sum(spreads) / len(spreads)
            values = {f"{_prefix(name)}effective_rank": seen[name][0], f"{_prefix(name)}std": seen[name][1]}
            if name == "context" and are_views(features):
                values["collapse/lidar"] = float(lidar(torch.stack(features, 1)))
            pl_module.log_dict(values, batch_size=len(features[0]))
        if not seen:
            return
        self._judge("", seen.get("target") or seen["context"], step)
        for name in sorted(seen.keys() - {"target", "context"}):
            self._judge(name, seen[name], step)

    def _judge(self, level: str, seen: tuple[float, float], step: int) -> None:
        """Warn, once for each level ("" is the first), if rank and standard deviation are those of a collapse."""
        rank, std = seen
        first = self._first.get(level, seen)
        healthy = rank >= self.min_rank and std >= self.min_std
        if healthy:
            self._first[level] = first
            healthy = not (self.rank_drop and rank < first[0] / self.rank_drop)
            healthy &= not (self.std_drop and std < first[1] / self.std_drop)
        if not healthy and level not in self._collapsed:  # NaN is not healthy either
            self._collapsed.add(level)
            finite = math.isfinite(rank) and math.isfinite(std)
            rank_zero_warn(collapse_message(step, rank, std, first, level) if finite else divergence_message(step))


def _prefix(name: str) -> str:
    return "collapse/" if name == "target" else f"collapse/{name}_"


def outcome_of(outputs: Any) -> Outcome | None:
    """Return the outcome of a JEPA's training step; None for another module."""
    return outputs.get("outcome") if isinstance(outputs, dict) else None


def _normed(latents: Latents) -> Latents:
    values = latents.values.float()
    return replace(latents, values=F.layer_norm(values, values.shape[-1:]))


def are_views(features: list[Tensor]) -> bool:
    """Whether features (n, D) are several of the same samples, and narrow enough for a quick LiDAR."""
    return len(features) > 1 and len({part.shape for part in features}) == 1 and features[0].shape[1] <= 1024


def variance_within(states: Tensor) -> Tensor:
    """The share of the variance of states (B, T, D) that lies within trajectories: 0 where nothing in them moves."""
    within = (states - states.mean(1, keepdim=True)).square().mean((0, 1)).sum()
    total = (states - states.mean((0, 1))).square().mean((0, 1)).sum()
    return within / total.clamp(min=torch.finfo(total.dtype).tiny)
