"""What passes between the parts of a JEPA: `Tokens`, `Masks`, `Latents` and `Query`.

Letters used everywhere: B batch, N tokens, D width, K kept context tokens, M target blocks, T tokens a block,
P position coordinates, L layers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor


def take(values: Tensor, index: Tensor) -> Tensor:
    """Pick tokens: `values` (B or 1, N, ...) at `index` (B, ...) of int64 gives (B, ..., *values.shape[2:]).

    The index may have any number of dimensions after the batch: (B, K) picks a context, (B, M, T) target blocks.
    Values with a batch of one (positions of a grid, say) are shared by all samples.
    """
    batch, tokens = values.shape[:2]
    rows = index
    if batch > 1:
        if batch != index.shape[0]:
            raise ValueError(f"values hold {batch} samples and the index {index.shape[0]}: they must be the same")
        offset = torch.arange(batch, device=index.device) * tokens
        rows = index + offset.view(-1, *[1] * (index.ndim - 1))
    picked = values.flatten(0, 1).index_select(0, rows.flatten())
    return picked.view(*index.shape, *values.shape[2:])


def pool(features: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean over the tokens where `valid` (B, N) is True, or all: (B, N, D) to (B, D), or (B, N, L, D) to (B, L, D)."""
    if valid is None:
        return features.mean(1)
    valid = valid.reshape(*valid.shape, *[1] * (features.ndim - 2))
    return features.masked_fill(~valid, 0).sum(1) / valid.sum(1).clamp(min=1)


class Ragged(ABC):
    """Raw values of tokens that differ in size, such as subgraphs: a batch of B samples of N tokens.

    Only the embedding that the modality names in `TokenSpec.embed` looks inside.
    """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """(B, N), or more where the tokens agree on further sizes."""

    @abstractmethod
    def take(self, index: Tensor, valid: Tensor | None = None) -> Ragged:
        """The tokens at `index` (B, K) in that order; slots where `valid` (B, K) is False hold nothing."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """What a tokenizer makes of a batch: raw pieces and where each lies. Nothing is embedded yet.

    Attributes:
        values: (B, N, ...) raw content of each token (pixels of a patch, points of a group); `Ragged` where tokens
            differ in size.
        positions: (B or 1, N, P) float coordinates (row/column, time/row/column, xyz, ...).
        grid: sizes of the regular grid that the tokens fill in raster order, or None.
        valid: (B, N) bool, False for padding, where samples have different numbers of tokens, else None.
    """

    values: Tensor | Ragged
    positions: Tensor
    grid: tuple[int, ...] | None = None
    valid: Tensor | None = None

    @property
    def batch_size(self) -> int:
        """B, the number of samples."""
        return self.values.shape[0]

    @property
    def count(self) -> int:
        """N, the number of tokens of a sample (padding included)."""
        return self.positions.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the tokens lie."""
        return self.positions.device

    def take(self, keep: Tensor, keep_valid: Tensor | None = None) -> Tokens:
        """The tokens at `keep` (B, K). The result fills no grid; slots where `keep_valid` is False are padding."""
        valid = keep_valid if self.valid is None else take(self.valid, keep)
        if self.valid is not None and keep_valid is not None:
            valid = valid & keep_valid  # type: ignore[operator]
        raw = self.values
        values = raw.take(keep, valid) if isinstance(raw, Ragged) else take(raw, keep)
        return replace(self, values=values, positions=take(self.positions, keep), grid=None, valid=valid)


@dataclass(frozen=True, kw_only=True)
class Masks:
    """Which tokens are context and which are targets; one index tensor each, of one size for the whole batch.

    Attributes:
        context: (B, K) int64 indices into N, distinct within a sample.
        targets: (B, M, T) int64 indices into N; blocks may overlap each other, never the context.
        context_valid: (B, K) bool, False for filler slots, or None when all are real.
        targets_valid: (B, M, T) bool, likewise.
    """

    context: Tensor
    targets: Tensor
    context_valid: Tensor | None = None
    targets_valid: Tensor | None = None

    def to(self, device: torch.device) -> Masks:
        """The same masks on `device`, copied without waiting for it."""

        def move(index: Tensor | None) -> Tensor | None:
            return None if index is None else index.to(device, non_blocking=True)

        return Masks(
            context=self.context.to(device, non_blocking=True),
            targets=self.targets.to(device, non_blocking=True),
            context_valid=move(self.context_valid),
            targets_valid=move(self.targets_valid),
        )


@dataclass(frozen=True, kw_only=True)
class Latents:
    """What an encoder made of tokens, and where they lie; also what a predictor is told besides (a condition).

    Attributes:
        values: (B, K, D) representations, or (B, K, L, D) of several layers.
        positions: (B or 1, K, P) float coordinates; None for what lies nowhere (an action, a caption, a latent z).
        valid: (B, K) bool, False for filler, or None when all are real.
    """

    values: Tensor
    positions: Tensor | None = None
    valid: Tensor | None = None

    def pooled(self) -> Tensor:
        """Mean over the real tokens in float32: (B, D), or (B, L, D)."""
        return pool(self.values.float(), self.valid)

    def detach(self) -> Latents:
        """The same without gradient."""
        return replace(self, values=self.values.detach())


@dataclass(frozen=True, kw_only=True)
class Query:
    """What a predictor is asked: where the tokens lie that it should predict.

    Attributes:
        positions: (B, M, T, P) float coordinates of M blocks of T tokens.
        valid: (B, M, T) bool, False for filler, or None when all are real.
    """

    positions: Tensor
    valid: Tensor | None = None
