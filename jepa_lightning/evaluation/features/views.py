"""Another view of training samples: as training augments them, for the alignment of the collapse report."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from jepa_lightning.data.in_order import InOrder
from jepa_lightning.evaluation.features.extraction import Embed, Extracted, Splits
from jepa_lightning.evaluation.features.pooled import extract
from jepa_lightning.modality import Batch
from jepa_lightning.randomness import isolate_rng

COUNT = 1000
_SAME = 1e-4  # of the largest feature: what batches of another size may change


@dataclass(frozen=True)
class Views:
    """Features of augmented training samples.

    Attributes:
        rows: (m,) numbers of the samples among those of the training split.
        features: encoder to (m, D); without those whose width follows the size of a view (raw pixels), where views
            have another size than evaluated samples.
    """

    rows: Tensor
    features: dict[str, Tensor]


def training_views(
    splits: Splits,
    embedders: Mapping[str, Embed],
    found: Mapping[str, Extracted],
    *,
    count: int = COUNT,
    seed: int = 0,
) -> Views | str:
    """Features of samples of the split train with the transform of training, random crops and all.

    Samples are drawn, and augmented in a single process, by the seed alone; the random state stays as it is.

    Args:
        splits: of the data.
        embedders: by encoder.
        found: what they make of these splits as they are evaluated.
        count: samples, at most.
        seed: of the draws.

    Returns:
        The views; or in words why there are none: the data have no augmentation.
    """
    if "train" not in splits.samples:
        return "there is no training split"
    transform = splits.data.training_transform
    first = next(iter(found.values()))
    ids = first.ids["train"]
    number = {name: row for row, name in enumerate(ids)}
    if transform is None:
        return "the data have no augmentation"
    if len(number) < len(ids):
        return "several training samples have the same id"
    part = splits.samples["train"]
    generator = torch.Generator().manual_seed(seed)
    drawn = part.indices[torch.randperm(len(part), generator=generator)[:count].sort().values.numpy()]
    samples = part.derive(transform, indices=drawn)
    loader: DataLoader[Batch] = DataLoader(
        InOrder(samples), batch_size=splits.data.batch_size, collate_fn=splits.collate
    )
    rows: list[int] = []
    features: dict[str, list[Tensor]] = {name: [] for name in embedders}
    with isolate_rng():
        random.seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)
        torch.manual_seed(seed)
        for batch in loader:
            names = list(dict.fromkeys(batch.get("source", batch.get("id", ()))))
            known = torch.tensor([name in number for name in names], dtype=torch.bool)
            if not known.any():
                continue
            rows += [number[name] for name in names if name in number]
            for name, embed in embedders.items():
                features[name].append(extract(embed, [batch]).values[known])
    if not rows:
        return "no training sample can be read"
    viewed, joined = torch.tensor(rows), {name: torch.cat(parts) for name, parts in features.items()}
    plain = {name: found[name].features["train"].values[viewed] for name in joined}
    views = Views(viewed, {name: seen for name, seen in joined.items() if seen.shape == plain[name].shape})
    if all(_same(plain[name], seen) for name, seen in views.features.items()):
        return "the data have no augmentation: training samples are seen as they are evaluated"
    return views


def _same(features: Tensor, views: Tensor) -> bool:
    return bool(((features - views).abs().max() <= _SAME * features.abs().max()).item())
