"""The predictor, block by block and sample by sample."""

import pytest
import torch
from torch import nn

from jepa_lightning.encoders import SinCosPositions, TokenSpec
from jepa_lightning.encoders.positions import sincos
from jepa_lightning.parallel import prepare_blocks
from jepa_lightning.predictors import MLPPredictor, TransformerPredictor

B, K, M, T, D, W = 3, 7, 4, 5, 12, 16
SPEC = TokenSpec(shape=(3, 4, 4), grid=(6, 6), positions=SinCosPositions)


@pytest.fixture
def predictor():
    torch.manual_seed(0)
    predictor = TransformerPredictor(D, SPEC, width=W, depth=2, heads=2)
    with torch.no_grad():  # away from the small initial values, so that everything has an effect
        for parameter in predictor.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return predictor.double().eval()


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)

    def positions(*shape):
        return torch.randint(6, (*shape, 2), generator=generator).double()

    return torch.randn(B, K, D, generator=generator).double(), positions(B, K), positions(B, M, T)


def plain(predictor, context, context_positions, target_positions):
    """One sample, one block: (K, D), (K, P), (T, P) to (T, D), written from the paper."""
    p = predictor
    seen = context @ p.embed.weight.T + p.embed.bias + sincos(context_positions, W)
    asked = torch.stack([p.mask_token + sincos(where, W) for where in target_positions])
    x = torch.cat([seen, asked])[None]
    for block in p.transformer.blocks:
        x = block(x)
    x = p.transformer.norm(x)[0, len(context) :]
    return x @ p.project.weight.T + p.project.bias


def test_each_block_is_predicted_alone_from_the_whole_context(predictor, inputs):
    context, context_positions, target_positions = inputs
    found = predictor(*inputs)
    assert found.shape == (B, M, T, D)
    for b in range(B):
        for m in range(M):
            expected = plain(predictor, context[b], context_positions[b], target_positions[b, m])
            torch.testing.assert_close(found[b, m], expected)


def test_blocks_do_not_see_each_other(predictor, inputs):
    context, context_positions, target_positions = inputs
    before = predictor(*inputs)
    moved = target_positions.clone()
    moved[:, 2] += 1
    after = predictor(context, context_positions, moved)
    torch.testing.assert_close(after[:, [0, 1, 3]], before[:, [0, 1, 3]], rtol=0, atol=1e-12)
    assert (after[:, 2] - before[:, 2]).abs().max() > 1e-3


def test_the_prediction_depends_on_the_context_and_on_where_it_lies(predictor, inputs):
    context, context_positions, target_positions = inputs
    before = predictor(*inputs)
    other = context.clone()
    other[0, 0] += 1
    changed = (predictor(other, context_positions, target_positions) - before).abs().amax((1, 2, 3))
    assert changed[0] > 1e-3
    assert changed[1:].max() < 1e-12  # nor does one sample see another's
    shifted = context_positions.clone()
    shifted[0, 0] += 1
    assert (predictor(context, shifted, target_positions) - before).abs().max() > 1e-3


def test_the_order_of_the_context_does_not_matter(predictor, inputs):
    context, context_positions, target_positions = inputs
    order = torch.randperm(K, generator=torch.Generator().manual_seed(2))
    turned = predictor(context[:, order], context_positions[:, order], target_positions)
    torch.testing.assert_close(turned, predictor(*inputs))


@pytest.fixture
def validity():
    generator = torch.Generator().manual_seed(3)
    context_valid = torch.rand(B, K, generator=generator) > 0.4
    target_valid = torch.rand(B, M, T, generator=generator) > 0.4
    context_valid[:, 0] = target_valid[:, :, 0] = True
    return context_valid, target_valid


@pytest.mark.parametrize("which", ["context", "targets", "both"])
def test_invalid_slots_have_no_effect(predictor, inputs, validity, which):
    context_valid = validity[0] if which != "targets" else None
    target_valid = validity[1] if which != "context" else None
    context, context_positions, target_positions = inputs
    found = predictor(context, context_positions, target_positions, context_valid, target_valid)
    garbage = [context.clone(), context_positions.clone(), target_positions.clone()]
    if context_valid is not None:
        garbage[0][~context_valid] = 1e3
        garbage[1][~context_valid] = 77
    if target_valid is not None:
        garbage[2][~target_valid] = -55
    again = predictor(*garbage, context_valid, target_valid)
    real = torch.ones(B, M, T, dtype=torch.bool) if target_valid is None else target_valid
    torch.testing.assert_close(again[real], found[real], rtol=0, atol=1e-12)
    for b in range(B):  # and equal what the valid slots alone would give
        for m in range(M):
            c = torch.ones(K, dtype=torch.bool) if context_valid is None else context_valid[b]
            t = real[b, m]
            expected = plain(predictor, context[b, c], context_positions[b, c], target_positions[b, m, t])
            torch.testing.assert_close(found[b, m, t], expected)


def test_a_sample_without_any_real_token_stays_finite(predictor, inputs):
    empty = torch.zeros(B, K, dtype=torch.bool), torch.zeros(B, M, T, dtype=torch.bool)
    found = predictor(*inputs, *empty)
    found.sum().backward()
    assert found.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in predictor.parameters())


def test_the_context_is_projected_once(predictor, inputs):
    shapes = []
    predictor.embed.register_forward_hook(lambda module, given, out: shapes.append(tuple(given[0].shape)))
    predictor(*inputs)
    assert shapes == [(B, K, D)]


