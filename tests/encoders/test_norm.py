"""LayerNorm inside and outside autocast, beside torch's and the formula in float64."""

from functools import partial

import pytest
import torch
from torch import nn

from jepa_lightning.encoders import SinCosPositions, TokenSpec, Transformer
from jepa_lightning.encoders.norm import LayerNorm
from jepa_lightning.predictors import AdaLNPredictor, MLPPredictor, PredictorSpec, TransformerPredictor

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture
def pair():
    torch.manual_seed(0)
    mine, theirs = LayerNorm(48, eps=1e-6), nn.LayerNorm(48, eps=1e-6)
    with torch.no_grad():
        mine.weight += 0.3 * torch.randn(48)
        mine.bias += 0.3 * torch.randn(48)
    theirs.load_state_dict(mine.state_dict())
    return mine, theirs


def formula(x, weight, bias):
    x = x.double()
    x = x - x.mean(-1, keepdim=True)
    return x / torch.sqrt(x.square().mean(-1, keepdim=True) + 1e-6) * weight.double() + bias.double()


def test_names_and_numbers_are_torchs_without_autocast(pair):
    mine, theirs = pair
    x = torch.randn(5, 7, 48)
    assert list(mine.state_dict()) == list(theirs.state_dict())
    assert torch.equal(mine(x), theirs(x))
    with torch.autocast("cpu", torch.bfloat16):  # which leaves float64 as it is
        assert torch.equal(mine.double()(x.double()), theirs.double()(x.double()))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_under_autocast_it_is_the_formula_but_for_roundings(pair, device, dtype):
    """Large means: with statistics in bfloat16 (8 bits) the result would be far off."""
    mine = pair[0].to(device)
    x = (torch.randn(64, 48, device=device) + 20).to(dtype).requires_grad_()
    with torch.autocast(device, torch.bfloat16):
        found = mine(x)
    rounded = x.detach().bfloat16()  # what the layer before hands over in training
    expected = formula(rounded, mine.weight, mine.bias)
    assert found.dtype == torch.bfloat16
    assert mine.weight.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=2**-7, atol=2**-6)
    found.float().square().sum().backward()
    again = rounded.double().requires_grad_()
    weight, bias = (p.detach().double().requires_grad_() for p in (mine.weight, mine.bias))
    formula(again, weight, bias).square().sum().backward()
    assert mine.weight.grad.dtype == torch.float32
    for grad, true in ((mine.weight.grad, weight.grad), (mine.bias.grad, bias.grad), (x.grad, again.grad)):
        assert (grad.double() - true).norm() < 0.02 * true.norm()


def test_without_affine(pair):
    x = torch.randn(3, 48)
    with torch.autocast("cpu", torch.bfloat16):
        found = LayerNorm(48, elementwise_affine=False)(x)
    torch.testing.assert_close(found.float(), nn.functional.layer_norm(x, (48,)), rtol=2**-7, atol=2**-6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rotary", [None, "interleaved"])
def test_a_transformer_computes_in_half_precision_from_end_to_end(device, rotary):
    torch.manual_seed(0)
    trunk = Transformer(width=32, depth=2, heads=2, rotary=rotary).to(device)
    kinds = []
    for part in trunk.modules():
        if isinstance(part, nn.LayerNorm):
            part.register_forward_hook(lambda part, args, out: kinds.append((args[0].dtype, out.dtype)))
    x = torch.randn(2, 5, 32, device=device)
    where = None if rotary is None else torch.rand(2, 5, 2, device=device)
    with torch.autocast(device, torch.bfloat16):
        half = trunk(x.bfloat16(), positions=where)
    assert kinds == [(torch.bfloat16, torch.bfloat16)] * 5
    whole = trunk(x, positions=where)
    assert (half.float() - whole).norm() < 0.02 * whole.norm()


def test_predictors_have_it_too():
    token = TokenSpec(shape=(3, 4, 4), grid=(6, 6), positions=SinCosPositions)
    for build in (partial(TransformerPredictor, heads=2), partial(AdaLNPredictor, heads=2), MLPPredictor):
        predictor = build(PredictorSpec(dim=12, out=12, token=token, condition=6), width=16, depth=2)
        norms = [part for part in predictor.modules() if isinstance(part, nn.LayerNorm)]
        assert norms
        assert all(isinstance(norm, LayerNorm) for norm in norms)
