"""What every target is: who encodes y, and with which gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from jepa_lightning.config.shown import ShownModule
from jepa_lightning.encoders.base import Encoder, TokenSpec
from jepa_lightning.precision import autocast_in_half
from jepa_lightning.schedules import Schedule
from jepa_lightning.tokens import Tokens


class Target(ShownModule, nn.Module, ABC):
    """Encodes what is to be predicted.

    Built from the context encoder and the tokens' spec. Probes, pictures, `load` and the commands ask it which encoder
    a run is judged by (`evaluated`); none of them assumes a teacher.
    """

    schedules: Mapping[str, Schedule] = {}
    """Its own schedules by name, which are logged as `train/NAME`."""

    owns_encoder: ClassVar[bool] = True
    """Whether `encoder` is a copy of its own: then it is compiled, sharded and saved beside the context encoder."""

    encoder: Encoder
    """The encoder that makes the targets."""

    @property
    def dim(self) -> int:
        """Width of the targets."""
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
        """The encoder that a run is judged by and hands out, of the context `encoder` and the target's."""
        return self.encoder

    def start(self, total: int) -> None:
        """Check the settings before training.

        Args:
            total: optimiser steps of the run.

        Raises:
            ValueError: a setting makes no sense.
        """

    def update(self, student: Encoder, step: int, total: int) -> None:
        """Follow the context encoder after optimiser step `step` of `total`; most targets have nothing to do."""


TargetFactory = Callable[[Encoder, TokenSpec], Target]
"""Builds a target from the context encoder and the tokens' spec; a `Target` class does."""


class FrozenTarget(Target):
    """A target with an encoder of its own that no gradient reaches; always in eval mode."""

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
        """Representations without gradient; see `Target.forward`."""
        return encode(self.computing(tokens.device), tokens, keep, keep_valid, layers=layers)

    def computing(self, device: torch.device) -> Encoder:
        """The encoder to compute with on `device`: a cheaper one that gives the same, where there is one."""
        return self.encoder


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Inside, `module` is in eval mode, without gradients; each of its parts returns to the mode it was in."""
    training = [part for part in module.modules() if part.training]
    try:
        for part in training:
            part.training = False
        with torch.no_grad():
            yield
    finally:
        for part in training:
            part.training = True


def encode(
    encoder: Encoder,
    tokens: Tokens,
    keep: Tensor | None = None,
    keep_valid: Tensor | None = None,
    *,
    layers: tuple[int, ...] = (),
) -> Tensor:
    """Call an encoder in the trainer's precision; one without `layers` serves as long as none are asked for."""
    with autocast_in_half(tokens.device):
        return encoder(tokens, keep, keep_valid, **({"layers": layers} if layers else {}))


def represent(encoder: Encoder, tokens: Tokens, *, layers: tuple[int, ...] = ()) -> Tensor:
    """Representations of all tokens by a frozen `encoder`: no dropout, no gradient; (B, N, D), or (B, N, L, D)."""
    with evaluating(encoder):
        return encode(encoder, tokens, layers=layers)