def test_all_blocks_of_all_samples_go_through_the_trunk_together(predictor, inputs):
    shapes = []
    predictor.transformer.register_forward_hook(lambda module, given, out: shapes.append(tuple(given[0].shape)))
    predictor(*inputs)
    assert shapes == [(B * M, K + T, W)]


def test_everything_is_trained(predictor, inputs):
    predictor(*inputs).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in predictor.parameters())


def test_positions_come_from_the_modality():
    widths = []

    class Learned(nn.Linear):
        def __init__(self, width):
            widths.append(width)
            super().__init__(1, width)

    predictor = TransformerPredictor(D, TokenSpec(shape=(1,), grid=None, positions=Learned), width=W, depth=1, heads=2)
    assert widths == [W]
    out = predictor(torch.zeros(2, 3, D), torch.zeros(2, 3, 1), torch.zeros(2, 1, 4, 1))
    out.sum().backward()
    assert predictor.positions.weight.grad is not None


def test_the_papers_size_is_the_default():
    """Section 3 and appendix: width 384 for every encoder; the mask token is one shared vector."""
    predictor = TransformerPredictor(768, SPEC)
    assert predictor.embed.weight.shape == (384, 768)
    assert predictor.project.weight.shape == (768, 384)
    assert predictor.mask_token.shape == (384,)
    assert len(list(predictor.blocks)) == 6
    for linear in (predictor.embed, predictor.project):
        assert float(linear.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
        assert (linear.bias == 0).all()


@pytest.fixture(params=["interleaved", "released"])
def rotary_predictor(request):
    torch.manual_seed(0)
    predictor = TransformerPredictor(D, SPEC, width=W, depth=2, heads=2, rotary=request.param)
    with torch.no_grad():
        for parameter in predictor.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return predictor.double().eval()


@pytest.mark.parametrize("padded", [False, True])
def test_with_rotary_the_trunk_gets_the_positions_and_queries_are_the_mask_token(
    rotary_predictor, inputs, validity, padded
):
    p, (context, context_positions, target_positions) = rotary_predictor, inputs
    assert p.positions is None
    found = p(*inputs, *(validity if padded else (None, None)))
    assert found.shape == (B, M, T, D)
    for b in range(B):
        for m in range(M):
            c = validity[0][b] if padded else torch.ones(K, dtype=torch.bool)
            t = validity[1][b, m] if padded else torch.ones(T, dtype=torch.bool)
            x = torch.cat([p.embed(context[b, c]), p.mask_token.expand(int(t.sum()), -1)])[None]
            where = torch.cat([context_positions[b, c], target_positions[b, m, t]])[None]
            expected = p.project(p.transformer(x, positions=where)[0, int(c.sum()) :])
            torch.testing.assert_close(found[b, m, t], expected)


def test_with_rotary_everything_is_trained(rotary_predictor, inputs):
    rotary_predictor(*inputs).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in rotary_predictor.parameters())


def test_with_rotary_predictions_depend_on_where_targets_lie(rotary_predictor, inputs):
    context, context_positions, target_positions = inputs
    moved = target_positions.clone()
    moved[:, 2] += 1
    difference = (rotary_predictor(context, context_positions, moved) - rotary_predictor(*inputs)).abs()
    assert difference[:, 2].max() > 1e-3
    assert difference[:, [0, 1, 3]].max() < 1e-12


# The MLP -------------------------------------------------------------------------------------------------------------


def mlp(depth=3, positions=SinCosPositions):
    torch.manual_seed(0)
    return MLPPredictor(D, TokenSpec(shape=(3,), grid=None, positions=positions), width=W, depth=depth).double()


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_an_mlp_of_the_mean_context_and_the_place_of_each_target(depth, inputs):
    predictor = mlp(depth)
    context, context_positions, target_positions = inputs
    valid = torch.rand(B, K, generator=torch.Generator().manual_seed(2)) > 0.4
    valid[0] = True
    found = predictor(*inputs, valid)
    assert found.shape == (B, M, T, D)
    for b in range(B):
        real = [context[b, k] + sincos(context_positions[b, k], D) for k in range(K) if valid[b, k]]
        for m in range(M):
            for t in range(T):
                x = sum(real) / len(real) + sincos(target_positions[b, m, t], D)
                for linear, norm, _ in predictor.layers:
                    x = norm(linear.weight @ x + linear.bias)
                    x = x * (1 + torch.erf(x / 2**0.5)) / 2
                torch.testing.assert_close(found[b, m, t], predictor.project(x))


def test_the_mlp_ignores_what_filler_holds(inputs):
    predictor = mlp()
    context, context_positions, target_positions = inputs
    valid = torch.ones(B, K, dtype=torch.bool)
    valid[:, 4:] = False
    expected = predictor(context[:, :4], context_positions[:, :4], target_positions)
    context[:, 4:] = torch.nan
    torch.testing.assert_close(predictor(context, context_positions, target_positions, valid), expected)


def test_the_blocks_of_the_mlp_are_its_hidden_layers(inputs):
    predictor = mlp()
    assert list(predictor.blocks) == list(predictor.layers)
    before = predictor(*inputs)
    prepare_blocks(predictor.blocks, checkpoint_activations=True)
    after = predictor(*inputs)
    assert torch.equal(after, before)
    after.sum().backward()
    assert all(parameter.grad is not None for parameter in predictor.parameters())
    assert not list(mlp(1).blocks)
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        mlp(0)
