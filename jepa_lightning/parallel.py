"""The one place that checkpoints activations and compiles: what is done to the blocks before they train."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


def prepare_blocks(blocks: Iterable[nn.Module], *, checkpoint_activations: bool = False, compile: bool = False) -> None:
    """Change residual blocks in place: first activation checkpointing, then compilation of each block.

    Args:
        blocks: the blocks of an encoder or a predictor.
        checkpoint_activations: recompute each block in the backward pass instead of keeping its activations.
        compile: `torch.compile` each block. Token counts that change recompile it: use a masker of fixed size.
    """
    for block in blocks:
        if checkpoint_activations:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        if compile:
            block.compile()
