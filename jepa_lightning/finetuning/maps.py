"""A label that is a map of an image's pixels: classes (segmentation) or values (depth)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jepa_lightning.data import JEPADataModule
from jepa_lightning.evaluation.probes.bootstrap import Moments
from jepa_lightning.evaluation.probes.dense import moments_of
from jepa_lightning.finetuning.labels import Goal, drawn_splits
from jepa_lightning.finetuning.model import FineTuned
from jepa_lightning.finetuning.outcome import FINETUNED, FROZEN, SCRATCH, UNTRAINED
from jepa_lightning.finetuning.tasks import Indices, Task
from jepa_lightning.loading import Frozen

_LOOKED_AT = 8  # batches, from which the statistics of channels are taken


class MapTask(Task):
    """A class or a value of each pixel. The frozen encoders' heads are trained as the others are, but alone.

    Classes are scored by the mean intersection over union, of all pixels of the split; values by the R2 of all pixels.

    Args:
        trained: the encoder of the run.
        data: bound to its modality.
        drawn: all training samples that any draw has.
        splits: the others that are looked at.
        label: name of the label.
        baselines: whether there are an untrained encoder and one from scratch.
        **settings: of `Task`.

    Raises:
        ValueError: there is no such label, or it is no map of the images' pixels.
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
        self.fitted = [FROZEN, FINETUNED, *([UNTRAINED, SCRATCH] if baselines else [])]
        self.probed = []
        self.train = data.part("train")
        self.samples = drawn_splits(data, drawn, splits)
        self.name = label or data.label
        self.head_state: dict[str, Tensor] = {}
        kind: torch.dtype | None = None
        classes: set[int] = set()
        self.counts: dict[str, dict[int, int]] = {}
        for split in ("train", *splits):
            counts = self.counts[split] = dict[int, int]()
            for label_map in self._maps(split):
                kind = label_map.dtype
                if not label_map.is_floating_point():
                    for number, count in zip(*label_map[label_map >= 0].unique(return_counts=True), strict=True):
                        counts[int(number)] = counts.get(int(number), 0) + int(count)
            classes |= counts.keys()
        if kind is not None and not kind.is_floating_point and len(classes) < 2:
            raise ValueError(f"label {self.name!r}: expected at least 2 classes of pixels, got {len(classes)}")
        numbers = None if kind is None or kind.is_floating_point else sorted(classes)
        self.goal = Goal(str(self.name), numbers, list(map(str, numbers or ())), int(numbers is None))

    def begin(self, model: FineTuned, method: str, indices: Indices) -> None:
        """Begin fine-tuning with the head of the frozen encoder."""
        few = self.samples.samples["train"]
        self.samples.samples["train"] = few.derive(few.transform, indices=indices)
        try:
            if not self.goal.classes:
                values = torch.cat([label[label.isfinite()].double() for label in self._maps("train")])
                model.target_mean.fill_(float(values.mean()))
                model.target_scale.fill_(max(float(values.std(correction=0)), 1e-12))
            if method == FINETUNED:
                model.head.load_state_dict(self.head_state)
            elif method != SCRATCH:
                batches = (batch for batch in self.samples.batches("train") if "id" in batch)
                with torch.no_grad():
                    maps = [model.encoder.feature_maps(batch).cpu() for batch in islice(batches, _LOOKED_AT)]
                model.head.standardise(torch.cat([found.movedim(1, -1).flatten(0, 2) for found in maps]))
        finally:
            self.samples.samples["train"] = few

    def keep(self, method: str, model: FineTuned) -> None:
        """Keep the frozen encoder's head, with which fine-tuning begins."""
        if method == FROZEN:
            self.head_state = {name: value.detach().clone() for name, value in model.head.state_dict().items()}

    def chance(self, indices: Indices, scored_on: str) -> float:
        """Score the most frequent class of the training pixels everywhere: its share, over the number of classes."""
        if not self.goal.classes:
            return 0.0
        known, scored = self.counts["train"], self.counts[scored_on]
        often = max(known, key=lambda number: known[number])
        return scored.get(often, 0) / sum(scored.values()) / len(scored.keys() | {often})

    @torch.no_grad()
    def score(self, model: FineTuned, split: str, *, train: int) -> Moments:
        """Count, for each sample, the pixels that its score needs."""
        model.to(self.device).eval()
        found = [
            moments_of(model.outputs(batch).float(), model.goal(batch)).cpu()
            for batch in self.batches(split)
            if "id" in batch
        ]
        model.cpu()
        values: np.ndarray = torch.cat(found).T.double().numpy()
        return Moments("mIoU" if self.goal.classes else "R2 of pixels", values, train=train)

    def _maps(self, split: str) -> Any:
        """Read the label maps (B, H, W) of a split."""
        for batch in self.samples.batches(split):
            if "id" not in batch:
                continue
            labels = batch["labels"]
            if self.name not in labels:
                raise ValueError(f"no label {self.name or ''!r} in the data: it has {sorted(labels)}")
            label = labels[self.name]
            size = batch[self.trained.modality.name].shape[-2:]
            if self.trained.modality.name != "image" or not isinstance(label, Tensor) or label.shape[1:] != size:
                shape = tuple(label.shape[1:]) if isinstance(label, Tensor) else "several shapes"
                raise ValueError(
                    f"label {self.name!r}: the head dense expects a map (H, W) of the pixels of each image, got {shape}"
                )
            yield label
