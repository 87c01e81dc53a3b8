"""Features of whole splits: every readable sample once, in order, without augmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from jepa_lightning.data import JEPADataModule, Unreadable
from jepa_lightning.data.in_order import CollateReadable, InOrder, splits_in_order
from jepa_lightning.evaluation.features.files import Columns, filled
from jepa_lightning.evaluation.features.pooled import Features, extract
from jepa_lightning.evaluation.features.token_store import TokenFeatures, TokenStore
from jepa_lightning.modality import Batch
from jepa_lightning.names.printable import printable
from jepa_lightning.pretexts.trajectories import frames

Embed = Callable[[Batch], Tensor]
EmbedTokens = Callable[[Batch], tuple[Tensor, Tensor | None, Tensor]]


class Splits:
    """The samples of some splits, and a record of those that cannot be read.

    Args:
        data: bound to a modality, where it needs one.
        split: "train", "val", "test" or "all".

    Attributes:
        samples: by the name of the split.
        collate: makes a batch of samples.
        records: likewise; what is held out for validation shares the record of the training data.

    Raises:
        DataError: there is no such split.
    """

    def __init__(self, data: JEPADataModule, split: str = "all") -> None:
        self.data = data
        self.samples, self.collate = splits_in_order(data, split), CollateReadable(data.collate)
        totals = {id(part.dataset): len(part.dataset) for part in self.samples.values()}  # type: ignore[arg-type]
        by_source = {key: Unreadable(total=total, limit=data.max_unreadable) for key, total in totals.items()}
        self.records = {name: by_source[id(part.dataset)] for name, part in self.samples.items()}

    def __len__(self) -> int:
        return sum(map(len, self.samples.values()))

    def batches(self, split: str, *, start: int = 0) -> Iterator[Batch]:
        """Batches with `unreadable`, from the sample number `start`; of trajectories, their frames."""
        return map(
            frames,
            DataLoader(
                InOrder(self.samples[split], start=start),
                batch_size=self.data.batch_size,
                num_workers=self.data.workers,
                collate_fn=self.collate,
            ),
        )

    def encode(
        self, split: str, batches: Iterable[Batch], embedders: Mapping[str, Embed], *, bar: Any
    ) -> tuple[Columns, dict[str, str]]:
        """The columns of some batches of a split, and the id and reason of each sample that could not be read.

        Args:
            split: its name.
            batches: of it.
            embedders: by the name of the column that each fills.
            bar: a progress bar.

        Returns:
            Those columns, `id`, `split` and `labels.NAME`, one row a sample, several clips of a video in one; and the
            missing samples.

        Raises:
            DataError: too many samples cannot be read.
        """
        found: list[Columns] = []
        missing: dict[str, str] = {}
        for batch in batches:
            unreadable = batch.pop("unreadable")
            self.records[split].add(unreadable)
            missing |= dict(unreadable)
            if "id" in batch:
                found.append(_columns(embedders, batch, split=split))
                bar.update(len(found[-1]["id"]))
            bar.update(len(unreadable))
        return _join(found), missing


@dataclass(frozen=True)
class Extracted:
    """What one encoder makes of the splits.

    Attributes:
        features: by split.
        ids: by split, of the samples (of a video with several clips: its name), in the order of the features.
        tokens: of all splits behind each other in their order, or None.
    """

    features: dict[str, Features]
    ids: dict[str, list[str]]
    tokens: TokenFeatures | None = None


class PoolAndStore:
    """An `Embed` that keeps the tokens in a store, too, from one pass of the encoder.

    Args:
        encode: batch to tokens (B, N, D), which are real, (B, N) or None, and pooled features (B, D).
        store: where the tokens go.
    """

    def __init__(self, encode: EmbedTokens, store: TokenStore) -> None:
        self.encode, self.store = encode, store

    def __call__(self, batch: Batch) -> Tensor:
        """(B, D) features."""
        values, valid, pooled = self.encode(batch)
        sources = batch.get("source", ())
        self.store.append(values, valid, sources=sources if len(sources) == len(values) else None)
        return pooled


def extract_splits(splits: Splits, embedders: Mapping[str, Embed]) -> dict[str, Extracted]:
    """Features of all samples by several encoders, in one pass over the data: encoder to what it makes of the splits.

    Each sample is read once, and one that cannot be read is missing for all encoders alike.

    Args:
        splits: of the data.
        embedders: by encoder; those that are `PoolAndStore` have tokens, too.

    Raises:
        ValueError: too many samples of a split cannot be read, or all.
    """
    found: dict[str, dict[str, Features]] = {name: {} for name in embedders}
    ids: dict[str, list[str]] = {}
    with tqdm(total=len(splits), unit=" samples", disable=None) as bar:
        for split in splits.samples:
            by_column = {f"features.{name}": embed for name, embed in embedders.items()}
            columns, _ = splits.encode(split, splits.batches(split), by_column, bar=bar)
            if not columns:
                raise ValueError(f"no sample of the split {split} can be read: check the data and their format")
            labels = {
                name.removeprefix("labels."): torch.from_numpy(values)
                for name, values in columns.items()
                if name.startswith("labels.")
            }
            ids[split] = columns["id"].tolist()
            for name in embedders:
                found[name][split] = Features(torch.from_numpy(columns[f"features.{name}"]), labels)
    return {
        name: Extracted(found[name], ids, embed.store.finish() if isinstance(embed, PoolAndStore) else None)
        for name, embed in embedders.items()
    }


def _columns(embedders: Mapping[str, Embed], batch: Batch, *, split: str) -> Columns:
    by_name = {name: extract(embed, [batch]) for name, embed in embedders.items()}  # which joins clips of one video
    ids = list(dict.fromkeys(batch["source"])) if "source" in batch else batch["id"]
    columns = {name: features.values.numpy() for name, features in by_name.items()}
    columns |= {"id": np.array([printable(name) for name in ids]), "split": np.array([split] * len(ids))}
    labels = next(iter(by_name.values())).labels
    return columns | {f"labels.{name}": value.numpy() for name, value in labels.items()}


def _join(found: Sequence[Columns]) -> Columns:
    """Batches below each other. Labels that some lack are filled (`filled`); those of other shapes are left out."""
    names = dict.fromkeys(name for columns in found for name in columns)
    shapes = {name: {columns[name].shape[1:] for columns in found if name in columns} for name in names}
    whole = {}
    for name in names:
        if len(shapes[name]) == 1:
            one = next(columns[name] for columns in found if name in columns)
            whole[name] = np.concatenate([columns.get(name, filled(len(columns["id"]), one)) for columns in found])
    return whole
