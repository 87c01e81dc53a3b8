"""Rotary positions against plain float64 loops over the papers' formula."""

import math

import pytest
import torch
from timm.layers import apply_rot_embed_cat

from jepa_lightning.encoders import SinCosPositions, TokenSpec, Transformer, ViT
from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.encoders.rotary import rotary
from jepa_lightning.tokens import Tokens

FORMS = ["interleaved", "released"]
both_forms = pytest.mark.parametrize("form", FORMS)
# axes, channels of a head: 3 axes leave 2 of 20 channels (and 4 of 64) over, 10 // 3 = 3 is cut to an even 2
CASES = [(1, 8), (2, 8), (3, 20), (3, 64), (3, 10), (4, 24)]


def plain(vector, position, form, max_period=10_000.0):
    """One query or key turned by its position: lists in, list out."""
    width = 2 * (len(vector) // len(position) // 2)
    out = list(vector)
    for axis, x in enumerate(position):
        first = axis * width
        frequency = [max_period ** (-2 * i / width) for i in range(width // 2)]
        for i in range(width // 2):
            a, b = vector[first + 2 * i], vector[first + 2 * i + 1]
            if form == "interleaved":
                of_a = of_b = x * frequency[i]
            else:  # the list of frequencies twice in a row over the channels
                of_a, of_b = (x * frequency[(2 * i + k) % (width // 2)] for k in (0, 1))
            out[first + 2 * i] = a * math.cos(of_a) - b * math.sin(of_a)
            out[first + 2 * i + 1] = b * math.cos(of_b) + a * math.sin(of_b)
    return out


def draw(axes, *shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 12 * torch.rand(*shape, axes, dtype=torch.float64, generator=generator) - 3


@pytest.mark.parametrize(("axes", "head_dim"), CASES)
@both_forms
def test_timm_turns_channels_as_the_formula_does(form, axes, head_dim):
    positions = draw(axes, 2, 5)
    vectors = torch.randn(2, 3, 5, head_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    table = rotary(positions, head_dim, form=form)
    assert table.shape == (2, 1, 5, 2 * head_dim)
    found = apply_rot_embed_cat(vectors, table)
    for b in range(2):
        for h in range(3):
            for n in range(5):
                expected = plain(vectors[b, h, n].tolist(), positions[b, n].tolist(), form)
                torch.testing.assert_close(found[b, h, n], torch.tensor(expected, dtype=torch.float64))


def test_the_forms_differ():
    first, second = (rotary(draw(3, 1, 5), 64, form=form) for form in FORMS)
    assert not torch.allclose(first, second)


def test_channels_left_over_are_not_rotated():
    sin, cos = rotary(draw(3, 1, 5), 64).chunk(2, dim=-1)
    assert (sin[..., 60:] == 0).all()
    assert (cos[..., 60:] == 1).all()
    assert (sin[..., :60] != 0).all()


def trunk(form, *, width=48, heads=2, depth=2):
    torch.manual_seed(0)
    built = Transformer(width=width, depth=depth, heads=heads, rotary=form)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return built.double().eval()


def plain_trunk(trunk, x, positions):
    """The pre-norm Transformer on one sample (n, W), head by head and token by token."""

    def norm(y, layer):
        y = y - y.mean(-1, keepdim=True)
        return y / torch.sqrt(y.square().mean(-1, keepdim=True) + 1e-6) * layer.weight + layer.bias

    def linear(y, layer):
        return y @ layer.weight.T + layer.bias

    def turned(y):
        rows = [plain(row, where, trunk.rotary) for row, where in zip(y.tolist(), positions.tolist(), strict=True)]
        return torch.tensor(rows, dtype=torch.float64)

    for block in trunk.layers:
        heads, width = block.attn.num_heads, x.shape[1]
        q, k, v = linear(norm(x, block.norm1), block.attn.qkv).split(width, dim=1)
        seen = []
        for h in range(heads):
            part = slice(h * width // heads, (h + 1) * width // heads)
            score = torch.exp(turned(q[:, part]) @ turned(k[:, part]).T / math.sqrt(width // heads))
            seen.append(score / score.sum(1, keepdim=True) @ v[:, part])
        x = x + linear(torch.cat(seen, dim=1), block.attn.proj)
        y = linear(norm(x, block.norm2), block.mlp.fc1)
        x = x + linear(y * 0.5 * (1 + torch.erf(y / math.sqrt(2))), block.mlp.fc2)
    return norm(x, trunk.norm)


@pytest.mark.parametrize("axes", [1, 2, 3])
@both_forms
def test_a_trunk_is_a_pre_norm_transformer_with_rotary_attention(form, axes):
    built, positions = trunk(form), draw(axes, 2, 6)
    x = torch.randn(2, 6, 48, dtype=torch.float64)
    found = built(x, positions=positions)
    expected = torch.stack([plain_trunk(built, *pair) for pair in zip(x, positions, strict=True)])
    torch.testing.assert_close(found, expected)
    shared = built(x, positions=positions[:1])  # a batch of one is shared by all samples
    torch.testing.assert_close(shared[1], plain_trunk(built, x[1], positions[0]))


def test_attention_never_sees_invalid_slots():
    built, positions = trunk("interleaved"), draw(3, 2, 6)
    x = torch.randn(2, 6, 48, dtype=torch.float64)
    valid = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 0, 1, 0, 1, 1]]).bool()
    found = built(x, valid, positions)
    for b in range(2):
        torch.testing.assert_close(found[b, valid[b]], plain_trunk(built, x[b, valid[b]], positions[b, valid[b]]))
    garbage = torch.where(valid[..., None], x, 1e3), torch.where(valid[..., None], positions, 55.0)
    assert torch.equal(built(garbage[0], valid, garbage[1])[valid], found[valid])


@pytest.mark.parametrize(("form", "relative"), [("interleaved", True), ("released", False)])
def test_only_the_interleaved_form_is_relative(form, relative):
    built, positions = trunk(form), draw(3, 2, 6)
    x = torch.randn(2, 6, 48, dtype=torch.float64)
    moved = built(x, positions=positions + torch.tensor([5.0, -2.5, 7.25]))
    difference = float((moved - built(x, positions=positions)).detach().abs().max())
    assert difference < 1e-10 if relative else difference > 1e-3


def test_positions_matter():
    built = trunk("interleaved")
    x = torch.ones(1, 4, 48, dtype=torch.float64) * torch.randn(48, dtype=torch.float64)
    x = x + torch.tensor([0.0, 1, 2, 3])[:, None] * torch.randn(48, dtype=torch.float64)
    one, other = (built(x, positions=draw(3, 1, 4, seed=seed)) for seed in (0, 1))
    assert (one - other).abs().max() > 1e-3


@both_forms
def test_angles_are_computed_in_float32_for_half_precision(form):
    positions = grid_positions((8, 14, 14))
    exact = rotary(positions.double(), 64, form=form)
    assert exact.dtype == torch.float64
    for given in (positions, positions.bfloat16()):
        found = rotary(given, 64, form=form)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-5)


@both_forms
def test_half_precision_and_autocast(form):
    built, positions = trunk(form).float(), draw(3, 1, 6).float()
    x = torch.randn(2, 6, 48)
    exact = built(x, positions=positions)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = built(x, positions=positions)
    assert (mixed - exact).abs().mean() < 0.05
    low = built.bfloat16()(x.bfloat16(), positions=positions)
    assert low.dtype == torch.bfloat16
    assert (low - exact).abs().mean() < 0.05


@both_forms
def test_every_parameter_gets_a_gradient(form):
    built = trunk(form)
    built(torch.randn(2, 6, 48).double(), positions=draw(3, 1, 6)).square().mul(torch.rand(48)).sum().backward()
    assert [name for name, p in built.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_table_is_computed_once_a_forward(monkeypatch):
    calls = []
    monkeypatch.setattr(
        "jepa_lightning.encoders.transformer.rotary", lambda *a, **k: calls.append(a) or rotary(*a, **k)
    )
    trunk("interleaved")(torch.randn(1, 6, 48).double(), positions=draw(3, 1, 6))
    assert len(calls) == 1


SPEC = TokenSpec(shape=(1, 2, 2, 2), grid=(3, 4, 5), positions=SinCosPositions)


@both_forms
def test_a_vit_has_no_other_positions(form):
    torch.manual_seed(0)
    vit = ViT(SPEC, width=48, depth=2, heads=2, rotary=form).eval()
    values = torch.randn(2, 60, 1, 2, 2, 2)
    tokens = Tokens(values=values, positions=grid_positions(SPEC.grid), grid=SPEC.grid)
    assert vit.positions is None
    expected = vit.transformer(vit.embed(values.flatten(2)), positions=tokens.positions)
    torch.testing.assert_close(vit(tokens), expected)
    keep = torch.rand(2, 60).argsort(dim=1)[:, :7]
    alone = torch.stack(
        [
            vit.transformer(vit.embed(v[k].flatten(1))[None], positions=tokens.positions[:, k])[0]
            for v, k in zip(values, keep, strict=True)
        ]
    )
    torch.testing.assert_close(vit(tokens, keep), alone, rtol=1e-4, atol=1e-5)
    hidden = torch.ones(2, 60, dtype=torch.bool).scatter(1, keep, False)
    before = vit(tokens, keep)
    tokens.values[hidden] = torch.nan
    assert torch.equal(vit(tokens, keep), before)


@pytest.mark.parametrize(("axes", "head_dim"), [(1, 1), (2, 3), (3, 5)])
def test_heads_that_are_too_narrow_are_refused(axes, head_dim):
    with pytest.raises(ValueError, match=f"heads of {head_dim} channels.*{axes} axes: give at least {2 * axes}"):
        rotary(torch.zeros(1, 2, axes), head_dim)
    assert rotary(torch.zeros(1, 2, axes), 2 * axes).shape == (1, 1, 2, 4 * axes)


def test_other_forms_are_refused():
    with pytest.raises(ValueError, match="interleaved or released, got 'half'"):
        rotary(torch.zeros(1, 2, 3), 12, form="half")
    with pytest.raises(ValueError, match="interleaved, released or null, got 'half'"):
        Transformer(width=12, depth=1, heads=1, rotary="half")


def test_positions_go_with_rotary():
    x, positions = torch.zeros(1, 2, 12), torch.zeros(1, 2, 3)
    with pytest.raises(ValueError, match="rotary interleaved needs the positions"):
        Transformer(width=12, depth=1, heads=1, rotary="interleaved")(x)
    with pytest.raises(ValueError, match="rotary None has no use for positions"):
        Transformer(width=12, depth=1, heads=1)(x, positions=positions)
