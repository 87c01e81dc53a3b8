"""Any timm ViT, Eva or NaFlexVit as an encoder that computes the kept tokens only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import torch
from timm.models.naflexvit import NaFlexVit
from torch import Tensor, nn

from jepa_lightning.encoders.base import Encoder, TokenSpec
from jepa_lightning.encoders.inflate import TIME
from jepa_lightning.encoders.layers import layer_numbers, stack_layers
from jepa_lightning.encoders.timm_models import create_trunk, fill_trunk
from jepa_lightning.scale.attention import note_size
from jepa_lightning.tokens import Ragged, Tokens, take


class TimmEncoder(Encoder):
    """A timm model on image patches or tubelets: `{class_path: TimmEncoder, init_args: {name: vit_small_patch16_224}}`.

    The families that can run on a subset of the patches are VisionTransformer (ViT, DeiT, DINOv2, CLIP, SigLIP, ...),
    Eva (EVA-02, the rotary ViTs, DINOv3, Perception Encoder) and NaFlexVit. Kept patches are gathered first, embedded
    with the patch embedding's weights as a linear map, and given their own positions and rotary angles; then come the
    class and register tokens (if the model has them), the layers and the final norm. The class and register tokens
    are not returned. With all patches kept, the output is that of timm's `forward_features`, less those tokens.

    Tubelets of (C, t, height, width) on a grid (T, rows, columns) go through the same image models, inflated: the patch
    embedding is repeated over the t frames and divided by t (Carreira & Zisserman 2017), the positions and rotary
    angles of a frame are repeated over time, and with T > 1 a learned table of T vectors, one per time step,
    is added to the patches (initialised as sin-cos of std 0.02). With T = t = 1, the encoder is the image encoder.

    Deviations from timm: there is no head and no pooling; the norm that some models apply after pooling (`fc_norm`) is
    applied to every token instead, so that features of all models are normed.

    Args:
        spec: the tokens' shape (C, patch height, patch width) and grid (rows, columns), or with time (C, t, height,
            width) and (T, rows, columns), given by the modality. They override the patch and image size in the model's
            name; pretrained weights are resampled to them.
        name: a name in `timm.list_models()`, with or without a pretrained tag.
        pretrained: load timm's weights for `name`, which needs the network or timm's cache.
        weights: file to load instead (.safetensors, or a torch checkpoint that holds tensors only). It must fill the
            whole trunk; a classifier head is ignored. Weights of image models are inflated; those saved from a
            TimmEncoder on tubelets are taken as they are.
        drop_path: stochastic depth of the last layer; earlier ones get less, linearly.
        options: more keyword arguments for `timm.create_model`.

    Raises:
        ValueError: the tokens are not patches or tubelets, timm has no model `name` or cannot run it on a subset of
            patches, an option is wrong, or the weights do not load or do not fit.

    Examples:
        >>> import torch
        >>> from jepa_lightning import Tokens
        >>> from jepa_lightning.encoders import SinCosPositions, TokenSpec, TimmEncoder
        >>> from jepa_lightning.encoders.positions import grid_positions
        >>> spec = TokenSpec(shape=(3, 8, 8), grid=(4, 4), positions=SinCosPositions)
        >>> encoder = TimmEncoder(spec, name="vit_tiny_patch16_224", options={"depth": 2})
        >>> tokens = Tokens(values=torch.randn(2, 16, 3, 8, 8), positions=grid_positions((4, 4)), grid=(4, 4))
        >>> keep = torch.tensor([[0, 1, 5], [2, 3, 15]])
        >>> encoder(tokens).shape, encoder(tokens, keep).shape
        (torch.Size([2, 16, 192]), torch.Size([2, 3, 192]))
    """

    def __init__(
        self,
        spec: TokenSpec,
        *,
        name: str,
        pretrained: bool = False,
        weights: str | None = None,
        drop_path: float = 0.0,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if spec.grid is None or (len(spec.shape), len(spec.grid)) not in ((3, 2), (4, 3)):
            raise ValueError(
                f"TimmEncoder takes image patches, tokens of shape (C, height, width) on a grid (rows, columns), or "
                f"tubelets, of shape (C, frames, height, width) on a grid (time, rows, columns); "
                f"these have shape {spec.shape} and grid {spec.grid}: use another encoder, for example ViT"
            )
        self.shape, self.grid = tuple(spec.shape), tuple(spec.grid)
        self.model: Any = create_trunk(
            name,
            shape=self.shape,
            grid=self.grid,
            pretrained=pretrained,
            weights=weights,
            drop_path=drop_path,
            options=options or {},
        )
        self.dim = self.model.embed_dim

    @property
    def layers(self) -> Iterable[nn.Module]:
        """The model's layers, in order."""
        return self.model.blocks

    def forward(
        self,
        tokens: Tokens,
        keep: Tensor | None = None,
        keep_valid: Tensor | None = None,
        *,
        layers: Sequence[int] = (),
    ) -> Tensor:
        """Encode all tokens, or the kept ones: (B, N or K, D), or (B, N or K, L, D). See `Encoder.forward`.

        The class and register tokens are cut off every layer's output.
        """
        last = len(self.model.blocks) - 1
        numbers = layer_numbers(layers, last + 1)
        found = tokens.values.shape[1:]
        if isinstance(tokens.values, Ragged) or found != (math.prod(self.grid), *self.shape):
            raise ValueError(
                f"the encoder was built for {' x '.join(map(str, self.grid))} patches of shape {self.shape}, but got "
                f"{tuple(found)} a sample: give all patches of the sample (and `keep` for a subset)"
            )
        if keep is not None:
            tokens = tokens.take(keep, keep_valid)
        patches, prefix = self._add_positions(self._embed(tokens.values), keep)  # type: ignore[arg-type]
        x = torch.cat([prefix.expand(patches.shape[0], -1, -1), patches], dim=1)
        note_size(x)
        x = self.model.norm_pre(self._owner.pos_drop(x))
        bias = _attention_bias(tokens.valid, prefix.shape[1], x.dtype)
        angles = self._angles(keep)
        outputs: dict[int, Tensor] = {}
        for number, block in enumerate(islice(self.model.blocks, max(numbers, default=last) + 1)):
            given = {} if bias is None else {"attn_mask": bias}
            if angles is not None:
                given["rope"] = angles(number)
            x = block(x, **given)
            if number in numbers:
                outputs[number] = x[:, prefix.shape[1] :]
        if numbers:
            return stack_layers(outputs, numbers, last, self.model.norm)
        return self.model.norm(x[:, prefix.shape[1] :])

    def fill(self, state: dict[str, Tensor], what: str) -> None:
        """Load weights of an image model under timm's names into the whole trunk; see the argument `weights`.

        Raises:
            ValueError: they do not fit, or this encoder is of tubelets.
        """
        if len(self.grid) == 3:
            raise ValueError(f"{what} is of images: give it as the encoder's weights, which inflates it to tubelets")
        fill_trunk(self.model, state, what)

    @property
    def _owner(self) -> Any:
        """The module that holds the class token, the positions and their dropout."""
        return self.model.embeds if isinstance(self.model, NaFlexVit) else self.model

    def _embed(self, values: Tensor) -> Tensor:
        """(B, K, C, height, width), or tubelets, to (B, K, D), with the weights of timm's patch embedding."""
        embed: Any = self.model.embeds if isinstance(self.model, NaFlexVit) else self.model.patch_embed
        weight = embed.proj.weight
        if isinstance(embed.proj, nn.Linear):  # NaFlexVit: a frame is (height, width, C), with its pixels in a row
            values = values.movedim(2, -1 if getattr(embed, "channels_last", True) else -3)
        x = values.to(weight.dtype)
        if getattr(embed, "norm_input", None) is not None:
            x = embed.norm_input(x.flatten(-3))  # frame by frame
        return embed.norm(nn.functional.linear(x.flatten(2), weight.flatten(1), embed.proj.bias))

    def _add_positions(self, patches: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
        """Patches (B, K, D) and prefix tokens (1, P, D), both with their learned absolute positions."""
        extra = [getattr(self._owner, token, None) for token in ("cls_token", "dist_token", "reg_token")]
        prefix = torch.cat([patches.new_empty(1, 0, self.dim), *(token for token in extra if token is not None)], dim=1)
        if isinstance(self.model, NaFlexVit):
            table = self._naflex_positions()
        else:
            table = self.model.pos_embed
            if table is not None and not self.model.no_embed_class:
                prefix = prefix + table[:, : prefix.shape[1]]
                table = table[:, prefix.shape[1] :]
        table = self._through_time(table)
        if table is not None:
            patches = patches + (table if keep is None else take(table, keep))
        return patches, prefix

    def _through_time(self, table: Tensor | None) -> Tensor | None:
        """The positions (1, rows * columns, D) of a frame for all tokens: (1, N, D), with those of time."""
        time = getattr(self.model, TIME, None)  # (1, T, 1, D)
        if time is None:
            return table
        size = self.grid[1] * self.grid[2]
        return (time.expand(-1, -1, size, -1) if table is None else table.unsqueeze(1) + time).flatten(1, 2)

    def _naflex_positions(self) -> Tensor | None:
        """NaFlexVit resamples its table of positions to the grid in every forward: (1, N, D)."""
        embeds, (rows, columns) = self.model.embeds, self.grid[-2:]
        table = embeds.proj.weight.new_zeros(1, rows * columns, self.dim)
        if embeds.pos_embed_type == "learned":
            embeds._apply_learned_pos_embed(table, grid_size=[rows, columns])  # adds in place
        elif embeds.pos_embed_type == "factorized":
            embeds._apply_factorized_pos_embed(table, grid_size=[rows, columns])
        else:
            return None
        return table

    def _angles(self, keep: Tensor | None) -> Callable[[int], Tensor] | None:
        """Gives the kept tokens' rotary angles for a layer by its number; None for a model without any."""
        rope = getattr(self.model, "rope", None)
        if rope is None:
            return None
        # Drawn once a forward: in training some models jitter or rescale the coordinates.
        angles = rope.get_embed() if getattr(rope, "feat_shape", None) else rope.get_embed(shape=list(self.grid[-2:]))
        mixed = angles.ndim == 4  # (depth, heads, N, R), learned for each layer; otherwise (N, R), shared
        if len(self.grid) == 3 and self.grid[0] > 1:  # those of a frame, the same in all frames
            if keep is None:
                angles = angles.repeat(*[1] * (angles.ndim - 2), self.grid[0], 1)
            else:
                keep = keep % angles.shape[-2]
        if mixed:
            return lambda number: _take_angles(angles[number], keep)
        shared = _take_angles(angles, keep)
        return lambda number: shared


def _take_angles(angles: Tensor, keep: Tensor | None) -> Tensor:
    """Rotary angles (N, R) or (heads, N, R) of the kept tokens: (B, 1 or heads, K, R); unchanged without `keep`."""
    if keep is None:
        return angles
    by_token = angles.unsqueeze(1) if angles.ndim == 2 else angles.transpose(0, 1)
    return take(by_token.unsqueeze(0), keep).transpose(1, 2)


def _attention_bias(valid: Tensor | None, prefix: int, dtype: torch.dtype) -> Tensor | None:
    """Added to attention logits: -inf where a token is padding, (B, 1, 1, prefix + K); None without padding.

    A bias and not a boolean mask, because timm's unfused attention adds whatever it is given.
    """
    if valid is None:
        return None
    seen = torch.cat([valid.new_ones(valid.shape[0], prefix), valid], dim=1)
    seen = seen | ~seen.any(dim=1, keepdim=True)  # a sample of nothing but padding must not become NaN
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, -torch.inf)[:, None, None]
