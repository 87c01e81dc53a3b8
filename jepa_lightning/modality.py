"""What a modality plug-in supplies: a tokenizer, a masker and an encoder; labels come with the data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from jepa_lightning.config.shown import Shown, ShownModule
from jepa_lightning.encoders.base import Encoder, EncoderFactory, TokenSpec
from jepa_lightning.maskers.base import Masker
from jepa_lightning.randomness import isolate_rng
from jepa_lightning.tokens import Masks, Tokens

__all__ = ["Batch", "EncoderFactory", "IncompleteModality", "Modality", "Tokenizer", "estimate_statistics"]

STATISTICS_BATCHES = 32  # training batches that a tokenizer's statistics are estimated from

Batch = dict[str, Any]
"""The modality's own key (`image`, `video`, ...), `labels` (name to tensor) where there are any, and `id`.

With several views, `views` is a list of dicts with the modality's own key; the first holds the batch's own tensors.
"""


_MUST_SET = ("name", "spec", "tokenizer", "masker", "encoder")


class IncompleteModality(AttributeError, ValueError):
    """A modality does not set one of the attributes that every modality has; the message says which."""


class Modality(Shown, ABC):
    """A kind of data, as far as a JEPA needs to know it.

    Subclass it and set the attributes (and `name`); everything else in the framework is generic. To change a piece,
    override it in Python or name another class for it in YAML.

    Attributes:
        name: of the kind of data, e.g. "image"; most often also the key of the raw data in a batch.
        spec: what the encoder is told about a token.
        tokenizer: parameter-free module, batch to `Tokens`.
        masker: draws contexts and targets.
        encoder: the context encoder; the module makes the target from it.
    """

    name: str
    spec: TokenSpec
    tokenizer: Tokenizer
    masker: Masker
    encoder: Encoder

    def draw_masks(self, batch: Batch, masks: list[Masks]) -> list[Tensor] | None:
        """Pictures of what each sample shows and hides: one a sample, or None for no pictures.

        A picture is uint8 (3, H, W), or (F, 3, H, W) for a moving one of F frames.
        """
        return None

    def draw_features(self, batch: Batch, tokens: Tokens, colours: Tensor) -> list[Tensor] | None:
        """Pictures of features: `colours` (B, N, 3) in 0-1 for each token; as `draw_masks`."""
        return None

    if not TYPE_CHECKING:  # or mypy would take any attribute for one of ours

        def __getattr__(self, name: str) -> Any:
            if name in _MUST_SET:  # called only where the attribute was not found
                raise IncompleteModality(
                    f"expected {type(self).__name__} to set {name}, which every modality has, got none: set "
                    f"self.{name} in its __init__, or for all in the class"
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def draw_samples(self, batch: Batch) -> list[Tensor] | None:
        """Pictures of the samples as they are; as `draw_masks`."""
        return None

    def raw_features(self, batch: Batch) -> Tensor | None:
        """Features without learning, (B, D) float, as a floor for probes; None where there are none."""
        return None


class Tokenizer(ShownModule, nn.Module, ABC):
    """Cuts a batch into tokens and says where each lies. It has no parameters and runs once a step.

    Attributes:
        needs_statistics: whether `estimate` is to be called before training.
    """

    needs_statistics: bool = False

    def estimate(self, batches: Iterable[Batch]) -> None:
        """Learn the data's statistics (a mean, a spread) from training batches, and keep them in buffers."""

    @abstractmethod
    def forward(self, batch: Batch) -> Tokens:
        """Tokens of a batch, on the batch's device."""


class Estimating(Protocol):
    """What learns statistics of the data before training: a tokenizer, a pretext."""

    @property
    def needs_statistics(self) -> bool:
        """Whether `estimate` is to be called."""

    def estimate(self, batches: Iterable[Batch]) -> None:
        """Learn them from training batches."""


def estimate_statistics(part: Estimating, loader: Iterable[Batch], device: torch.device) -> None:
    """Let a tokenizer or a pretext learn its statistics from the first training batches.

    The same on every rank; the run's own random numbers stay as they are.
    """
    with isolate_rng():
        torch.manual_seed(0)
        part.estimate(
            {k: v.to(device) if hasattr(v, "to") else v for k, v in batch.items()}
            for batch in islice(loader, STATISTICS_BATCHES)
        )
