"""Base class of encoders, and the spec of their tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from torch import Tensor, nn

from jepa_lightning.tokens import Tokens


@dataclass(frozen=True, kw_only=True)
class TokenSpec:
    """Description of a token, from which an encoder is built.

    Attributes:
        shape: shape of one token's raw values, e.g. (3, 16, 16) for an RGB patch; for ragged tokens, that of one
            member.
        grid: number of tokens along each axis, e.g. (14, 14), or None without a grid.
        positions: builds, for a width, the module that embeds (..., P) coordinates into (..., width).
        embed: builds, for a width, the module that embeds raw values (B, K, *shape), or `Ragged` ones, into
            (B, K, width), each token separately, if a linear layer on the flat values does not fit (points in any
            order). None for the linear layer.
        axes: number P of coordinates; None: as many as the grid has.
        other_shapes: further shapes of raw values that the tokens of some batches have, all of a batch the same one
            (patches of images where others are tubelets of clips); `embed` tells them apart.
    """

    shape: tuple[int, ...]
    grid: tuple[int, ...] | None
    positions: Callable[[int], nn.Module]
    embed: Callable[[int], nn.Module] | None = None
    axes: int | None = None
    other_shapes: tuple[tuple[int, ...], ...] = ()


class Encoder(nn.Module, ABC):
    """Encode all tokens or the kept ones.

    Hidden tokens are dropped before anything is computed from them, so they cannot leak. Only `forward` is
    called from outside (a sharded module allows nothing else).
    """

    dim: int
    """Width D of the output."""

    @property
    def layers(self) -> Iterable[nn.Module]:
        """Return the layers in order: the units that are checkpointed, compiled and sharded.

        By default the `self.layers` that a subclass sets; override it if they are elsewhere.
        """
        return self._modules.get("layers") or ()  # type: ignore[return-value]

    @cached_property  # not a property, so that a subclass may set self.depth
    def depth(self) -> int:
        """Return the number of layers."""
        return len(list(self.layers))

    _frozen: tuple[nn.Module, ...] = ()

    def freeze(self, *parts: nn.Module) -> None:
        """Leave parts of this encoder as they are: without gradient, and in eval mode whatever its own mode is."""
        self._frozen = (*self._frozen, *parts)
        for part in parts:
            part.requires_grad_(False).train(False)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; frozen parts stay in eval mode."""
        super().train(mode)
        for part in self._frozen:
            part.train(False)
        return self

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """Return what gives the number of a parameter's layer by the parameter's name.

        0 for what comes before the layers (embedding, positions, tokens), l for layer l counted from 1, and the last
        layer's number for what comes after it (the final norm). "Before" and "after" are told by the order in which
        parameters are registered. timm's helpers, such as `param_groups_layer_decay`, ask for this method.
        """
        of_layer = {id(p): n for n, layer in enumerate(self.layers, start=1) for p in layer.parameters()}
        found: dict[str, int] = {}
        reached = 0
        for name, parameter in self.named_parameters():
            reached = of_layer.get(id(parameter), reached)
            found[name] = reached
        return found.__getitem__

    @abstractmethod
    def forward(
        self,
        tokens: Tokens,
        keep: Tensor | None = None,
        keep_valid: Tensor | None = None,
        *,
        layers: Sequence[int] = (),
    ) -> Tensor:
        """Encode all tokens or the kept ones.

        With `layers`, the result holds the outputs of these layers, in this order. The last layer's output includes
        the encoder's final norm; outputs of earlier layers are not normed, since no norm was trained for them.
        Layers after the highest one requested are not computed. All outputs carry gradients.

        `layers` is passed only if it is not empty, so an encoder without that parameter works wherever one layer
        is enough; see `jepa_lightning.encoders.layers.check_layers`.

        Args:
            tokens: a batch of N raw tokens per sample.
            keep: (B, K) int64 indices of the tokens to encode; None for all.
            keep_valid: (B, K) bool, False for slots that are filler, or None.
            layers: indices from 0 to depth - 1; negative ones count from the end (-1 is the last layer). Empty for
                the encoder's output.

        Returns:
            (B, K, D), or (B, N, D) without `keep`; with L `layers` (B, K, L, D) or (B, N, L, D). Rows of padding hold
            finite but meaningless numbers.

        Raises:
            ValueError: there is no layer with such an index.
        """


EncoderFactory = Callable[[TokenSpec], Encoder]
"""Builds an encoder from a `TokenSpec`, as an `Encoder` class does."""
