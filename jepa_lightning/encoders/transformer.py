"""The Transformer trunk that our ViT and the predictor share: timm's layers, our initialisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import Any

import torch
from timm.models.eva import EvaBlock
from torch import Tensor, nn

from jepa_lightning.encoders.layers import layer_numbers, stack_layers
from jepa_lightning.encoders.norm import LayerNorm
from jepa_lightning.encoders.rotary import RotaryForm, rotary, scaled
from jepa_lightning.encoders.transformer_layer import SharedContext, TransformerLayer
from jepa_lightning.scale.attention import note_size

_WIDEST, _DEEPEST = 2**16, 1000  # far beyond any that was trained


class Transformer(nn.Module):
    """Pre-norm Transformer layers (timm's, attention by SDPA) and a final LayerNorm: (B, N, W) to (B, N, W).

    Initialisation as in I-JEPA (Assran et al. 2023) and BEiT: truncated normal of std 0.02, biases zero, and the last
    linear map of each residual branch of layer l (counted from 1) divided by sqrt(2 l).

    Args:
        width: channels W; a multiple of `heads`.
        depth: number of layers.
        heads: attention heads.
        mlp_ratio: hidden width of the MLP over W.
        drop_path: stochastic depth of the last layer; earlier ones get less, linearly.
        rotary: rotate queries and keys by the tokens' positions, in this form; None for no positions in attention. See
            `jepa_lightning.encoders.rotary.rotary`.
        rotary_scale: factor of the rotary coordinates of each axis; None: as they are.
        norm_eps: added to the variance in all norms (timm, I-JEPA and V-JEPA: 1e-6).
        final_norm: end with a LayerNorm.

    Raises:
        ValueError: a setting is out of range; when called: positions are missing or unused, or the heads are too
            narrow for the positions' axes.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        rotary: RotaryForm | None = None,
        rotary_scale: Sequence[float] | None = None,
        norm_eps: float = 1e-6,
        final_norm: bool = True,
    ) -> None:
        super().__init__()
        check_sizes(width=width, depth=depth, heads=heads, mlp_ratio=mlp_ratio)
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path is a share, from 0 to below 1; got {drop_path}")
        if rotary not in (None, "interleaved", "released"):
            raise ValueError(f"rotary must be interleaved, released or null, got {rotary!r}")
        if not norm_eps > 0:
            raise ValueError(f"norm_eps must be above 0, got {norm_eps}")
        self.rotary = rotary
        self.rotary_scale = None if rotary_scale is None else tuple(rotary_scale)
        self.head_dim = width // heads
        # The same layer but for the rotation: timm's EvaBlock with attn_type "rope" has the parts of its ViT block.
        build = partial(EvaBlock, attn_type="rope", num_prefix_tokens=0) if rotary else TransformerLayer
        self.layers = nn.ModuleList(
            build(
                width,
                heads,
                mlp_ratio=mlp_ratio,
                qkv_bias=True,
                drop_path=drop_path * layer / max(depth - 1, 1),
                norm_layer=partial(LayerNorm, eps=norm_eps),  # type: ignore[arg-type]
            )
            for layer in range(depth)
        )
        self.norm = LayerNorm(width, eps=norm_eps) if final_norm else nn.Identity()
        init_weights(self)
        with torch.no_grad():
            for number, layer in enumerate(self.layers, start=1):
                layer.attn.proj.weight /= math.sqrt(2 * number)  # type: ignore[union-attr,operator]
                layer.mlp.fc2.weight /= math.sqrt(2 * number)  # type: ignore[union-attr,operator]

    def forward(
        self,
        x: Tensor,
        valid: Tensor | None = None,
        positions: Tensor | None = None,
        added: Tensor | None = None,
        *,
        layers: Sequence[int] = (),
        start: int = 0,
        shared: SharedContext | None = None,
    ) -> Tensor:
        """Run the layers and the norm.

        Args:
            x: (B, N, W) embedded tokens.
            valid: (B, N) bool; slots where it is False are never attended to.
            positions: (B or 1, N, P) coordinates, with `rotary` only.
            added: (B, N, W) to add to the input of each layer, or None.
            layers: indices of the layers to return; see `jepa_lightning.encoders.Encoder.forward`.
            start: return only tokens from this one on, without `layers`. The last layer does not compute
                the others (except with rotary attention, whose layers are timm's own).
            shared: attention in which blocks share a context, with validity of its own; not with rotary attention.

        Returns:
            (B, N - start, W), or with L `layers` (B, N, L, W).
        """
        note_size(x)
        last = len(self.layers) - 1
        numbers = layer_numbers(layers, last + 1)
        if (positions is None) != (self.rotary is None):
            what = (
                "needs the positions" if positions is None else "has no use for positions: add them to x or set rotary"
            )
            raise ValueError(f"a Transformer with rotary {self.rotary} {what}")
        given: dict[str, Any] = {"attn_mask": None if valid is None else valid[:, None, None, :]}
        if positions is not None and self.rotary is not None:
            if self.rotary_scale is not None:
                positions = scaled(positions, self.rotary_scale)
            if shared is not None:
                raise ValueError("rotary attention has no shared context: leave out rotary, or shared_context")
            given["rope"] = rotary(positions, self.head_dim, form=self.rotary)  # once for all layers
        if shared is not None:
            given = {"shared": shared}
        outputs: dict[int, Tensor] = {}
        for number, layer in enumerate(islice(self.layers, max(numbers, default=last) + 1)):
            if start and number == last and self.rotary is None:
                given["start"], start = start, 0
            x = layer(x if added is None else x + added, **given)
            if number in numbers:
                outputs[number] = x
        return stack_layers(outputs, numbers, last, self.norm) if numbers else self.norm(x[:, start:])


def check_sizes(*, width: int, depth: int, heads: int, mlp_ratio: float) -> None:
    """Check the sizes of a Transformer.

    Raises:
        ValueError: a size is out of range; the message gives the range.
    """
    if not 1 <= width <= _WIDEST:
        raise ValueError(f"width must be from 1 to {_WIDEST}, got {width}")
    if heads < 1 or width % heads:
        raise ValueError(f"width {width} is not a multiple of heads {heads}: change one of them")
    if not 1 <= depth <= _DEEPEST:
        raise ValueError(f"depth must be at least 1 and at most {_DEEPEST}, got {depth}")
    if not 1 <= width * mlp_ratio <= _WIDEST * 4:
        raise ValueError(f"mlp_ratio must leave from 1 to {_WIDEST * 4} hidden channels, got {mlp_ratio} of {width}")


def init_weights(module: nn.Module) -> None:
    """Initialise every linear layer in `module`: weights truncated normal of std 0.02, biases zero."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
