"""Weights of a layer that are cast together, beside autocast's own casts."""

import copy

import pytest
import torch

from jepa_lightning.encoders import Transformer
from jepa_lightning.scale.parallel import cast_together, prepare_layers
from jepa_lightning.targets import half

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(autouse=True)
def on_the_cpu_too(monkeypatch):
    monkeypatch.setattr(half, "DEVICES", {"cpu", "cuda"})


def make(**settings):
    torch.manual_seed(0)
    return Transformer(width=24, depth=3, heads=3, **settings)


def run(trunk, x, *, dtype=torch.bfloat16, start=0):
    """Outputs and gradients, of x and of the weights; the weights are what they were."""
    before = list(trunk.parameters())
    trunk.zero_grad()
    x = x.clone().requires_grad_()
    with torch.autocast(x.device.type, dtype):
        out = trunk(x, start=start)
    out.float().square().sum().backward()
    assert all(mine is theirs for mine, theirs in zip(trunk.parameters(), before, strict=True))
    return [out.detach(), x.grad, *[p.grad for p in trunk.parameters()]]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("start", [0, 4])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_values_and_gradients_are_autocasts_bit_for_bit(device, start, checkpointed):
    plain = make().to(device)
    together = copy.deepcopy(plain)
    cast_together(together.layers)
    prepare_layers(together.layers, checkpoint_activations=checkpointed)
    x = torch.randn(2, 9, 24, device=device)
    for mine, theirs in zip(run(together, x, start=start), run(plain, x, start=start), strict=True):
        assert mine.dtype == theirs.dtype
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def test_a_layer_has_one_cast_for_its_weights_and_one_for_their_gradients():
    found = {}
    for name in ("plain", "together"):
        trunk = make()
        if name == "together":
            cast_together(trunk.layers)
            cast_together(trunk.layers)  # the second time changes nothing
        x = torch.randn(2, 9, 24)
        with torch.profiler.profile() as profile:
            run(trunk, x)
        found[name] = {event.key: event.count for event in profile.key_averages()}
    linear = 4 * 2 * len(trunk.layers)  # weights and biases
    assert found["together"].get("aten::_foreach_copy_", 0) == 2 * len(trunk.layers)
    assert found["plain"]["aten::_to_copy"] - found["together"]["aten::_to_copy"] == 2 * linear


def test_a_frozen_weight_and_a_copied_layer():
    """A weight without gradient gets none, and a deep copy computes with its own weights."""
    trunk = make()
    cast_together(trunk.layers)
    trunk.layers[0].mlp.fc1.weight.requires_grad_(False)
    twin = copy.deepcopy(trunk)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    x = torch.randn(2, 9, 24)
    with torch.autocast("cpu", torch.bfloat16):
        trunk(x).float().sum().backward()
        assert not twin(x).any()
        assert trunk(x).any()
    assert trunk.layers[0].mlp.fc1.weight.grad is None
    assert trunk.layers[0].mlp.fc2.weight.grad is not None


def test_an_error_inside_leaves_the_weights():
    trunk = make()
    cast_together(trunk.layers)
    before = list(trunk.parameters())
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError):
        trunk(torch.randn(2, 9, 23))
    assert all(mine is theirs for mine, theirs in zip(trunk.parameters(), before, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_autocast_nothing_changes(dtype):
    trunk = make().to(dtype)
    x = torch.randn(2, 9, 24, dtype=dtype)
    expected = trunk(x)
    cast_together(trunk.layers)
    torch.testing.assert_close(trunk(x), expected, rtol=0, atol=0)
