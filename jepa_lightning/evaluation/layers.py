"""The tokens of an encoder's last blocks, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_lightning.encoders import Encoder
from jepa_lightning.tokens import Tokens


def encode_layers(encoder: Encoder, tokens: Tokens, layers: int = 1) -> Tensor:
    """What the last blocks of an encoder make of all tokens: (B, N, layers D), the last block's at the end.

    The last part is the encoder's output, with its own norm. The outputs of the blocks before are layer-normed, token
    by token, without affine: no norm was trained for them, and their scale grows from block to block. What blocks
    carry in front of the tokens (class and register tokens of timm's models) is cut off. I-JEPA's linear evaluation
    (Assran et al. 2023, appendix A) takes the last four layers' pooled outputs in this way.

    Args:
        encoder: in eval mode.
        tokens: a batch.
        layers: how many blocks, from 1 to the encoder's depth; 1 is the encoder's output as it is.

    Raises:
        ValueError: more layers than blocks, or blocks whose outputs are no tokens.
    """
    check_layers(encoder.blocks, layers)
    if layers == 1:
        return encoder(tokens)
    outputs: list[Tensor] = []
    with ExitStack() as stack:
        for block in list(encoder.blocks)[-layers:-1]:
            stack.callback(block.register_forward_hook(_keep(outputs)).remove)
        last = encoder(tokens)
    count = last.shape[1]
    parts = [F.layer_norm(x[:, x.shape[1] - count :].float(), x.shape[-1:]) for x in outputs]
    return torch.cat([*parts, last.float()], dim=-1)


def check_layers(blocks: Iterable[nn.Module], layers: int) -> None:
    """See that there are so many blocks.

    Raises:
        ValueError: there are not.
    """
    depth = len(list(blocks))
    if not 1 <= layers <= depth:
        raise ValueError(f"expected from 1 to {depth} layers, the encoder's blocks, got {layers}")


def _keep(outputs: list[Tensor]) -> Callable[..., None]:
    def hook(module: nn.Module, given: Any, output: Any) -> None:
        if not isinstance(output, Tensor) or output.ndim != 3:
            raise ValueError(
                f"expected blocks that give tokens (B, N, D), got {type(output).__name__} of {type(module).__name__}: "
                "use layers 1 with this encoder"
            )
        outputs.append(output)

    return hook
