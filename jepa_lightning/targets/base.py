"""Base classes of targets: what encodes y, and with which gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from jepa_lightning.encoders.base import Encoder, TokenSpec
from jepa_lightning.encoders.pooling import evaluating
from jepa_lightning.names.shown import ShownModule
from jepa_lightning.precision import autocast_in_half
from jepa_lightning.schedules import Schedule
from jepa_lightning.tokens import Tokens


class Target(ShownModule, nn.Module, ABC):
    """Encode the targets of the prediction.

    Built from the context encoder and the tokens' spec. Probes, pictures, `load` and the commands use the encoder that
    `evaluated` returns; none of them assumes a teacher.
    """

    schedules: Mapping[str, Schedule] = {}
    """The target's schedules by name, logged as `train/NAME`."""

    owns_encoder: ClassVar[bool] = True
    """Whether `encoder` is a separate copy, which is compiled, sharded and saved beside the context encoder."""

    encoder: Encoder
    """The encoder of the targets."""

    @property
    def dim(self) -> int:
        """Return the width of the targets."""
        return self.encoder.dim

    @abstractmethod
    def forward(
        self,
        tokens: Tokens,
        keep: Tensor | None = None,
        keep_valid: Tensor | None = None,
        *,
        layers: tuple[int, ...] = (),
    ) -> Tensor:
        """Encode all tokens or the kept ones: (B, N or K, D), or of `layers` (B, N or K, L, D); see `Encoder`."""

    def of_encoded(self, encoded: Tensor) -> Tensor | None:
        """The targets where the context encoder has made them already: `Online`'s; None: call the target.

        Args:
            encoded: (B, N, D) of all tokens by the context encoder.
        """
        return None

    def evaluated(self, encoder: Encoder) -> Encoder:
        """Return the encoder that probes evaluate and `load` returns: the context `encoder` or the target's."""
        return self.encoder

    def counterpart(self, module: nn.Module) -> nn.Module:
        """Return what targets go through where predictions go through `module`, such as a projector of the pretext.

        The module itself by default; an `EMA` averages it. Call it once for each module, before training.
        """
        return module

    @property
    def counterparts(self) -> list[nn.Module]:
        """Return the modules of its own that `counterpart` returned; they are sharded and saved beside its encoder."""
        return []

    def begin(self, student: Encoder) -> None:
        """Begin anew from the context encoder, which got other weights; does nothing by default."""

    def start(self, total: int) -> None:
        """Check the settings before training.

        Args:
            total: number of optimiser steps of the run.

        Raises:
            ValueError: a setting is invalid.
        """

    def update(self, student: Encoder, step: int, total: int) -> None:
        """Update after optimiser step `step` of `total`; does nothing by default."""


TargetFactory = Callable[[Encoder, TokenSpec], Target]
"""Builds a target from the context encoder and the tokens' spec, as a `Target` class does."""


class FrozenTarget(Target):
    """A target with its own frozen encoder, always in eval mode."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode: no dropout, no drop path."""
        return super().train(False)

    @torch.no_grad()
    def forward(
        self,
        tokens: Tokens,
        keep: Tensor | None = None,
        keep_valid: Tensor | None = None,
        *,
        layers: tuple[int, ...] = (),
    ) -> Tensor:
        """Encode without gradient; see `Target.forward`."""
        return encode(self.computing(tokens.device), tokens, keep, keep_valid, layers=layers)

    def computing(self, device: torch.device) -> Encoder:
        """Return the encoder to use on `device`, possibly a cheaper one with the same output."""
        return self.encoder


def encode(
    encoder: Encoder,
    tokens: Tokens,
    keep: Tensor | None = None,
    keep_valid: Tensor | None = None,
    *,
    layers: tuple[int, ...] = (),
) -> Tensor:
    """Call an encoder in the trainer's precision; `layers` is passed only if not empty."""
    with autocast_in_half(tokens.device):
        return encoder(tokens, keep, keep_valid, **({"layers": layers} if layers else {}))


def represent(encoder: Encoder, tokens: Tokens, *, layers: tuple[int, ...] = ()) -> Tensor:
    """Encode all tokens with a frozen `encoder`, without dropout or gradient: (B, N, D), or (B, N, L, D)."""
    with evaluating(encoder):
        return encode(encoder, tokens, layers=layers)
