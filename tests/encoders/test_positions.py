"""Positions against plain float64 formulas."""

import math

import pytest
import torch

from jepa_lightning.encoders import LinearPositions, MLPPositions, SinCosPositions
from jepa_lightning.encoders.positions import grid_positions, sincos


def plain(position, width, max_period=10_000.0):
    """One position (P coordinates): sines then cosines of each axis, one axis after the other."""
    half = width // (2 * len(position))
    found = []
    for x in position:
        angles = [x / max_period ** (i / half) for i in range(half)]
        found += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    return found + [0.0] * (width - len(found))


@pytest.mark.parametrize("width", [12, 24, 50, 64])  # 50 is divisible by neither 4 nor 6
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_sincos_is_the_formula(axes, width):
    positions = 30 * torch.rand(2, 5, axes, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = sincos(positions, width)
    assert found.shape == (2, 5, width)
    for b in range(2):
        for n in range(5):
            expected = plain(positions[b, n].tolist(), width)
            torch.testing.assert_close(found[b, n], torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(sincos(positions.float(), width), found.float(), rtol=0, atol=1e-5)


def test_what_is_left_of_the_width_is_zero():
    found = sincos(torch.ones(1, 2), 14)
    assert (found[0, 12:] == 0).all()
    assert (found[0, :12] != 0).all()


@pytest.mark.parametrize("grid", [(196,), (14, 14), (7, 20), (8, 14, 14)])
@pytest.mark.parametrize("width", [6, 48, 384])
def test_distinct_positions_get_distinct_embeddings(grid, width):
    found = sincos(grid_positions(grid), width)[0]
    distance = torch.cdist(found.double(), found.double()) + 10 * torch.eye(len(found))
    assert distance.min() > 1e-3


def test_half_precision_coordinates_are_embedded_in_float32():
    positions = torch.arange(16.0).view(1, 16, 1)
    found = sincos(positions.bfloat16(), 8)
    assert found.dtype == torch.float32
    assert torch.equal(found, sincos(positions, 8))


@pytest.mark.parametrize(("axes", "width"), [(1, 1), (2, 3), (3, 5)])
def test_too_narrow_a_width_is_refused_with_one_that_would_do(axes, width):
    with pytest.raises(ValueError, match=f"width of {width} is too narrow.*at least {2 * axes}"):
        sincos(torch.zeros(1, axes), width)
    assert sincos(torch.zeros(1, axes), 2 * axes).shape == (1, 2 * axes)


def test_the_module_is_the_function_without_parameters():
    module = SinCosPositions(20)
    positions = torch.rand(2, 3, 4, 2)
    assert torch.equal(module(positions), sincos(positions, 20))
    assert not list(module.parameters())
    assert not module.state_dict()


def test_grid_positions_are_counted_in_raster_order():
    found = grid_positions((2, 3, 4))
    assert found.shape == (1, 24, 3)
    expected = [[t, r, c] for t in range(2) for r in range(3) for c in range(4)]
    assert found[0].tolist() == expected


def test_learned_positions_are_two_layers():
    torch.manual_seed(0)
    module = MLPPositions(20, axes=2, hidden=16).double()
    first, second = module.layers[0], module.layers[2]
    positions = torch.rand(2, 3, 4, 2, dtype=torch.float64)
    found = module(positions)
    assert found.shape == (2, 3, 4, 20)
    hidden = positions @ first.weight.T + first.bias
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    torch.testing.assert_close(found, hidden @ second.weight.T + second.bias)
    found.sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())


def test_learned_positions_take_coordinates_of_any_precision():
    torch.manual_seed(0)
    module = MLPPositions(12)
    positions = torch.rand(2, 5, 3)
    assert torch.equal(module(positions.double()), module(positions))
    half = module.bfloat16()(positions)
    assert half.dtype == torch.bfloat16
    assert torch.isfinite(half).all()


def test_linear_positions_are_one_matrix_in_its_own_precision():
    torch.manual_seed(0)
    module = LinearPositions(12, axes=5).double()
    positions = torch.rand(2, 3, 4, 5)
    expected = positions.double() @ module.linear.weight.T + module.linear.bias
    torch.testing.assert_close(module(positions), expected)
    assert module(positions).dtype == torch.float64
    assert module(positions).shape == (2, 3, 4, 12)
