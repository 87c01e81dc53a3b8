"""The MLP predictor against plain loops."""

import pytest
import torch
from asking import TOKEN, B, C, D, K, M, S, T, W, asked

from jepa_lightning.encoders.positions import sincos
from jepa_lightning.predictors import MLPPredictor, PredictorSpec
from jepa_lightning.scale.parallel import prepare_layers
from jepa_lightning.tokens import Latents, Query


def mlp(depth=3, condition=None):
    torch.manual_seed(0)
    return MLPPredictor(PredictorSpec(dim=D, out=D, token=TOKEN, condition=condition), width=W, depth=depth).double()


def plain(predictor, seen, where):
    """One target token at (P,), from the mean of what is known, (D,)."""
    x = seen + sincos(where, D)
    for linear, norm, _ in predictor.layers:
        x = norm(linear.weight @ x + linear.bias)
        x = x * (1 + torch.erf(x / 2**0.5)) / 2
    return predictor.project(x)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_an_mlp_of_the_mean_context_and_the_place_of_each_target(depth, inputs):
    predictor = mlp(depth)
    context, context_positions, target_positions = inputs
    valid = torch.rand(B, K, generator=torch.Generator().manual_seed(2)) > 0.4
    valid[0] = True
    found = predictor(*asked(*inputs, valid))
    assert found.shape == (B, M, T, D)
    for b in range(B):
        real = [context[b, k] + sincos(context_positions[b, k], D) for k in range(K) if valid[b, k]]
        for m in range(M):
            for t in range(T):
                expected = plain(predictor, sum(real) / len(real), target_positions[b, m, t])
                torch.testing.assert_close(found[b, m, t], expected)


def test_the_mlp_ignores_what_filler_holds(inputs):
    predictor = mlp()
    context, context_positions, target_positions = inputs
    valid = torch.ones(B, K, dtype=torch.bool)
    valid[:, 4:] = False
    expected = predictor(*asked(context[:, :4], context_positions[:, :4], target_positions))
    context[:, 4:] = torch.nan
    torch.testing.assert_close(predictor(*asked(context, context_positions, target_positions, valid)), expected)


def test_the_blocks_of_the_mlp_are_its_hidden_layers(inputs):
    predictor = mlp()
    assert list(predictor.layers) == list(predictor.layers)
    before = predictor(*asked(*inputs))
    prepare_layers(predictor.layers, checkpoint_activations=True)
    after = predictor(*asked(*inputs))
    assert torch.equal(after, before)
    after.sum().backward()
    assert all(parameter.grad is not None for parameter in predictor.parameters())
    assert not list(mlp(1).layers)
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        mlp(0)


@pytest.mark.parametrize("padded", [False, True])
def test_a_condition_is_added_to_the_mean(inputs, told, padded):
    predictor = mlp(condition=C)
    context, context_positions, target_positions = inputs
    condition = Latents(values=told.values, valid=told.valid if padded else None)
    found = predictor(*asked(*inputs), condition)
    for b in range(B):
        seen = sum(context[b, k] + sincos(context_positions[b, k], D) for k in range(K)) / K
        real = [told.values[b, s] for s in range(S) if not padded or told.valid[b, s]]
        seen = seen + predictor.embed_condition.weight @ (sum(real) / len(real)) + predictor.embed_condition.bias
        for m in range(M):
            for t in range(T):
                torch.testing.assert_close(found[b, m, t], plain(predictor, seen, target_positions[b, m, t]))


def test_a_condition_changes_the_predictions_and_its_padding_does_not(inputs, told):
    predictor, seen = mlp(condition=C), asked(*inputs)
    before = predictor(*seen, told)
    other, garbage = told.values.clone(), told.values.clone()
    other[1, 0] += 1
    garbage[~told.valid] = torch.nan
    changed = (predictor(*seen, Latents(values=other, valid=told.valid)) - before).abs().amax((1, 2, 3))
    assert changed[1] > 1e-3
    assert (changed[[0, 2]] == 0).all()
    assert torch.equal(predictor(*seen, Latents(values=garbage, valid=told.valid)), before)
    before.sum().backward()
    assert all(p.grad is not None for p in predictor.parameters())


def test_a_context_that_lies_nowhere_is_averaged_as_it_is(inputs):
    predictor = mlp()
    context, _, target_positions = inputs
    found = predictor(Latents(values=context), Query(positions=target_positions))
    torch.testing.assert_close(found[1, 2, 3], plain(predictor, context[1].mean(0), target_positions[1, 2, 3]))


def test_a_condition_just_where_the_predictor_was_built_for_one(inputs, told):
    with pytest.raises(ValueError, match="MLPPredictor was built without a condition and got one"):
        mlp()(*asked(*inputs), told)
    with pytest.raises(ValueError, match=f"MLPPredictor was built for a condition of width {C} and got none"):
        mlp(condition=C)(*asked(*inputs))
    with pytest.raises(ValueError, match=rf"expected a condition \(B, S, {C}\).*got \(3, 2, 5\)"):
        mlp(condition=C)(*asked(*inputs), Latents(values=told.values[..., :5]))
