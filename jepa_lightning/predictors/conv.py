"""CNN-JEPA's predictor: depthwise-separable convolutions over the grid of tokens."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from jepa_lightning.predictors.base import Predictor, PredictorSpec, check_condition
from jepa_lightning.tokens import Latents, Query


class ConvPredictor(Predictor):
    """Predict by convolutions over the grid: context tokens in their cells, a mask token in all others.

    CNN-JEPA's predictor (Kalapos and Gyires-Toth 2024, arXiv:2408.07514, section III): layers of a depthwise
    convolution, a convolution of one pixel, BatchNorm and ReLU, all as wide as the encoder. All targets are predicted
    in one pass, whichever block they belong to; a prediction is read from its cell. Positions are (row, column),
    counted in tokens.

    Deviations: a last linear map replaces the last BatchNorm and ReLU of the official code, so that predictions may be
    negative, as layer-normed targets are; with `relu: true` there is none, as in that code. The loss there is smooth L1
    of both sides divided by their lengths, summed over channels: while no channel differs by more than one, this is
    the objective `Cosine`.

    Args:
        spec: widths and the tokens' spec, given by the module; tokens must lie on a grid of two axes.
        depth: number of layers (3 in the paper).
        kernel: side of the depthwise convolutions, odd (3 in the paper).
        relu: end with BatchNorm and ReLU, without a linear map; targets must then be as wide as the encoder.

    Raises:
        ValueError: a setting is out of range, tokens do not lie on a grid, or there is a condition.

    Examples:
        >>> import torch
        >>> from jepa_lightning.encoders import SinCosPositions, TokenSpec
        >>> from jepa_lightning.encoders.positions import grid_positions
        >>> from jepa_lightning.predictors import ConvPredictor, PredictorSpec
        >>> from jepa_lightning.tokens import Latents, Query
        >>> token = TokenSpec(shape=(3, 8, 8), grid=(4, 4), positions=SinCosPositions)
        >>> predictor = ConvPredictor(PredictorSpec(dim=32, out=32, token=token), depth=2)
        >>> places = grid_positions((4, 4))
        >>> context = Latents(values=torch.randn(2, 5, 32), positions=places[:, :5].expand(2, 5, 2))
        >>> predictor(context, Query(positions=places[:, 6:12].reshape(1, 2, 3, 2).expand(2, 2, 3, 2))).shape
        torch.Size([2, 2, 3, 32])
    """

    def __init__(self, spec: PredictorSpec, *, depth: int = 3, kernel: int = 3, relu: bool = False) -> None:
        super().__init__()
        grid = spec.token.grid
        if grid is None or len(grid) != 2:
            raise ValueError(
                f"ConvPredictor needs tokens on a grid (rows, columns), got the grid {grid}: use TransformerPredictor"
            )
        if depth < 1 or kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"depth must be at least 1 and kernel odd, got {depth} and {kernel}")
        if spec.condition is not None:
            raise ValueError("ConvPredictor takes no condition: use TransformerPredictor")
        if relu and spec.out != spec.dim:
            raise ValueError(f"with relu, targets must be as wide as the encoder, got {spec.out} and {spec.dim}")
        self.grid = tuple(grid)
        self.mask_token = nn.Parameter(torch.zeros(spec.dim))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.layers = nn.ModuleList(_layer(spec.dim, kernel) for _ in range(depth))  # type: ignore[misc]
        self.project = nn.Identity() if relu else nn.Linear(spec.dim, spec.out)

    def forward(self, context: Latents, query: Query, condition: Latents | None = None) -> Tensor:
        """Predict (B, M, T, out); see `Predictor.forward`."""
        check_condition(None, condition, type(self).__name__)
        if context.positions is None:
            raise ValueError("ConvPredictor needs the context's positions, got Latents without positions")
        values = context.values
        batch, _, width = values.shape
        cells = math.prod(self.grid)
        at = self._cells(context.positions).expand(batch, -1)
        if context.valid is not None:
            at = at.masked_fill(~context.valid, cells)  # filler goes to an extra cell
        board = self.mask_token.to(values.dtype).expand(batch, cells + 1, width)
        board = board.scatter(1, at.unsqueeze(-1).expand(-1, -1, width), values)[:, :cells]
        x = board.transpose(1, 2).unflatten(2, self.grid).contiguous(memory_format=torch.channels_last)
        for layer in self.layers:
            x = layer(x)
        asked = self._cells(query.positions).expand(batch, -1, -1).flatten(1)
        found = x.flatten(2).transpose(1, 2).gather(1, asked.unsqueeze(-1).expand(-1, -1, width))
        return self.project(found).unflatten(1, query.positions.shape[1:3])

    def _cells(self, positions: Tensor) -> Tensor:
        """Cell numbers, in raster order, of (..., 2) positions."""
        if positions.shape[-1] != 2:
            raise ValueError(f"ConvPredictor needs positions (row, column), got {positions.shape[-1]} coordinates")
        row, column = positions.round().long().unbind(-1)
        return row.clamp(0, self.grid[0] - 1) * self.grid[1] + column.clamp(0, self.grid[1] - 1)


def _layer(width: int, kernel: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width),
        nn.Conv2d(width, width, 1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )
