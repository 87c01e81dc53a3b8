"""Base classes of a modality plug-in: tokenizer, masker and encoder."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, Self

import torch
from torch import Tensor, nn

from jepa_lightning.encoders.base import Encoder, EncoderFactory, TokenSpec
from jepa_lightning.maskers.base import Masker
from jepa_lightning.names.shown import Shown, ShownModule
from jepa_lightning.randomness import isolate_rng
from jepa_lightning.tokens import Masks, Tokens

__all__ = ["Batch", "EncoderFactory", "Extent", "IncompleteModality", "Modality", "Tokenizer", "estimate_statistics"]

STATISTICS_BATCHES = 32  # training batches that a tokenizer's statistics are estimated from

Batch = dict[str, Any]
"""The modality's own key (`image`, `video`, ...), `labels` (name to tensor) if there are any, and `id`.

With several views, `views` is a list of dicts with the modality's own key; the first holds the batch's own tensors.
"""


@dataclass(frozen=True)
class Extent:
    """The sizes of a raw sample, so that longer samples can be cut into segments of this size (`Segments`).

    Attributes:
        key: of the samples in a batch: (B, C, *sizes), or (B, *sizes).
        sizes: of a sample along the axes that can be cut: the last ones of the tensor.
        tokens: number of tokens of a sample.
        cut: settings of the data that are sizes along these axes, in order: {"frames": 16, "image_size": (32, 32)}.
        same: settings of the data that segments share with the whole: {"channels": 3}.
    """

    key: str
    sizes: tuple[int, ...]
    tokens: int
    cut: Mapping[str, Any]
    same: Mapping[str, Any] = field(default_factory=dict)

    def settings(self, parts: Sequence[int]) -> dict[str, Any]:
        """Return the settings of data whose samples are `parts` times as long along each axis."""
        found, left = dict(self.same), list(parts)
        for name, value in self.cut.items():
            if isinstance(value, tuple):
                found[name] = tuple(size * left.pop(0) for size in value)
            else:
                found[name] = value * left.pop(0)
        return found


_MUST_SET = ("name", "spec", "tokenizer", "masker", "encoder")


class IncompleteModality(AttributeError, ValueError):
    """A modality does not set a required attribute; the message names it."""


class Modality(Shown, ABC):
    """Base class of modalities: everything about a kind of data that a JEPA needs.

    Subclass it and set the attributes (and `name`); everything else in the framework is generic. To change a part,
    override it in Python or name another class in YAML.

    Attributes:
        name: name of the modality, e.g. "image"; usually also the key of the raw data in a batch.
        spec: description of a token for the encoder.
        tokenizer: parameter-free module that maps a batch to `Tokens`.
        masker: draws contexts and targets.
        encoder: the context encoder; the target is built from it.
        extent: sizes of a sample, of a modality whose samples can be cut into segments; else None.
        masks_legend: what the pictures of `draw_masks` show, to be written below them.
    """

    name: str
    extent: Extent | None = None
    masks_legend: str = "What the context shows, and the target blocks."
    spec: TokenSpec
    tokenizer: Tokenizer
    masker: Masker
    encoder: Encoder

    def using(self, tokenizer: Tokenizer, encoder: Encoder) -> Self:
        """Return the same modality with another tokenizer and encoder, such as loaded ones."""
        found = copy.copy(self)
        found.tokenizer, found.encoder = tokenizer, encoder
        return found

    def draw_masks(self, batch: Batch, masks: list[Masks]) -> list[Tensor] | None:
        """Draw context and targets of each sample: one picture per sample, or None for no pictures.

        A picture is uint8 (3, H, W), or (F, 3, H, W) for F frames.
        """
        return None

    def draw_features(self, batch: Batch, tokens: Tokens, colours: Tensor) -> list[Tensor] | None:
        """Draw features, given the colour of each token, `colours` (B, N, 3) in 0-1; see `draw_masks`."""
        return None

    if not TYPE_CHECKING:  # otherwise mypy would accept any attribute

        def __getattr__(self, name: str) -> Any:
            if name in _MUST_SET:  # called only if the attribute was not found
                raise IncompleteModality(
                    f"expected {type(self).__name__} to set {name}, which every modality has, got none: set "
                    f"self.{name} in its __init__, or for all in the class"
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def example(self, count: int, generator: torch.Generator) -> Batch | None:
        """Make a batch of `count` random samples, as the data give them, for `jepa_lightning.export`; None: cannot."""
        return None

    def draw_samples(self, batch: Batch) -> list[Tensor] | None:
        """Draw the samples; see `draw_masks`."""
        return None

    def raw_features(self, batch: Batch) -> Tensor | None:
        """Return features of the raw input, (B, D) float, as a baseline for probes; None if there are none."""
        return None


class Tokenizer(ShownModule, nn.Module, ABC):
    """Cut a batch into tokens with positions. It has no parameters and runs once per step.

    Attributes:
        needs_statistics: whether `estimate` must be called before training.
        statistics_batches: number of training batches that it is given.
    """

    needs_statistics: bool = False
    statistics_batches: int = STATISTICS_BATCHES

    def estimate(self, batches: Iterable[Batch]) -> None:
        """Estimate the data's statistics (mean, standard deviation) from training batches, and keep them in buffers."""

    @abstractmethod
    def forward(self, batch: Batch) -> Tokens:
        """Return the tokens of a batch, on the batch's device."""


class Estimating(Protocol):
    """A part that estimates statistics of the data before training: a tokenizer, a pretext."""

    @property
    def needs_statistics(self) -> bool:
        """Whether `estimate` is to be called."""

    def estimate(self, batches: Iterable[Batch]) -> None:
        """Estimate them from training batches."""


def estimate_statistics(part: Estimating, loader: Iterable[Batch], device: torch.device) -> None:
    """Estimate the statistics of a tokenizer or a pretext from the first training batches.

    They are the same on every rank. The run's random state is unchanged.
    """
    with isolate_rng():
        torch.manual_seed(0)
        part.estimate(
            {k: v.to(device) if hasattr(v, "to") else v for k, v in batch.items()}
            for batch in islice(loader, getattr(part, "statistics_batches", STATISTICS_BATCHES))
        )
