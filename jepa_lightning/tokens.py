"""Data passed between the parts of a JEPA: `Tokens`, `Masks`, `Latents` and `Query`.

Letters used everywhere: B batch, N tokens, D width, K kept context tokens, M target blocks, T tokens per block,
P position coordinates, L layers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor


def take(values: Tensor, index: Tensor) -> Tensor:
    """Pick tokens: `values` (B or 1, N, ...) at `index` (B, ...) of int64 gives (B, ..., *values.shape[2:]).

    The index may have any number of dimensions after the batch: (B, K) picks a context, (B, M, T) target blocks.
    Values with a batch of one (such as grid positions) are shared by all samples.

    Raises:
        IndexError: an index is not from 0 to N - 1 (on CUDA a device-side assertion), never the next sample's token.
    """
    batch, tokens = values.shape[:2]
    rows = index
    if batch > 1:
        if batch != index.shape[0]:
            raise ValueError(f"values hold {batch} samples and the index {index.shape[0]}: they must be the same")
        offset = torch.arange(batch, device=index.device) * tokens
        rows = index + offset.view(-1, *[1] * (index.ndim - 1))
        rows = rows.masked_fill((index < 0) | (index >= tokens), batch * tokens)  # beyond all
    picked = values.flatten(0, 1).index_select(0, rows.flatten())
    return picked.view(*index.shape, *values.shape[2:])


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device without waiting for it.

    A copy from ordinary memory to a CUDA device waits for all that the device has been given before, so that a step
    could not be launched while the last one runs. This one goes through pinned memory.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def pool(features: Tensor, valid: Tensor | None = None) -> Tensor:
    """Average tokens where `valid` (B, N) is True, or all: (B, N, D) to (B, D), or (B, N, L, D) to (B, L, D)."""
    if valid is None:
        return features.mean(1)
    valid = valid.reshape(*valid.shape, *[1] * (features.ndim - 2))
    return features.masked_fill(~valid, 0).sum(1) / valid.sum(1).clamp(min=1)


class Ragged(ABC):
    """Raw values of tokens that differ in size, such as subgraphs: a batch of B samples of N tokens.

    Only the embedding in the modality's `TokenSpec.embed` reads them.
    """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Return (B, N), with further sizes if all tokens share them."""

    @abstractmethod
    def take(self, index: Tensor, valid: Tensor | None = None) -> Ragged:
        """Return the tokens at `index` (B, K) in that order; slots where `valid` (B, K) is False are empty."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The output of a tokenizer: raw values and positions of tokens, not yet embedded.

    Attributes:
        values: (B, N, ...) raw content of each token (pixels of a patch, points of a group); `Ragged` if tokens
            differ in size.
        positions: (B or 1, N, P) float coordinates (row/column, time/row/column, xyz, ...).
        grid: sizes of the regular grid that the tokens fill in raster order, or None.
        valid: (B, N) bool, False for padding, if samples have different numbers of tokens, else None.
        units: what tokens are parts of, by name (the "word" and the "sentence" of a text): (B, N) int64, the number of
            each token's unit in its sample, ascending; -1 for tokens of none. Maskers of whole units read them.
    """

    values: Tensor | Ragged
    positions: Tensor
    grid: tuple[int, ...] | None = None
    valid: Tensor | None = None
    units: Mapping[str, Tensor] | None = None

    @property
    def batch_size(self) -> int:
        """Return B, the number of samples."""
        return self.values.shape[0]

    @property
    def count(self) -> int:
        """Return N, the number of tokens per sample (padding included)."""
        return self.positions.shape[1]

    @property
    def device(self) -> torch.device:
        """Return the device of the tokens."""
        return self.positions.device

    def take(self, keep: Tensor, keep_valid: Tensor | None = None) -> Tokens:
        """Return the tokens at `keep` (B, K), without grid and units; slots where `keep_valid` is False are padding."""
        valid = keep_valid if self.valid is None else take(self.valid, keep)
        if self.valid is not None and keep_valid is not None:
            valid = valid & keep_valid  # type: ignore[operator]
        raw = self.values
        values = raw.take(keep, valid) if isinstance(raw, Ragged) else take(raw, keep)
        positions = take(self.positions, keep)
        return replace(self, values=values, positions=positions, grid=None, valid=valid, units=None)


@dataclass(frozen=True, kw_only=True)
class Masks:
    """Indices of context and target tokens, of one size for the whole batch.

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
        """Copy the masks to `device` without synchronisation."""

        def move(index: Tensor | None) -> Tensor | None:
            return None if index is None else send(index, device)

        return Masks(
            context=send(self.context, device),
            targets=send(self.targets, device),
            context_valid=move(self.context_valid),
            targets_valid=move(self.targets_valid),
        )


@dataclass(frozen=True, kw_only=True)
class Latents:
    """The output of an encoder with positions; also the condition of a predictor.

    Attributes:
        values: (B, K, D) representations, or (B, K, L, D) of several layers.
        positions: (B or 1, K, P) float coordinates; None if there are none (an action, a caption, a latent z).
        valid: (B, K) bool, False for filler, or None when all are real.
    """

    values: Tensor
    positions: Tensor | None = None
    valid: Tensor | None = None

    def pooled(self) -> Tensor:
        """Average the real tokens in float32: (B, D), or (B, L, D)."""
        return pool(self.values.float(), self.valid)

    def detach(self) -> Latents:
        """Detach the values from the graph."""
        return replace(self, values=self.values.detach())


@dataclass(frozen=True, kw_only=True)
class Query:
    """The query of a predictor: positions of the tokens to predict.

    Attributes:
        positions: (B, M, T, P) float coordinates of M blocks of T tokens.
        valid: (B, M, T) bool, False for filler, or None when all are real.
        mask: number of the draw of masks that is asked for, from 0; predictors with a mask token for each need it.
    """

    positions: Tensor
    valid: Tensor | None = None
    mask: int = 0
