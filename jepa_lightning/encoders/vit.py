"""A plain ViT over tokens of any kind."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

from torch import Tensor, nn

from jepa_lightning.encoders.base import Encoder, TokenSpec
from jepa_lightning.encoders.rotary import RotaryForm, grid_scale
from jepa_lightning.encoders.stored_positions import StoredPositions, position_embedding
from jepa_lightning.encoders.transformer import Transformer, check_sizes, init_weights
from jepa_lightning.tokens import Ragged, Tokens, take
from jepa_lightning.weights.formats.fit import load_encoder


class ViT(Encoder):
    """Vision Transformer (Dosovitskiy et al. 2021) on raw tokens: linear embedding, positions, layers, norm.

    There is no class token, as in I-JEPA. Kept tokens are gathered before they are embedded. A modality's own
    embedding (`TokenSpec.embed`) replaces the linear one.

    Args:
        spec: the tokens' shape and positions, given by the modality.
        width: channels D of the output (192 tiny, 384 small, 768 base, 1024 large, 1280 huge).
        depth: number of layers (12, 12, 12, 24, 32).
        heads: attention heads (3, 6, 12, 16, 16).
        mlp_ratio: hidden width of the MLP over D.
        drop_path: stochastic depth of the last layer.
        rotary: `interleaved` or `released` for rotary attention on the tokens' coordinates (as in V-JEPA 2) in place
            of the modality's position embedding; heads must then have at least two channels per axis.
        positions_at: where to add the modality's position embedding: at the `input`, or to the input of
            `every_layer` (Point-MAE: Pang et al. 2022; Point-JEPA).
        positions: `stored` for a fixed table of one row a token, part of the weights, as released models have it
            (`StoredPositions`); None: the modality's own positions, which are computed.
        rotary_grid: (rows, columns) whose coordinates the tokens get in rotary attention, whatever their own grid:
            (16, 16) for V-JEPA 2.1. None: their own.
        norm_eps: added to the variance in all norms.
        final_norm: end with a LayerNorm.
        weights: weights to begin with: a run or checkpoint of ours, a released file, a Hugging Face folder or id; see
            docs/released-weights.md. They must fill everything; positions and patches are resampled to the sizes here.

    Raises:
        ValueError: a setting is out of range, rotary is combined with positions at every layer or stored ones, or the
            weights do not fit.

    Examples:
        >>> import torch
        >>> from jepa_lightning import Tokens
        >>> from jepa_lightning.encoders import SinCosPositions, TokenSpec, ViT
        >>> from jepa_lightning.encoders.positions import grid_positions
        >>> spec = TokenSpec(shape=(3, 8, 8), grid=(4, 4), positions=SinCosPositions)
        >>> encoder = ViT(spec, width=32, depth=2, heads=2)
        >>> tokens = Tokens(values=torch.randn(2, 16, 3, 8, 8), positions=grid_positions((4, 4)), grid=(4, 4))
        >>> keep = torch.tensor([[0, 1, 5], [2, 3, 15]])
        >>> encoder(tokens).shape, encoder(tokens, keep).shape
        (torch.Size([2, 16, 32]), torch.Size([2, 3, 32]))
    """

    def __init__(
        self,
        spec: TokenSpec,
        *,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        rotary: RotaryForm | None = None,
        positions_at: Literal["input", "every_layer"] = "input",
        positions: Literal["stored"] | None = None,
        rotary_grid: tuple[int, int] | None = None,
        norm_eps: float = 1e-6,
        final_norm: bool = True,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if positions_at not in ("input", "every_layer"):
            raise ValueError(f"positions_at must be input or every_layer, got {positions_at!r}")
        if rotary and positions_at == "every_layer":
            raise ValueError("rotary attention adds no positions anywhere: leave out rotary, or positions_at")
        if positions not in (None, "stored"):
            raise ValueError(f"positions must be stored, or null for the modality's own, got {positions!r}")
        if rotary and positions:
            raise ValueError("rotary attention adds no positions anywhere: leave out rotary, or positions")
        check_sizes(width=width, depth=depth, heads=heads, mlp_ratio=mlp_ratio)
        self.dim = width
        self.positions_at = positions_at
        self.flat = spec.embed is None
        self.embed = nn.Linear(math.prod(spec.shape), width) if spec.embed is None else spec.embed(width)
        self.rotary_grid = rotary_grid
        self.positions = position_embedding(spec, width, rotary=rotary, stored=bool(positions))
        self.transformer = Transformer(
            width=width,
            depth=depth,
            heads=heads,
            mlp_ratio=mlp_ratio,
            drop_path=drop_path,
            rotary=rotary,
            rotary_scale=grid_scale(spec.grid, rotary_grid, rotary=rotary),
            norm_eps=norm_eps,
            final_norm=final_norm,
        )
        if self.flat:
            init_weights(self.embed)
        if weights is not None:
            load_encoder(self, spec, weights)

    @property
    def layers(self) -> Iterable[nn.Module]:
        """Return the Transformer's layers."""
        return self.transformer.layers

    def forward(
        self,
        tokens: Tokens,
        keep: Tensor | None = None,
        keep_valid: Tensor | None = None,
        *,
        layers: Sequence[int] = (),
    ) -> Tensor:
        """Encode all tokens, or the kept ones: (B, N or K, D), or (B, N or K, L, D). See `Encoder.forward`."""
        everywhere = tokens.positions
        if tokens.grid is not None and isinstance(self.positions, StoredPositions):
            self.positions.check(tokens.grid)
        if keep is not None:
            tokens = tokens.take(keep, keep_valid)
        values = tokens.values
        if self.flat:
            values = self._flat(values).to(self.embed.weight.dtype)  # type: ignore[arg-type]
        x = self.embed(values)
        if self.positions is None:
            return self.transformer(x, tokens.valid, tokens.positions, layers=layers)
        if keep is not None and everywhere.shape[0] == 1 and everywhere.shape[1] < keep.numel():
            # Samples share the positions of a grid: embedding each one once is less than embedding all kept tokens.
            places = take(self.positions(everywhere).to(x.dtype), keep)
        else:
            places = self.positions(tokens.positions).to(x.dtype)
        if self.positions_at == "every_layer":
            return self.transformer(x, tokens.valid, added=places, layers=layers)
        return self.transformer(x + places, tokens.valid, layers=layers)

    @staticmethod
    def _flat(values: Tensor | Ragged) -> Tensor:
        """Flatten (B, K, ...) values to (B, K, C) for the linear embedding."""
        if isinstance(values, Ragged):
            raise ValueError(
                "the linear embedding needs tokens of one size, got ragged ones: set the modality's TokenSpec.embed"
            )
        return values.flatten(2)
