"""Which parameters of an encoder are fine-tuned, and how fast: by its layers."""

from __future__ import annotations

from typing import Any, Literal

from timm.layers import DropPath
from torch import nn

from jepa_lightning.encoders import Encoder
from jepa_lightning.optimization import decays

Unfreeze = Literal["all", "none"] | int


def unfreeze(encoder: Encoder, which: Unfreeze) -> None:
    """Let parameters require gradients: all, none, or those of the last layers and what comes after them.

    Args:
        encoder: any.
        which: "all", "none", or a number of layers.

    Raises:
        ValueError: more layers than there are.
    """
    if which in ("all", "none"):
        encoder.requires_grad_(which == "all")
        return
    if not isinstance(which, int) or not 1 <= which <= encoder.depth:
        raise ValueError(
            f"expected unfreeze to be all, none or a number of layers from 1 to {encoder.depth}, got {which}"
        )
    layer_of = encoder.group_matcher()
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(layer_of(name) > encoder.depth - which)


def layer_groups(
    encoder: Encoder, head: nn.Module, *, learning_rate: float, weight_decay: float, layer_decay: float
) -> list[dict[str, Any]]:
    """Group the parameters that require gradients by layer, for layer-wise learning rate decay (BEiT, ELECTRA).

    The head has the learning rate, the last layer and the final norm `layer_decay` times it, each layer before once
    more; what comes before the first layer has the least. Biases, norms and embeddings have no weight decay.

    Args:
        encoder: whose layers count; see `Encoder.group_matcher`.
        head: on top of it.
        learning_rate: of the head.
        weight_decay: of weight matrices.
        layer_decay: factor from layer to layer, above 0 and at most 1.

    Raises:
        ValueError: a layer_decay out of range.
    """
    if not 0 < layer_decay <= 1:
        raise ValueError(f"expected layer_decay above 0 and at most 1, got {layer_decay:g}")
    layer_of, depth = encoder.group_matcher(), encoder.depth
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for part, top in ((encoder, False), (head, True)):
        decaying = decays(part)
        for name, parameter in part.named_parameters():
            if not parameter.requires_grad:
                continue
            number = depth + 1 if top else layer_of(name)
            key = number, name in decaying
            group = groups.setdefault(
                key,
                {
                    "params": [],
                    "lr": learning_rate * layer_decay ** (depth + 1 - number),
                    "weight_decay": weight_decay if key[1] else 0.0,
                },
            )
            group["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def set_drop_path(encoder: Encoder, rate: float) -> None:
    """Set stochastic depth: `rate` in the last layer, less in those before, linearly.

    Args:
        encoder: of timm's layers, as `ViT` and `TimmEncoder` are.
        rate: a share, from 0 to below 1.

    Raises:
        ValueError: the rate is out of range, or the layers have no place for it.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"expected drop_path from 0 to below 1, got {rate:g}")
    layers = list(encoder.layers)
    for number, layer in enumerate(layers):
        places = [name for name, _ in layer.named_children() if name.startswith("drop_path")]
        if not places:
            raise ValueError(f"expected layers with drop_path, got {type(layer).__name__}: leave drop_path out")
        for place in places:
            share = rate * number / max(len(layers) - 1, 1)
            setattr(layer, place, (DropPath(share) if share else nn.Identity()).train(layer.training))
