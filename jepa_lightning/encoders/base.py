"""What every encoder is, and what it is told about the tokens it will get."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from jepa_lightning.tokens import Tokens


@dataclass(frozen=True, kw_only=True)
class TokenSpec:
    """What a modality tells its encoder about one token.

    Attributes:
        shape: shape of one token's raw values, e.g. (3, 16, 16) for an RGB patch; of ragged ones, that of one member.
        grid: number of tokens along each axis, e.g. (14, 14), or None without a grid.
        positions: builds, for a width, the module that embeds (..., P) coordinates into (..., width).
        embed: builds, for a width, the module that embeds raw values (B, K, *shape), or `Ragged` ones, into
            (B, K, width), where a linear map of the flat values would not do (points in any order); each token by
            itself. None for the linear map.
    """

    shape: tuple[int, ...]
    grid: tuple[int, ...] | None
    positions: Callable[[int], nn.Module]
    embed: Callable[[int], nn.Module] | None = None


class Encoder(nn.Module, ABC):
    """Embeds tokens, all of them or the kept ones only.

    Hidden tokens are dropped before anything is computed from them, so nothing about them can leak. Only `forward` is
    called from outside (a sharded module allows nothing else).
    """

    dim: int
    """Width D of the output."""

    @property
    def layers(self) -> Iterable[nn.Module]:
        """The layers in order: the units that are checkpointed, compiled and sharded.

        Those that a subclass sets as `self.layers`; override it where they lie elsewhere.
        """
        return self._modules.get("layers") or ()  # type: ignore[return-value]

    @cached_property  # and not a property, so that a subclass may set self.depth
    def depth(self) -> int:
        """Number of layers."""
        return len(list(self.layers))

    @abstractmethod
    def forward(
        self,
        tokens: Tokens,
        keep: Tensor | None = None,
        keep_valid: Tensor | None = None,
        *,
        layers: Sequence[int] = (),
    ) -> Tensor:
        """Encode `tokens`, or those at `keep` (B, K) alone.

        With `layers`, the representations are the outputs of these layers, in this order. The last layer's is the
        encoder's output, with its final norm; those of the layers before it are as the layer gives them, without any
        norm, since none was trained for them. Layers after the highest one that is asked for are not computed. All of
        them carry gradients.

        `layers` is given only where it is not empty, so an encoder without that parameter serves all that needs one
        layer; see `jepa_lightning.encoders.layers.check_layers`.

        Args:
            tokens: a batch of N raw tokens a sample.
            keep: (B, K) int64 indices of the tokens to see; None for all.
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
"""How a modality is told of its encoder: anything that builds one from a `TokenSpec` (an `Encoder` class does)."""
