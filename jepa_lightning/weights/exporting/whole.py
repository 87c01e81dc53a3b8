"""An encoder as one module of tensors in, tensors out: what is traced and written."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from jepa_lightning.encoders.pooling import pool_tokens
from jepa_lightning.loading import Frozen
from jepa_lightning.modality import Batch
from jepa_lightning.patches import unpatchify
from jepa_lightning.tokens import Ragged, Tokens


class Whole(nn.Module):
    """From a raw sample to its vector and tokens: the tokenizer, the encoder and the mean over tokens.

    Args:
        frozen: the encoder.
        key: of the raw data in a batch.
    """

    def __init__(self, frozen: Frozen, key: str) -> None:
        super().__init__()
        self.tokenizer, self.encoder, self.names = frozen.tokenizer, frozen.encoder, (key,)

    def forward(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """(B, ...) to (B, D) and (B, N, D)."""
        tokens = self.tokenizer({self.names[0]: raw})
        encoded = self.encoder(tokens)
        return pool_tokens(encoded, tokens.valid), encoded


class OnTokens(nn.Module):
    """The encoder of ragged tokens: the tensors that a tokenizer made, to vector and tokens.

    Subgraphs have no rectangular raw form; their tensors are the input, of any sizes.

    Args:
        frozen: the encoder.
        tokens: an example.
    """

    def __init__(self, frozen: Frozen, tokens: Tokens) -> None:
        super().__init__()
        self.encoder, self.example = frozen.encoder, tokens
        values: Any = tokens.values
        fields = {field.name: getattr(values, field.name) for field in dataclasses.fields(values)}
        self.fields = [name for name, value in fields.items() if isinstance(value, Tensor)]
        counts = (tokens.batch_size, tokens.count)
        self.sizes = [name for name, value in fields.items() if value == counts]
        self.names = (*self.fields, "positions", *(() if tokens.valid is None else ("valid",)))

    def inputs(self, tokens: Tokens) -> tuple[Tensor, ...]:
        """The input of a batch of tokens."""
        tensors = [getattr(tokens.values, name) for name in self.fields]
        return (*tensors, tokens.positions, *(() if tokens.valid is None else (tokens.valid,)))

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        """Tensors in the order of `names`, to (B, D) and (B, N, D)."""
        named = dict(zip(self.names, given, strict=True))
        positions, valid = named.pop("positions"), named.pop("valid", None)
        size = (positions.shape[0], positions.shape[1])
        values: Any = dataclasses.replace(self.example.values, **named, **dict.fromkeys(self.sizes, size))  # type: ignore[type-var]
        encoded = self.encoder(Tokens(values=values, positions=positions, valid=valid))
        return pool_tokens(encoded, valid), encoded


def as_module(frozen: Frozen, batch: Batch, other: Batch) -> tuple[Any, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The module to write, its input on a batch, and that on a batch of another size.

    Raises:
        ValueError: the batch has no raw tensor and no ragged tokens.
    """
    key = raw_key(batch)
    if key is not None:
        return Whole(frozen, key).eval(), (batch[key],), (other[key],)
    tokens = frozen.tokenizer(batch)
    if not isinstance(tokens.values, Ragged) or not dataclasses.is_dataclass(tokens.values):
        raise ValueError(f"expected a batch with one tensor, or ragged tokens, got {sorted(batch)}: nothing to trace")
    module = OnTokens(frozen, tokens).eval()
    return module, module.inputs(tokens), module.inputs(frozen.tokenizer(other))


def raw_key(batch: Mapping[str, Any]) -> str | None:
    """The one key of a batch that holds raw data as a tensor; None where there is none."""
    found = [key for key, value in batch.items() if isinstance(value, Tensor) and key not in ("id", "length", "labels")]
    return found[0] if len(found) == 1 else None


def images(tokens: Tokens) -> Tensor:
    """Put patches of a grid together again: images (B, C, H, W), or clips (B, C, T, H, W) of tubelets."""
    values: Any = tokens.values
    return unpatchify(values, tokens.grid or ())


def reference(frozen: Frozen, batch: Batch) -> tuple[Tensor, Tensor]:
    """Vector and tokens of a batch by the encoder as it is."""
    with torch.no_grad():
        tokens = frozen.tokenizer(batch)
        encoded = frozen.encoder(tokens)
        return pool_tokens(encoded, tokens.valid), encoded
