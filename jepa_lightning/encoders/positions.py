"""Position embeddings of coordinates, for the encoder and for the predictor's queries."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def sincos(positions: Tensor, width: int, max_period: float = 10_000.0) -> Tensor:
    """Compute a fixed sin-cos embedding of coordinates, concatenated over the axes (Vaswani et al. 2017, section 3.5).

    Args:
        positions: (..., P) coordinates in tokens; any P.
        width: output width, at least 2 P. Each axis gets an equal even share; remaining channels are zero.
        max_period: wavelength ratio of the slowest channel.

    Returns:
        (..., width), in float32 for half-precision coordinates.
    """
    axes = positions.shape[-1]
    half = width // (2 * axes)
    if half < 1:
        raise ValueError(f"a width of {width} is too narrow for positions of {axes} axes: give at least {2 * axes}")
    positions = positions.double() if positions.dtype == torch.float64 else positions.float()
    exponent = torch.arange(half, device=positions.device, dtype=positions.dtype) / half
    angles = positions.unsqueeze(-1) * max_period**-exponent  # (..., P, half)
    embedded = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)
    return nn.functional.pad(embedded, (0, width - embedded.shape[-1]))


class SinCosPositions(nn.Module):
    """`sincos` as a module without parameters: (..., P) coordinates to (..., width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, positions: Tensor) -> Tensor:
        """Embed coordinates."""
        return sincos(positions, self.width)


class MLPPositions(nn.Module):
    """A learned embedding of coordinates: axes -> hidden -> width with a GELU, (..., axes) to (..., width).

    For tokens that lie anywhere, such as the centres of Point-MAE's and Point-JEPA's groups (Pang et al. 2022, section
    3.1). Coordinates should be of the order of one: the initialisation is torch's own, whose first biases spread the
    kinks over that range. Weights are in the encoder's or predictor's precision; so is the result.

    Args:
        width: output width.
        axes: number P of coordinates.
        hidden: width between.
    """

    def __init__(self, width: int, *, axes: int = 3, hidden: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(axes, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, positions: Tensor) -> Tensor:
        """Embed coordinates."""
        first: nn.Linear = self.layers[0]  # type: ignore[assignment]
        return self.layers(positions.to(first.weight.dtype))


class LinearPositions(nn.Module):
    """A linear map of coordinates, (..., axes) to (..., width).

    For many coordinates that already describe a position, such as the random-walk features of a graph's patches
    (Graph-JEPA, Skenderi et al. 2023). Weights are in the encoder's or predictor's precision; so is the result.

    Args:
        width: output width.
        axes: number P of coordinates.
    """

    def __init__(self, width: int, *, axes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(axes, width)

    def forward(self, positions: Tensor) -> Tensor:
        """Embed coordinates."""
        return self.linear(positions.to(self.linear.weight.dtype))


def grid_positions(grid: tuple[int, ...], device: torch.device | None = None) -> Tensor:
    """Return the coordinates of a grid's tokens in raster order: (1, N, P) float32, counted in tokens from zero."""
    axes = [torch.arange(size, device=device, dtype=torch.float32) for size in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2).unsqueeze(0)
