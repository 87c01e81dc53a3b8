"""Where an attentive probe looks: which tokens it takes to tell a label."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_lightning.evaluation.features.pooled import is_class
from jepa_lightning.evaluation.probes.attentive import AttentiveProbe, fit_attentive
from jepa_lightning.loading import Frozen
from jepa_lightning.modality import Batch

NUMBERS = 2**27  # of features that a probe is fitted on, at most: 512 MiB


@dataclass(frozen=True)
class Attention:
    """An attentive probe and what it looks at.

    Attributes:
        probe: as `fit_attentive` gives it.
        label: its name.
        samples: how many the probe was fitted on.
    """

    probe: AttentiveProbe
    label: str
    samples: int

    @torch.no_grad()
    def of(self, features: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Attention on token features (B, N, D) of `valid` (B, N): (B, N), which sums to 1; and what is predicted.

        Returns:
            The attention, the mean over heads, and classes (B,) or values (B, d).
        """
        return self.probe.attention(features, valid), self.probe.predict(features, valid)


def attention_of_probe(
    encoder: Frozen, batches: Iterable[Batch], *, label: str | None = None, numbers: int = NUMBERS, seed: int = 0
) -> Attention:
    """Fit an attentive probe on the token features of labelled batches.

    Args:
        encoder: the frozen one.
        batches: such as `probe_dataloader` of a data module gives.
        label: name of the label, classes or continuous; None for the first that holds classes.
        numbers: of features that are kept, at most; the samples after them are left out.
        seed: of the probe.

    Raises:
        ValueError: there is no such label.
    """
    tokens: list[Tensor] = []
    valid: list[Tensor] = []
    labels: list[Tensor] = []
    kept, whole = 0, True
    for batch in batches:
        label = find_label(batch, label)
        values = batch["labels"][label].cpu()
        known = values >= 0 if is_class(values) else values.view(len(values), -1).isfinite().all(1)
        features, real = encoder.tokens(batch)
        whole = whole and real is None
        real = torch.ones(features.shape[:2], dtype=torch.bool) if real is None else real.cpu()
        tokens.append(features.cpu()[known])
        valid.append(real[known])
        labels.append(values[known])
        kept += tokens[-1].numel()
        if kept >= numbers:
            break
    if label is None or not sum(map(len, labels)):
        raise ValueError("expected labelled samples to fit a probe on, got none")
    longest = max(part.shape[1] for part in tokens)
    features = torch.cat([F.pad(part, (0, 0, 0, longest - part.shape[1])) for part in tokens])
    mask = None
    if not whole or len({part.shape[1] for part in tokens}) > 1:
        mask = torch.cat([F.pad(part, (0, longest - part.shape[1])) for part in valid])
    goal = torch.cat(labels)
    if goal.is_floating_point():
        goal = goal.view(len(goal), -1)
    return Attention(fit_attentive(features, mask, goal, seed=seed), label, len(features))


def find_label(batch: Batch, name: str | None = None) -> str:
    """The label called `name` of a batch, or its first that holds classes.

    Raises:
        ValueError: there is none; the message lists those that there are.
    """
    there = {key: value for key, value in batch["labels"].items() if isinstance(value, Tensor)}
    if name is None:
        name = next((key for key, value in there.items() if is_class(value)), None)
        if name is None:
            raise ValueError(f"no class label in the data: name another one, of {sorted(there)}")
    if name not in there:
        raise ValueError(f"no label {name!r} in the data: it has {sorted(there)}")
    if not (is_class(there[name]) or there[name].is_floating_point()):
        raise ValueError(f"expected a label of classes or of floats, got several whole numbers a sample: {name!r}")
    return name
