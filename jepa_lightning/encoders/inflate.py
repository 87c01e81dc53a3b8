"""From an image trunk of timm to one for tubelets (Carreira & Zisserman 2017, section 2.4)."""

from __future__ import annotations

import math
from typing import Any

import torch
from timm.models.naflexvit import NaFlexVit
from torch import Tensor, nn

from jepa_lightning.encoders.positions import grid_positions, sincos
from jepa_lightning.randomness import isolate_rng

TIME = "time_embed"
_STD = 0.02  # of the embedding of time at the start: that of a fresh ViT's learned positions


def inflate(model: Any, *, frames: int, depth: int) -> None:
    """Change a timm model in place to take tubelets of `depth` frames at `frames` places in time.

    - The patch embedding is repeated over the tubelet's frames and divided by their number, so that a still clip is
      embedded as its frame was. A convolution becomes one in 3-D; NaFlexVit's linear map takes the frames in turn.
    - With more than one place in time, the model gets a table `time_embed` (1, frames, 1, D), which is added to what
      the model adds to a frame's patches. It is learned, and begins as sin-cos of std 0.02: small beside the patches,
      so that weights trained on images are not disturbed, and not zero, so that the order of frames is told at once.
      It stands alone, so it is not weight-decayed.

    With one frame and one place, nothing is changed.
    """
    if depth > 1:
        _inflate_embedding(model, depth)
    if frames > 1:
        table = sincos(grid_positions((frames,)), model.embed_dim)[0]  # its mean square is a half
        model.register_parameter(TIME, nn.Parameter(_STD * math.sqrt(2) * table[None, :, None]))


def hold_tubelets(state: dict[str, Tensor], model: Any, *, depth: int) -> bool:
    """Whether weights were saved from a TimmEncoder on tubelets; `model` is the image model, not inflated yet."""
    if not all(key.startswith("model.") for key in state):
        return False
    part = "embeds" if isinstance(model, NaFlexVit) else "patch_embed"
    weight = state.get(f"model.{part}.proj.weight")
    if f"model.{TIME}" in state:
        return True
    if weight is None or weight.ndim != 2:
        return weight is not None and weight.ndim == 5
    return depth > 1 and weight.shape[1] == depth * model.embeds.proj.in_features  # NaFlexVit's linear map


def _inflate_embedding(model: Any, depth: int) -> None:
    embed: Any = model.embeds if isinstance(model, NaFlexVit) else model.patch_embed
    old = embed.proj
    bias = old.bias is not None
    new: nn.Linear | nn.Conv3d
    with isolate_rng():  # the layers' own initialisation is overwritten: draw nothing for it
        if isinstance(old, nn.Linear):
            new = nn.Linear(depth * old.in_features, old.out_features, bias=bias)
            weight = old.weight.repeat(1, depth)
        else:
            size = (depth, *old.kernel_size)
            new = nn.Conv3d(old.in_channels, old.out_channels, size, stride=size, bias=bias)
            weight = old.weight.unsqueeze(2).expand(-1, -1, depth, -1, -1)
    with torch.no_grad():
        new.weight.copy_(weight / depth)
        if new.bias is not None:
            new.bias.copy_(old.bias)
    embed.proj = new
