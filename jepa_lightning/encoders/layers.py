"""Select layers of an encoder by index, check them and stack their outputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jepa_lightning.encoders.base import Encoder


def layer_numbers(layers: Sequence[int], depth: int) -> tuple[int, ...]:
    """Convert indices of layers to numbers from 0 to depth - 1; negative ones count from the end.

    Args:
        layers: indices in any order, repeats allowed.
        depth: number of layers.

    Raises:
        ValueError: an index is out of range; the message gives the range.

    Examples:
        >>> from jepa_lightning.encoders import layer_numbers
        >>> layer_numbers((3, -1), 12)
        (3, 11)
    """
    for layer in layers:
        if not -depth <= layer < depth:
            raise ValueError(
                f"expected layers from 0 to {depth - 1}, or from -{depth} to -1 counted from the end, of an encoder "
                f"with {depth} layers; got {layer}"
            )
    return tuple(layer % depth for layer in layers)


def stack_layers(outputs: Mapping[int, Tensor], numbers: Sequence[int], last: int, norm: Callable) -> Tensor:
    """Stack the outputs of layers.

    Args:
        outputs: (B, K, D) by number of the layer.
        numbers: numbers of the requested layers, at least one.
        last: number of the encoder's last layer.
        norm: the encoder's final norm, applied to the last layer's output only.

    Returns:
        (B, K, L, D) in the order of `numbers`.
    """
    found = {number: norm(x) if number == last else x for number, x in outputs.items()}
    return torch.stack([found[number] for number in numbers], dim=2)


def check_layers(encoder: Encoder, layers: Sequence[int]) -> None:
    """Check that `encoder(tokens, layers=layers)` can be called. An empty `layers` always can.

    Raises:
        ValueError: the encoder's `forward` takes no `layers`, or it has no layer with one of these indices.
    """
    if not layers:
        return
    if not takes_layers(encoder):
        raise ValueError(
            f"expected an encoder whose forward takes `layers`, got {type(encoder).__name__}, which returns the output "
            f"of its last layer only: add `*, layers=()` to its forward (docs/encoders.md), or ask for one layer"
        )
    layer_numbers(layers, encoder.depth)


def takes_layers(encoder: Encoder) -> bool:
    """Return whether an encoder's `forward` has the parameter `layers`."""
    known = inspect.signature(encoder.forward).parameters
    return "layers" in known or any(p.kind is p.VAR_KEYWORD for p in known.values())
