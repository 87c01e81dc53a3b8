"""What every predictor is, and what it is told when it is built."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from jepa_lightning.encoders.base import TokenSpec
from jepa_lightning.tokens import Latents, Query


@dataclass(frozen=True, kw_only=True)
class PredictorSpec:
    """What a predictor is told of what it will get; a field that is added breaks no predictor.

    Attributes:
        dim: width D of the context's representations.
        out: width of the targets' representations.
        token: the tokens' spec, which builds embeddings of positions.
        condition: width C of a condition (an action, a caption, a latent z); None where there is none.
        history: past states in the context, of a pretext that predicts the next one.
    """

    dim: int
    out: int
    token: TokenSpec
    condition: int | None = None
    history: int = 1


class Predictor(nn.Module, ABC):
    """Predicts the target's representations from those of the context.

    Only `forward` is called from outside (a sharded module allows nothing else).
    """

    @property
    def layers(self) -> Iterable[nn.Module]:
        """The layers in order: the units that are checkpointed, compiled and sharded.

        Those that a subclass sets as `self.layers`; override it where they lie elsewhere.
        """
        return self._modules.get("layers") or ()  # type: ignore[return-value]

    @abstractmethod
    def forward(self, context: Latents, query: Query, condition: Latents | None = None) -> Tensor:
        """Predict all target blocks of every sample.

        Args:
            context: (B, K, D) representations of the context and where they lie.
            query: (B, M, T, P) where the tokens to predict lie.
            condition: (B, S, C) what else is known, as S tokens; None where the spec has no condition.

        Returns:
            (B, M, T, out). Rows of filler hold finite but meaningless numbers.
        """


PredictorFactory = Callable[[PredictorSpec], Predictor]
"""Builds a predictor from its spec; a `Predictor` class does."""


class NoPredictor(Predictor):
    """Stands where a pretext has no predictor."""

    def forward(self, context: Latents, query: Query, condition: Latents | None = None) -> Tensor:
        """Refuse to predict."""
        raise TypeError("this pretext predicts nothing: its predictor_spec is None")


def check_condition(width: int | None, condition: Latents | None, name: str) -> None:
    """See that a predictor was given a condition just where it was built for one.

    Raises:
        ValueError: it was not, or the condition has another width.
    """
    if width is None and condition is not None:
        raise ValueError(f"{name} was built without a condition and got one: give PredictorSpec its width, condition=")
    if width is not None and condition is None:
        raise ValueError(f"{name} was built for a condition of width {width} and got none: hand it to the predictor")
    if condition is not None and condition.values.shape[-1] != width:
        raise ValueError(
            f"expected a condition (B, S, {width}), as {name} was built for, got {tuple(condition.values.shape)}"
        )
