"""The layer that computes a part of its tokens alone, beside the whole one."""

import pytest
import torch
from timm.models.vision_transformer import Block as TimmBlock

from jepa_lightning.encoders import Transformer
from jepa_lightning.scale.parallel import prepare_layers

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def make(**settings):
    torch.manual_seed(0)
    trunk = Transformer(**{"width": 24, "depth": 3, "heads": 3, **settings})
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return trunk


def run(trunk, x, start, *, valid=None, positions=None, trimmed=True):
    """Outputs and gradients, of x and of the weights."""
    trunk.zero_grad()
    x = x.clone().requires_grad_()
    torch.manual_seed(7)
    out = trunk(x, valid, positions, start=start) if trimmed else trunk(x, valid, positions)[:, start:]
    (out * torch.linspace(-1, 1, out[0].numel(), dtype=x.dtype, device=x.device).view_as(out[0])).sum().backward()
    return [out.detach(), x.grad, *[p.grad.clone() for p in trunk.parameters()]]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("rotary", [None, "interleaved"])
@pytest.mark.parametrize("depth", [1, 3])
def test_outputs_and_gradients_are_those_of_the_whole_in_float64(device, padded, rotary, depth):
    trunk = make(rotary=rotary, depth=depth).double().to(device)
    x = torch.randn(4, 9, 24, dtype=torch.float64, device=device)
    valid = torch.rand(4, 9, device=device) > 0.4 if padded else None
    if padded:
        valid[:, 0] = True
    where = None if rotary is None else torch.rand(4, 9, 2, dtype=torch.float64, device=device) * 5
    for start in (0, 1, 6):
        found = run(trunk, x, start, valid=valid, positions=where)
        expected = run(trunk, x, start, valid=valid, positions=where, trimmed=False)
        assert found[0].shape == (4, 9 - start, 24)
        for mine, other in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


def test_in_float32_the_difference_is_rounding():
    trunk, x = make(width=192, heads=3), torch.randn(4, 50, 192)
    mine, other = (run(trunk, x, 20, trimmed=trimmed)[0] for trimmed in (True, False))
    assert (mine - other).abs().max() < 1e-6 * other.abs().max() * 10


def test_drop_path_draws_the_same():
    trunk = make(drop_path=0.5).double().train()
    x = torch.randn(16, 9, 24, dtype=torch.float64)
    found, expected = (run(trunk, x, 4, trimmed=trimmed) for trimmed in (True, False))
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


@pytest.mark.long
def test_layers_that_are_recomputed_or_compiled():
    x = torch.randn(4, 9, 24, dtype=torch.float64)
    expected = run(make().double(), x, 4, trimmed=False)
    for settings in ({"checkpoint_activations": True}, {"compile": True}):
        trunk = make().double()
        if "compile" in settings:
            for block in trunk.layers:
                block.compile(backend="eager")
        else:
            prepare_layers(trunk.layers, **settings)
        for mine, other in zip(run(trunk, x, 4), expected, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


def test_names_and_numbers_are_timms():
    block = make().layers[0]
    other = TimmBlock(24, 3, qkv_bias=True, norm_layer=type(block.norm1))
    for norm in (other.norm1, other.norm2):
        norm.eps = 1e-6
    other.load_state_dict(block.state_dict())
    x = torch.randn(2, 5, 24)
    assert torch.equal(block(x), other(x))
