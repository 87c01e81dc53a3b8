"""The Transformer trunk: initialisation, attention, stochastic depth."""

import math

import pytest
import torch
from timm.layers import DropPath

from jepa_lightning.encoders import Transformer


@pytest.mark.parametrize("rotary", [None, "interleaved"])
def test_the_residual_branches_are_scaled_by_depth(rotary):
    """Std 0.02 everywhere, and 0.02 / sqrt(2 l) for the last map of both residual branches of layer l."""
    torch.manual_seed(0)
    trunk = Transformer(width=128, depth=6, heads=4, rotary=rotary)
    for layer, block in enumerate(trunk.layers, start=1):
        for linear in (block.attn.qkv, block.mlp.fc1):
            assert float(linear.weight.detach().std()) == pytest.approx(0.02, rel=0.04)
        for linear in (block.attn.proj, block.mlp.fc2):
            assert float(linear.weight.detach().std()) == pytest.approx(0.02 / math.sqrt(2 * layer), rel=0.04)
        for linear in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
            assert (linear.bias == 0).all()
        for norm in (block.norm1, block.norm2):
            assert (norm.weight == 1).all()
            assert (norm.bias == 0).all()


def plain(trunk, x):
    """The pre-norm Transformer on one sample (n, W), head by head."""

    def norm(y, layer):
        y = y - y.mean(-1, keepdim=True)
        return y / torch.sqrt(y.square().mean(-1, keepdim=True) + 1e-6) * layer.weight + layer.bias

    def linear(y, layer):
        return y @ layer.weight.T + layer.bias

    for block in trunk.layers:
        heads, width = block.attn.num_heads, x.shape[1]
        q, k, v = linear(norm(x, block.norm1), block.attn.qkv).split(width, dim=1)
        seen = []
        for h in range(heads):
            part = slice(h * width // heads, (h + 1) * width // heads)
            score = torch.exp(q[:, part] @ k[:, part].T / math.sqrt(width // heads))
            seen.append(score / score.sum(1, keepdim=True) @ v[:, part])
        x = x + linear(torch.cat(seen, dim=1), block.attn.proj)
        y = linear(norm(x, block.norm2), block.mlp.fc1)
        x = x + linear(y * 0.5 * (1 + torch.erf(y / math.sqrt(2))), block.mlp.fc2)
    return norm(x, trunk.norm)


@pytest.fixture
def trunk():
    torch.manual_seed(0)
    trunk = Transformer(width=12, depth=3, heads=3)
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return trunk.double().eval()


def test_it_is_a_pre_norm_transformer(trunk):
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    torch.testing.assert_close(trunk(x), torch.stack([plain(trunk, sample) for sample in x]))


def test_attention_never_sees_invalid_slots(trunk):
    x = torch.randn(3, 6, 12, dtype=torch.float64)
    valid = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 0, 1, 0, 1, 1], [0, 0, 0, 0, 0, 1]]).bool()
    found = trunk(x, valid)
    for b in range(3):
        torch.testing.assert_close(found[b, valid[b]], plain(trunk, x[b, valid[b]]))
    garbage = torch.where(valid[..., None], x, 1e3)
    assert torch.equal(trunk(garbage, valid)[valid], found[valid])
    garbage = torch.where(valid[..., None], x, 1e3).requires_grad_()
    trunk(garbage, valid)[valid].sum().backward()
    assert (garbage.grad[~valid] == 0).all()


def test_a_sample_of_padding_only_stays_finite(trunk):
    valid = torch.tensor([[False] * 4, [True] * 4])
    found = trunk(torch.randn(2, 4, 12, dtype=torch.float64), valid)
    found.sum().backward()
    assert found.isfinite().all()
    assert all(p.grad.isfinite().all() for p in trunk.parameters())


def test_all_valid_is_no_mask(trunk):
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    torch.testing.assert_close(trunk(x, torch.ones(2, 5, dtype=torch.bool)), trunk(x))


def test_rotary_changes_neither_the_parameters_nor_their_initial_values():
    states = []
    for rotary in (None, "interleaved"):
        torch.manual_seed(0)
        states.append(Transformer(width=16, depth=2, heads=2, rotary=rotary).state_dict())
    assert list(states[0]) == list(states[1])
    assert all(states[0][name].shape == states[1][name].shape for name in states[0])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("rotary", [None, "interleaved"])
def test_drop_path_grows_linearly_with_depth(rotary):
    trunk = Transformer(width=8, depth=5, heads=2, drop_path=0.2, rotary=rotary)
    rates = []
    for block in trunk.layers:
        both = [part.drop_prob if isinstance(part, DropPath) else 0.0 for part in (block.drop_path1, block.drop_path2)]
        assert both[0] == both[1]
        rates.append(both[0])
    assert rates == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])


def test_drop_path_acts_in_training_alone():
    torch.manual_seed(0)
    trunk = Transformer(width=8, depth=3, heads=2, drop_path=0.9)
    x = torch.randn(16, 4, 8)
    assert torch.equal(trunk.eval()(x), trunk(x))
    assert not torch.equal(trunk.train()(x), trunk(x))


@pytest.mark.parametrize("heads", [3, 0, -2])
def test_heads_that_do_not_divide_the_width_are_refused(heads):
    with pytest.raises(ValueError, match=f"width 16 is not a multiple of heads {heads}"):
        Transformer(width=16, depth=1, heads=heads)


def test_no_block_is_refused():
    with pytest.raises(ValueError, match="depth must be at least 1"):
        Transformer(width=16, depth=0, heads=2)


@pytest.mark.parametrize("drop_path", [-0.1, 1.0, 10])
def test_a_drop_path_that_is_no_share_is_refused(drop_path):
    with pytest.raises(ValueError, match="drop_path"):
        Transformer(width=16, depth=2, heads=2, drop_path=drop_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, "width must be from 1"),
        ({"width": -2}, "width must be from 1"),
        ({"width": 10**9, "heads": 1}, "width must be from 1"),
        ({"depth": 10**6}, "depth must be"),
        ({"mlp_ratio": -1.0}, "mlp_ratio must leave"),
        ({"mlp_ratio": 1e9}, "mlp_ratio must leave"),
        ({"mlp_ratio": float("nan")}, "mlp_ratio must leave"),
    ],
)
def test_sizes_that_cannot_be_built_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Transformer(**{"width": 8, "depth": 1, "heads": 2, **settings})
