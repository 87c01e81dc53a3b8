"""The tokens of an encoder's last layers, or of any layers, on one scale."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_lightning.encoders.base import Encoder
from jepa_lightning.encoders.layers import check_layers, layer_numbers
from jepa_lightning.tokens import Tokens


def encode_layers(encoder: Encoder, tokens: Tokens, layers: Sequence[int]) -> list[Tensor]:
    """Encode all tokens by some layers of an encoder: (B, N, D) each, in the order of `layers`.

    The last layer's is the encoder's output, with its own norm. Those of the layers before are layer-normed, token by
    token, without affine: no norm was trained for them, and their scale grows from layer to layer.

    Args:
        encoder: in eval mode.
        tokens: a batch.
        layers: indices of the layers, at least one; negative ones count from the end.

    Raises:
        ValueError: there is no such layer, or an encoder that gives its last one alone.
    """
    last = encoder.depth - 1
    if tuple(layers) == (-1,):
        return [encoder(tokens)]
    check_layers(encoder, layers)
    numbers = layer_numbers(layers, encoder.depth)
    outputs = encoder(tokens, layers=numbers).float().unbind(2)
    return [x if number == last else F.layer_norm(x, x.shape[-1:]) for number, x in zip(numbers, outputs, strict=True)]


def encode_last(encoder: Encoder, tokens: Tokens, number: int = 1) -> Tensor:
    """Encode all tokens by the last layers of an encoder: (B, N, number D), the last layer's at the end.

    The norms are those of `encode_layers`. I-JEPA's linear evaluation (Assran et al. 2023, appendix A) takes the last
    four layers' pooled outputs in this way.

    Args:
        encoder: in eval mode.
        tokens: a batch.
        number: how many layers, from 1 to the encoder's depth; 1 is the encoder's output as it is.

    Raises:
        ValueError: more layers than there are, or an encoder that gives its last one alone.
    """
    if number == 1:
        return encoder(tokens)
    check_count(encoder, number)
    return torch.cat(encode_layers(encoder, tokens, tuple(range(-number, 0))), dim=2)


def check_count(encoder: Encoder, number: int) -> None:
    """See that an encoder can give its last `number` layers.

    Raises:
        ValueError: it cannot.
    """
    if not 1 <= number <= encoder.depth:
        raise ValueError(f"expected from 1 to {encoder.depth} layers, as many as the encoder has, got {number}")
    if number > 1:
        check_layers(encoder, range(-number, 0))
