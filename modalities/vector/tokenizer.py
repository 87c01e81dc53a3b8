"""Vectors to tokens of a few numbers each."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.modality import Batch, Tokenizer
from jepa_lightning.moments import Moments
from jepa_lightning.tokens import Tokens


class VectorTokenizer(Tokenizer):
    """Vectors of one length, standardised number by number, and cut into tokens of `group` numbers in a row.

    Mean and standard deviation of each number are those of the training set. They are estimated once, by `estimate`,
    and kept in the checkpoint; until then they are 0 and 1. A number that never changes has a standard deviation of 1.

    Args:
        features: numbers of a vector.
        group: numbers of a token; they must divide `features`.
        standardize: False: vectors stay as they are.

    Raises:
        ValueError: the sizes do not fit; when called: the batch holds no vectors of this length.
    """

    mean: Tensor
    std: Tensor
    estimated: Tensor

    def __init__(self, *, features: int, group: int, standardize: bool = True) -> None:
        super().__init__()
        if min(features, group) < 1 or features % group:
            raise ValueError(
                f"expected features of at least 1 and a group that divides them, got {features} and {group}"
            )
        self.features, self.group = features, group
        self.grid = (features // group,)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        self.register_buffer("estimated", torch.tensor(not standardize))

    @property
    def needs_statistics(self) -> bool:  # type: ignore[override]
        """Whether mean and standard deviation are asked for, and neither estimated nor loaded from a checkpoint."""
        return not bool(self.estimated)

    @torch.no_grad()
    def estimate(self, batches: Iterable[Batch]) -> None:
        """Set mean and standard deviation to those of all vectors in the batches, computed in float64 on the CPU.

        Raises:
            ValueError: there is no batch, or a number is not finite.
        """
        moments, seen = Moments(self.features), False
        for batch in batches:
            rows, seen = self._vectors(batch).flatten(0, -2), True
            if not rows.isfinite().all():
                wrong = torch.nonzero(~rows.isfinite().all(0)).flatten().tolist()
                raise ValueError(f"expected finite numbers, got some that are not at the places {wrong} of the vectors")
            moments.add(rows)
        if not seen:
            raise ValueError("no batch to estimate the vectors' mean and std from: set standardize to false")
        self.mean.copy_(moments.mean)
        self.std.copy_(torch.where(moments.changes, moments.std, 1.0))
        self.estimated.fill_(True)

    def forward(self, batch: Batch) -> Tokens:
        """Tokens with values (B, N, group) from `batch["vector"]` (B, features)."""
        vectors = self.standardised(batch)
        if vectors.ndim != 2:
            raise ValueError(f"expected vectors (B, {self.features}), got {tuple(vectors.shape)}")
        positions = grid_positions(self.grid, vectors.device)
        return Tokens(values=vectors.unflatten(-1, (-1, self.group)), positions=positions, grid=self.grid)

    def standardised(self, batch: Batch) -> Tensor:
        """The vectors (..., features) of a batch, standardised."""
        return (self._vectors(batch) - self.mean) / self.std

    def _vectors(self, batch: Batch) -> Tensor:
        found = batch.get("vector")
        if not isinstance(found, Tensor) or not found.is_floating_point() or found.shape[-1] != self.features:
            got = sorted(batch) if found is None else f"{tuple(found.shape)} of {found.dtype}"
            raise ValueError(
                f"expected floats (B, {self.features}) at the key 'vector', got {got}: set model.modality.features to "
                "the numbers of an observation"
            )
        return found
