"""Which kernels attention has on a GPU: those that are planned for one size, or those that take any."""

from __future__ import annotations

import torch
from torch import Tensor

DEVICES = {"cuda"}
"""Devices whose kernels are meant."""

MANY = 64
"""Sizes that a run may have before it counts as one whose sizes change."""

_sizes: set[tuple[int, ...]] = set()


def note_size(x: Tensor) -> None:
    """Note the size of what attends; from `MANY` on, attention leaves cuDNN's kernels to others for good.

    cuDNN plans an attention anew for each size, and the CPU plans longer than the GPU computes: a step of ViT-S/16 with
    masks whose sizes change took several times as long as one with fixed sizes (`benchmarks/README.md`, section gpu).
    This turns torch's own switch (`torch.backends.cuda.enable_cudnn_sdp`), which is one of the process; the values
    differ as those of any two kernels do.

    Args:
        x: (B, N, W) tokens.

    Examples:
        >>> import torch
        >>> from jepa_lightning.scale.attention import note_size
        >>> note_size(torch.zeros(2, 16, 8))
    """
    if x.device.type not in DEVICES or len(_sizes) >= MANY:
        return
    _sizes.add(tuple(x.shape))
    if len(_sizes) >= MANY:
        torch.backends.cuda.enable_cudnn_sdp(False)
