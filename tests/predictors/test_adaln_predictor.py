"""The predictor that a condition modulates, against AdaLN-zero's formula in plain loops (Peebles and Xie 2023)."""

import pytest
import torch
from asking import SPEC, TOLD, B, C, D, K, M, T, W, asked, disturbed, plain_attention, plain_mlp, plain_norm

from jepa_lightning.encoders.positions import sincos
from jepa_lightning.predictors import AdaLNPredictor
from jepa_lightning.tokens import Latents, Query


def fresh():
    torch.manual_seed(0)
    return AdaLNPredictor(TOLD, width=W, depth=2, heads=2).double()


@pytest.fixture
def predictor():
    return disturbed(fresh())


def silu(x):
    return x / (1 + torch.exp(-x))


def plain(p, context, context_positions, target_positions, condition):
    """One sample, one block, one condition (C,), the mean of its tokens."""
    first, _, second = p.embed_condition
    vector = silu(condition @ first.weight.T + first.bias) @ second.weight.T + second.bias
    seen = context @ p.embed.weight.T + p.embed.bias + sincos(context_positions, W)
    x = torch.cat([seen, p.mask_token + sincos(target_positions, W)])
    for layer in p.layers:
        modulation = silu(vector) @ layer.modulation.weight.T + layer.modulation.bias
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.split(W)
        x = x + gate1 * plain_attention(plain_norm(x) * (1 + scale1) + shift1, layer.attn)
        x = x + gate2 * plain_mlp(plain_norm(x) * (1 + scale2) + shift2, layer.mlp)
    x = plain_norm(x[len(seen) :], p.norm.weight, p.norm.bias)
    return x @ p.project.weight.T + p.project.bias


@pytest.mark.parametrize("padded", [False, True])
def test_each_block_is_predicted_by_the_formula(predictor, inputs, validity, told, padded):
    context, context_positions, target_positions = inputs
    valid = validity if padded else (None, None)
    condition = told if padded else Latents(values=told.values)
    found = predictor(*asked(*inputs, *valid), condition)
    assert found.shape == (B, M, T, D)
    for b in range(B):
        c = validity[0][b] if padded else torch.ones(K, dtype=torch.bool)
        mean = told.values[b, told.valid[b]].mean(0) if padded else told.values[b].mean(0)
        for m in range(M):
            t = validity[1][b, m] if padded else torch.ones(T, dtype=torch.bool)
            expected = plain(predictor, context[b, c], context_positions[b, c], target_positions[b, m, t], mean)
            torch.testing.assert_close(found[b, m, t], expected)


def test_a_condition_modulates_its_own_sample_and_its_padding_does_not(predictor, inputs, told):
    seen = asked(*inputs)
    before = predictor(*seen, told)
    other, garbage = told.values.clone(), told.values.clone()
    other[1, 0] += 1
    garbage[~told.valid] = torch.nan
    changed = (predictor(*seen, Latents(values=other, valid=told.valid)) - before).abs().amax((1, 2, 3))
    assert changed[1] > 1e-3
    assert changed[[0, 2]].max() < 1e-12
    torch.testing.assert_close(predictor(*seen, Latents(values=garbage, valid=told.valid)), before, rtol=0, atol=1e-12)


def test_the_layers_start_as_the_identity(inputs, told):
    predictor = fresh()
    x = torch.randn(4, 9, W).double()
    for layer in predictor.layers:
        assert torch.equal(layer(x, torch.randn(4, W).double()), x)
    found = predictor(*asked(*inputs), told)
    queries = predictor.mask_token + sincos(inputs[2], W)
    torch.testing.assert_close(found, predictor.project(predictor.norm(queries)))  # where a query lies, nothing else


def test_the_condition_is_learned_from_the_second_step_on(inputs, told):
    """At zero only the modulation itself gets a gradient; one step later all that is behind it does."""
    predictor, seen = fresh(), asked(*inputs)
    optimizer = torch.optim.SGD(predictor.parameters(), lr=0.1)
    target = torch.randn(B, M, T, D, generator=torch.Generator().manual_seed(2)).double()
    for step in range(3):
        optimizer.zero_grad()
        (predictor(*seen, told) - target).square().mean().backward()
        moved = {name for name, p in predictor.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        behind = {name for name, _ in predictor.named_parameters() if name.startswith("embed")}
        if step == 0:
            assert not moved & behind
            assert {f"layers.{i}.modulation.weight" for i in range(2)} <= moved
        else:
            assert behind <= moved
        optimizer.step()
    assert moved == {name for name, _ in predictor.named_parameters()}


def test_blocks_do_not_see_each_other(predictor, inputs, told):
    context, context_positions, target_positions = inputs
    before = predictor(*asked(*inputs), told)
    moved = target_positions.clone()
    moved[:, 2] += 1
    after = predictor(*asked(context, context_positions, moved), told)
    torch.testing.assert_close(after[:, [0, 1, 3]], before[:, [0, 1, 3]], rtol=0, atol=1e-12)
    assert (after[:, 2] - before[:, 2]).abs().max() > 1e-3


def test_a_sample_without_any_real_token_stays_finite(predictor, inputs, told):
    empty = torch.zeros(B, K, dtype=torch.bool), torch.zeros(B, M, T, dtype=torch.bool)
    found = predictor(*asked(*inputs, *empty), Latents(values=told.values, valid=torch.zeros_like(told.valid)))
    found.sum().backward()
    assert found.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in predictor.parameters())


def test_what_it_needs_is_said(predictor, inputs, told):
    with pytest.raises(ValueError, match=r"modulated by a condition, and this pretext has none: use TransformerPredi"):
        AdaLNPredictor(SPEC, width=W, depth=1, heads=2)
    with pytest.raises(ValueError, match=f"AdaLNPredictor was built for a condition of width {C} and got none"):
        predictor(*asked(*inputs))
    with pytest.raises(ValueError, match=rf"expected a condition \(B, S, {C}\).*got \(3, 2, 5\)"):
        predictor(*asked(*inputs), Latents(values=told.values[..., :5]))
    with pytest.raises(ValueError, match="needs the context's positions"):
        predictor(Latents(values=inputs[0]), Query(positions=inputs[2]), told)
    with pytest.raises(ValueError, match="width 16 is not a multiple of heads 3"):
        AdaLNPredictor(TOLD, width=W, heads=3)
