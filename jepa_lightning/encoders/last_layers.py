"""The tokens of an encoder's last layers, side by side."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_lightning.encoders.base import Encoder
from jepa_lightning.encoders.layers import check_layers
from jepa_lightning.tokens import Tokens


def encode_last(encoder: Encoder, tokens: Tokens, number: int = 1) -> Tensor:
    """Encode all tokens by the last layers of an encoder: (B, N, number D), the last layer's at the end.

    The last part is the encoder's output, with its own norm. The outputs of the layers before are layer-normed, token
    by token, without affine: no norm was trained for them, and their scale grows from layer to layer. I-JEPA's linear
    evaluation (Assran et al. 2023, appendix A) takes the last four layers' pooled outputs in this way.

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
    x = encoder(tokens, layers=tuple(range(-number, 0))).float()
    return torch.cat([F.layer_norm(x[:, :, :-1], x.shape[-1:]), x[:, :, -1:]], dim=2).flatten(2)


def check_count(encoder: Encoder, number: int) -> None:
    """See that an encoder can give its last `number` layers.

    Raises:
        ValueError: it cannot.
    """
    if not 1 <= number <= encoder.depth:
        raise ValueError(f"expected from 1 to {encoder.depth} layers, as many as the encoder has, got {number}")
    if number > 1:
        check_layers(encoder, range(-number, 0))
