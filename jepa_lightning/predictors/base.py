"""Base class of predictors, and the spec they are built from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from jepa_lightning.encoders.base import TokenSpec
from jepa_lightning.tokens import Latents, Query


@dataclass(frozen=True, kw_only=True)
class PredictorSpec:
    """The spec a predictor is built from. Adding a field breaks no predictor.

    Attributes:
        dim: width D of the context's representations.
        out: width of the targets' representations.
        token: the tokens' spec, which builds position embeddings.
        condition: width C of a condition (an action, a caption, a latent z); None without one.
        parts: widths of what a condition is made of, one behind the other (an action, a robot's own state); empty: it
            is one thing.
        history: past states in the context, of a pretext that predicts the next one.
        frame: grid that the tokens of a state fill, where they do.
        predict_context: whether to predict the context's tokens, too, before those of the query; see `Predictor`.
    """

    dim: int
    out: int
    token: TokenSpec
    condition: int | None = None
    parts: tuple[int, ...] = ()
    history: int = 1
    frame: tuple[int, ...] | None = None
    predict_context: bool = False


class Predictor(nn.Module, ABC):
    """Predict the target's representations from those of the context.

    Only `forward` is called from outside (a sharded module allows nothing else).
    """

    causal: ClassVar[bool] = False
    """Whether, of the states of a trajectory, it predicts what follows each of them at once, from those up to it alone;
    it then takes one action for each state as its condition. See `FrameCausalPredictor`."""

    @property
    def layers(self) -> Iterable[nn.Module]:
        """Return the layers in order: the units that are checkpointed, compiled and sharded.

        By default the `self.layers` that a subclass sets; override it if they are elsewhere.
        """
        return self._modules.get("layers") or ()  # type: ignore[return-value]

    @abstractmethod
    def forward(self, context: Latents, query: Query, condition: Latents | None = None) -> Tensor:
        """Predict all target blocks of every sample.

        Args:
            context: (B, K, D) representations of the context, with positions.
            query: (B, M, T, P) positions of the tokens to predict.
            condition: (B, S, C) condition of S tokens; None if the spec has no condition.

        Returns:
            (B, M, T, out); with the spec's `predict_context` (B, M, K + T, out), where the K context tokens come first,
            as predicted beside each block. Rows of filler hold finite but meaningless numbers.
        """


PredictorFactory = Callable[[PredictorSpec], Predictor]
"""Builds a predictor from its spec, as a `Predictor` class does."""


class NoPredictor(Predictor):
    """Placeholder for a pretext without predictor."""

    def forward(self, context: Latents, query: Query, condition: Latents | None = None) -> Tensor:
        """Raise an error."""
        raise TypeError("this pretext predicts nothing: its predictor_spec is None")


def check_condition(width: int | None, condition: Latents | None, name: str) -> None:
    """Check that a predictor gets a condition if and only if it was built for one.

    Raises:
        ValueError: a missing or unexpected condition, or one of another width.
    """
    if width is None and condition is not None:
        raise ValueError(f"{name} was built without a condition and got one: give PredictorSpec its width, condition=")
    if width is not None and condition is None:
        raise ValueError(f"{name} was built for a condition of width {width} and got none: pass it to the predictor")
    if condition is not None and condition.values.shape[-1] != width:
        raise ValueError(
            f"expected a condition (B, S, {width}), as {name} was built for, got {tuple(condition.values.shape)}"
        )
