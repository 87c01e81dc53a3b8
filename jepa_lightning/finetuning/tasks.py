"""What is fine-tuned for: a label, as models are built and scored for it; here one of each sample."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from numpy.typing import NDArray
from torch import Tensor

from jepa_lightning.data import JEPADataModule
from jepa_lightning.evaluation.features.extraction import Splits
from jepa_lightning.evaluation.probes.bootstrap import Moments, Outcome
from jepa_lightning.evaluation.probes.classification import chance
from jepa_lightning.evaluation.probes.probing import run_probe
from jepa_lightning.evaluation.probes.protocols import Split
from jepa_lightning.finetuning.fits import outputs_of
from jepa_lightning.finetuning.heads import LinearHead
from jepa_lightning.finetuning.labels import Frozenly, Goal, find_goal
from jepa_lightning.finetuning.model import FineTuned
from jepa_lightning.finetuning.outcome import FINETUNED, FROZEN, SCRATCH, UNTRAINED
from jepa_lightning.loading import Frozen
from jepa_lightning.modality import Batch

Indices = NDArray[np.int64]


class Task(ABC):
    """A label that models are built for and scored on.

    Args:
        trained: the encoder of the run.
        head: name of the head.
        device: where models are scored.

    Attributes:
        goal: the label.
        samples: the splits.
        probed: methods that are scored by a probe, without a fit.
        fitted: methods whose head, or head and encoder, are trained, in their order.
    """

    goal: Goal
    samples: Splits
    probed: Sequence[str]
    fitted: Sequence[str]

    def __init__(self, trained: Frozen, *, head: str, device: torch.device) -> None:
        self.trained, self.head, self.device = trained, head, device

    @abstractmethod
    def begin(self, model: FineTuned, method: str, indices: Indices) -> None:
        """Put the statistics of these training labels into a new model, and into its head what it begins with."""

    @abstractmethod
    def score(self, model: FineTuned, split: str, *, train: int) -> Outcome | Moments:
        """Score a model on a split."""

    @abstractmethod
    def chance(self, indices: Indices, scored_on: str) -> float:
        """Score the most frequent class of these training labels; 0 of R2."""

    def probe(self, name: str, indices: Indices, scored_on: str, *, seed: int) -> Outcome:
        """Fit the probe of a frozen encoder on these training labels, and score it."""
        raise ValueError(f"expected a method of {list(self.probed)}, got {name!r}")

    def keep(self, method: str, model: FineTuned) -> None:  # noqa: B027  (most tasks need nothing of it)
        """Take note of a model that was fitted, for those that follow it."""

    def model(self, method: str, indices: Indices, *, seed: int) -> FineTuned:
        """Build encoder and head as they begin."""
        encoder = copy.deepcopy(self.trained)
        if method == SCRATCH:
            encoder = self.trained.untrained(seed=seed, pretrained=False)
        elif method == UNTRAINED:
            encoder = self.trained.untrained()
        goal = self.goal
        model = FineTuned(
            encoder, label=goal.name, head=self.head, classes=goal.classes, names=goal.names, values=goal.width
        )
        self.begin(model, method, indices)
        return model

    def batches(self, split: str) -> Iterator[Batch]:
        """Read a split, in order, on the device."""
        return (move_data_to_device(batch, self.device) for batch in self.samples.batches(split))


class PooledTask(Task):
    """A class or values of each sample.

    Args:
        trained: the encoder of the run.
        data: bound to its modality.
        drawn: all training samples that any draw has.
        splits: the others that are looked at.
        label: that was asked for, or None.
        baselines: whether there are an untrained encoder and one from scratch.
        **settings: of `Task`.
    """

    def __init__(
        self,
        trained: Frozen,
        data: JEPADataModule,
        drawn: Indices,
        splits: Sequence[str],
        *,
        label: str | None,
        baselines: bool,
        **settings: Any,
    ) -> None:
        super().__init__(trained, **settings)
        encoders = {FROZEN: trained} | ({UNTRAINED: trained.untrained()} if baselines else {})
        self.probed = list(encoders)
        self.fitted = [FINETUNED, *([SCRATCH] if baselines else [])]
        self.frozenly = Frozenly(data, encoders, drawn, splits)
        self.samples = self.frozenly.samples
        labels = self.frozenly.labels
        together = {
            name: torch.cat([labels[split][name] for split in labels])
            for name in labels["train"]
            if all(name in some for some in labels.values())
        }
        self.goal = find_goal(data, together, label)

    def truth(self, split: str) -> Tensor:
        """Return the labels of a split as `Goal.truth` has them."""
        return self.goal.truth(self.frozenly.labels[split][self.goal.name])

    def chance(self, indices: Indices, scored_on: str) -> float:
        """Score the most frequent class."""
        if self.goal.classes is None:
            return 0.0
        known, truth = self.truth("train")[self.frozenly.rows(indices)], self.truth(scored_on)
        return chance(known[known >= 0], truth[truth >= 0])

    def probe(self, name: str, indices: Indices, scored_on: str, *, seed: int) -> Outcome:
        """Fit a logistic or a ridge regression."""
        rows = self.frozenly.rows(indices)
        features = torch.cat([self.frozenly.features(name, "train")[rows], self.frozenly.features(name, scored_on)])
        labels = torch.cat([self.truth("train")[rows], self.truth(scored_on)])
        known = self.goal.known(labels)
        number = torch.arange(len(labels))
        split = Split(number[known & (number < len(rows))].numpy(), number[known & (number >= len(rows))].numpy())
        values = labels.numpy() if self.goal.classes else labels.double().numpy()
        return run_probe("logistic" if self.goal.classes else "ridge", features, values, split, seed=seed)

    def begin(self, model: FineTuned, method: str, indices: Indices) -> None:
        """Begin with the probe of the frozen features."""
        rows = self.frozenly.rows(indices)
        labels = self.truth("train")[rows]
        known = self.goal.known(labels)
        labels = labels[known]
        if not self.goal.classes:
            model.target_mean.copy_(labels.mean(0))
            model.target_scale.copy_(labels.std(0, correction=0).clamp(min=1e-12))
            labels = (labels - model.target_mean) / model.target_scale
        if method == FINETUNED:
            features = self.frozenly.features(FROZEN, "train")[rows][known]
            if isinstance(model.head, LinearHead):
                model.head.fit(features, labels)
            else:
                model.head.standardise(features)

    def score(self, model: FineTuned, split: str, *, train: int) -> Outcome:
        """Score by accuracy or R2."""
        model.to(self.device)
        found, truth = outputs_of(model, self.batches(split)), self.truth(split)
        model.cpu()
        known = self.goal.known(truth)
        measure: Literal["accuracy", "R2"] = "accuracy" if self.goal.classes else "R2"
        return Outcome(measure, truth[known].numpy(), found[known].cpu().numpy(), train=train)
