"""The Transformer predictor, block by block and sample by sample."""

from dataclasses import replace

import pytest
import torch
from asking import SPEC, TOKEN, TOLD, B, C, D, K, M, S, T, W, asked, disturbed
from torch import nn

from jepa_lightning.encoders import TokenSpec
from jepa_lightning.encoders.positions import grid_positions, sincos
from jepa_lightning.predictors import PredictorSpec, TransformerPredictor
from jepa_lightning.tokens import Latents, Query


@pytest.fixture
def predictor():
    torch.manual_seed(0)
    predictor = TransformerPredictor(SPEC, width=W, depth=2, heads=2)
    return disturbed(predictor)


def plain(predictor, context, context_positions, target_positions):
    """One sample, one block: (K, D), (K, P), (T, P) to (T, D), written from the paper."""
    p = predictor
    seen = context @ p.embed.weight.T + p.embed.bias + sincos(context_positions, W)
    asked = torch.stack([p.mask_token + sincos(where, W) for where in target_positions])
    x = torch.cat([seen, asked])[None]
    for block in p.transformer.layers:
        x = block(x)
    x = p.transformer.norm(x)[0, len(context) :]
    return x @ p.project.weight.T + p.project.bias


def test_each_block_is_predicted_alone_from_the_whole_context(predictor, inputs):
    context, context_positions, target_positions = inputs
    found = predictor(*asked(*inputs))
    assert found.shape == (B, M, T, D)
    for b in range(B):
        for m in range(M):
            expected = plain(predictor, context[b], context_positions[b], target_positions[b, m])
            torch.testing.assert_close(found[b, m], expected)


def test_blocks_do_not_see_each_other(predictor, inputs):
    context, context_positions, target_positions = inputs
    before = predictor(*asked(*inputs))
    moved = target_positions.clone()
    moved[:, 2] += 1
    after = predictor(*asked(context, context_positions, moved))
    torch.testing.assert_close(after[:, [0, 1, 3]], before[:, [0, 1, 3]], rtol=0, atol=1e-12)
    assert (after[:, 2] - before[:, 2]).abs().max() > 1e-3


def test_the_prediction_depends_on_the_context_and_on_where_it_lies(predictor, inputs):
    context, context_positions, target_positions = inputs
    before = predictor(*asked(*inputs))
    other = context.clone()
    other[0, 0] += 1
    changed = (predictor(*asked(other, context_positions, target_positions)) - before).abs().amax((1, 2, 3))
    assert changed[0] > 1e-3
    assert changed[1:].max() < 1e-12  # nor does one sample see another's
    shifted = context_positions.clone()
    shifted[0, 0] += 1
    assert (predictor(*asked(context, shifted, target_positions)) - before).abs().max() > 1e-3


def test_the_order_of_the_context_does_not_matter(predictor, inputs):
    context, context_positions, target_positions = inputs
    order = torch.randperm(K, generator=torch.Generator().manual_seed(2))
    turned = predictor(*asked(context[:, order], context_positions[:, order], target_positions))
    torch.testing.assert_close(turned, predictor(*asked(*inputs)))


@pytest.mark.parametrize("which", ["context", "targets", "both"])
def test_invalid_slots_have_no_effect(predictor, inputs, validity, which):
    context_valid = validity[0] if which != "targets" else None
    target_valid = validity[1] if which != "context" else None
    context, context_positions, target_positions = inputs
    found = predictor(*asked(context, context_positions, target_positions, context_valid, target_valid))
    garbage = [context.clone(), context_positions.clone(), target_positions.clone()]
    if context_valid is not None:
        garbage[0][~context_valid] = 1e3
        garbage[1][~context_valid] = 77
    if target_valid is not None:
        garbage[2][~target_valid] = -55
    again = predictor(*asked(*garbage, context_valid, target_valid))
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
    found = predictor(*asked(*inputs, *empty))
    found.sum().backward()
    assert found.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in predictor.parameters())


def test_the_context_is_projected_once(predictor, inputs):
    shapes = []
    predictor.embed.register_forward_hook(lambda module, given, out: shapes.append(tuple(given[0].shape)))
    predictor(*asked(*inputs))
    assert shapes == [(B, K, D)]


def test_all_blocks_of_all_samples_go_through_the_trunk_together(predictor, inputs):
    shapes = []
    predictor.transformer.register_forward_hook(lambda module, given, out: shapes.append(tuple(given[0].shape)))
    predictor(*asked(*inputs))
    assert shapes == [(B * M, K + T, W)]


def test_everything_is_trained(predictor, inputs):
    predictor(*asked(*inputs)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in predictor.parameters())


def test_positions_come_from_the_modality():
    widths = []

    class Learned(nn.Linear):
        def __init__(self, width):
            widths.append(width)
            super().__init__(1, width)

    token = TokenSpec(shape=(1,), grid=None, positions=Learned)
    predictor = TransformerPredictor(PredictorSpec(dim=D, out=D, token=token), width=W, depth=1, heads=2)
    assert widths == [W]
    context = Latents(values=torch.zeros(2, 3, D), positions=torch.zeros(2, 3, 1))
    out = predictor(context, Query(positions=torch.zeros(2, 1, 4, 1)))
    out.sum().backward()
    assert predictor.positions.weight.grad is not None


def test_the_papers_size_is_the_default():
    """Section 3 and appendix: width 384 for every encoder; the mask token is one shared vector."""
    predictor = TransformerPredictor(PredictorSpec(dim=768, out=768, token=TOKEN))
    assert predictor.embed.weight.shape == (384, 768)
    assert predictor.project.weight.shape == (768, 384)
    assert predictor.mask_token.shape == (384,)
    assert len(list(predictor.layers)) == 6
    for linear in (predictor.embed, predictor.project):
        assert float(linear.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
        assert (linear.bias == 0).all()


@pytest.fixture(params=["interleaved", "released"])
def rotary_predictor(request):
    torch.manual_seed(0)
    predictor = TransformerPredictor(SPEC, width=W, depth=2, heads=2, rotary=request.param)
    return disturbed(predictor)


@pytest.mark.parametrize("padded", [False, True])
def test_with_rotary_the_trunk_gets_the_positions_and_queries_are_the_mask_token(
    rotary_predictor, inputs, validity, padded
):
    p, (context, context_positions, target_positions) = rotary_predictor, inputs
    assert p.positions is None
    found = p(*asked(*inputs, *(validity if padded else (None, None))))
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
    rotary_predictor(*asked(*inputs)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in rotary_predictor.parameters())


def test_with_rotary_predictions_depend_on_where_targets_lie(rotary_predictor, inputs):
    context, context_positions, target_positions = inputs
    moved = target_positions.clone()
    moved[:, 2] += 1
    difference = (rotary_predictor(*asked(context, context_positions, moved)) - rotary_predictor(*asked(*inputs))).abs()
    assert difference[:, 2].max() > 1e-3
    assert difference[:, [0, 1, 3]].max() < 1e-12


# A condition --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[None, "interleaved", "released"])
def told_predictor(request):
    torch.manual_seed(0)
    return disturbed(TransformerPredictor(TOLD, width=W, depth=2, heads=2, rotary=request.param))


def plain_told(p, context, context_positions, target_positions, condition, condition_positions=None):
    """One sample, one block: the condition's tokens (S, C), the context's (K, D), then the queries."""
    first = condition @ p.embed_condition.weight.T + p.embed_condition.bias + p.condition_token
    seen = context @ p.embed.weight.T + p.embed.bias
    asked = p.mask_token.expand(len(target_positions), -1)
    where = torch.zeros(len(condition), 2).double() if condition_positions is None else condition_positions
    if p.positions is not None:
        first = first if condition_positions is None else first + sincos(condition_positions, W)
        seen, asked = seen + sincos(context_positions, W), asked + sincos(target_positions, W)
    x = torch.cat([first, seen, asked])[None]
    places = None if p.positions is not None else torch.cat([where, context_positions, target_positions])[None]
    return p.project(p.transformer(x, positions=places)[0, len(first) + len(seen) :])


@pytest.mark.parametrize("placed", [False, True])
@pytest.mark.parametrize("padded", ["nothing", "condition", "tokens", "both"])
def test_a_condition_stands_in_front_of_the_context(told_predictor, inputs, validity, told, padded, placed):
    context, context_positions, target_positions = inputs
    where = torch.tensor([[1.0, 2.0], [4.0, 0.0]]).double().expand(B, -1, -1) if placed else None
    valid = validity if padded in ("tokens", "both") else (None, None)
    told_valid = told.valid if padded in ("condition", "both") else None
    condition = Latents(values=told.values, positions=where, valid=told_valid)
    found = told_predictor(*asked(*inputs, *valid), condition)
    assert found.shape == (B, M, T, D)
    for b in range(B):
        c = torch.ones(K, dtype=torch.bool) if valid[0] is None else valid[0][b]
        s = torch.ones(S, dtype=torch.bool) if told_valid is None else told_valid[b]
        for m in range(M):
            t = torch.ones(T, dtype=torch.bool) if valid[1] is None else valid[1][b, m]
            expected = plain_told(
                told_predictor,
                *(context[b, c], context_positions[b, c], target_positions[b, m, t]),
                *(told.values[b, s], where[b, s] if placed else None),
            )
            torch.testing.assert_close(found[b, m, t], expected)


def test_positions_of_a_condition_may_be_shared_by_all_samples(told_predictor, inputs, told):
    where = torch.tensor([[[1.0, 2.0], [4.0, 0.0]]]).double()
    shared, own = (Latents(values=told.values, positions=p) for p in (where, where.expand(B, -1, -1)))
    seen = asked(*inputs)
    assert torch.equal(told_predictor(*seen, shared), told_predictor(*seen, own))


def test_a_condition_changes_the_predictions_of_its_own_sample(told_predictor, inputs, told):
    seen = asked(*inputs)
    before = told_predictor(*seen, told)
    other = told.values.clone()
    other[1, 0] += 1
    changed = (told_predictor(*seen, Latents(values=other, valid=told.valid)) - before).abs().amax((1, 2, 3))
    assert changed[1] > 1e-3
    assert changed[[0, 2]].max() < 1e-12


def test_padding_of_a_condition_has_no_effect(told_predictor, inputs, told):
    seen = asked(*inputs)
    before = told_predictor(*seen, told)
    garbage = told.values.clone()
    garbage[~told.valid] = 1e3
    again = told_predictor(*seen, Latents(values=garbage, valid=told.valid))
    torch.testing.assert_close(again, before, rtol=0, atol=1e-12)


def test_with_a_condition_everything_is_trained(told_predictor, inputs, told):
    told_predictor(*asked(*inputs), told).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in told_predictor.parameters())


def test_without_a_condition_there_are_no_parameters_for_one(predictor):
    assert not [name for name, _ in predictor.named_parameters() if "condition" in name]


def test_a_predictor_may_be_wider_than_what_it_sees(inputs):
    predictor = TransformerPredictor(PredictorSpec(dim=D, out=2 * D, token=TOKEN), width=W, depth=1, heads=2).double()
    assert predictor(*asked(*inputs)).shape == (B, M, T, 2 * D)


def test_a_context_that_lies_nowhere_is_refused(predictor, inputs):
    with pytest.raises(ValueError, match="needs the context's positions, got Latents without positions"):
        predictor(Latents(values=inputs[0]), Query(positions=inputs[2]))


def test_a_condition_just_where_the_predictor_was_built_for_one(predictor, told_predictor, inputs, told):
    with pytest.raises(ValueError, match="built without a condition and got one: give PredictorSpec its width"):
        predictor(*asked(*inputs), told)
    with pytest.raises(ValueError, match=f"TransformerPredictor was built for a condition of width {C} and got none"):
        told_predictor(*asked(*inputs))
    with pytest.raises(ValueError, match=rf"expected a condition \(B, S, {C}\).*got \(3, 2, 5\)"):
        told_predictor(*asked(*inputs), Latents(values=told.values[..., :5]))


def test_each_draw_of_masks_has_its_own_token(inputs):
    torch.manual_seed(0)
    several = disturbed(TransformerPredictor(SPEC, width=W, depth=1, heads=2, mask_tokens=3))
    assert several.mask_token.shape == (3, W)
    state = several.state_dict()
    context, query = asked(*inputs)
    for number in range(5):
        one = TransformerPredictor(SPEC, width=W, depth=1, heads=2).double().eval()
        one.load_state_dict({**state, "mask_token": state["mask_token"][number % 3]})
        torch.testing.assert_close(several(context, replace(query, mask=number)), one(context, query))
    with pytest.raises(ValueError, match="mask_tokens must be at least 1"):
        TransformerPredictor(SPEC, mask_tokens=0)


def test_stored_positions(inputs):
    torch.manual_seed(0)
    stored = disturbed(TransformerPredictor(SPEC, width=W, depth=1, heads=2, positions="stored"))
    plain = TransformerPredictor(SPEC, width=W, depth=1, heads=2).double().eval()
    weights = {name: value for name, value in stored.state_dict().items() if name != "positions.table"}
    plain.load_state_dict(weights)
    stored.positions.table.copy_(sincos(grid_positions(TOKEN.grid).double(), W)[0])
    torch.testing.assert_close(stored(*asked(*inputs)), plain(*asked(*inputs)))


def shared_mask():
    """Which token sees which of [context, block 1, ..., block M]: (N, N)."""
    owner = torch.cat([torch.zeros(K), torch.arange(1, M + 1).repeat_interleave(T)])
    return (owner[None, :] == 0) | (owner[:, None] == owner[None, :])


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("with_context", [False, True])
def test_a_shared_context_is_plain_attention_with_a_mask(inputs, validity, padded, with_context):
    torch.manual_seed(0)
    spec = replace(SPEC, predict_context=with_context)
    p = disturbed(TransformerPredictor(spec, width=W, depth=3, heads=2, shared_context=True))
    context, context_positions, target_positions = inputs
    valid = validity if padded else (None, None)
    found = p(*asked(*inputs, *valid))

    seen = p.embed(context) + sincos(context_positions, W)
    x = torch.cat([seen, (p.mask_token + sincos(target_positions, W)).flatten(1, 2)], dim=1)
    mask = shared_mask().expand(B, 1, -1, -1)
    if padded:
        mask = mask & torch.cat([valid[0], valid[1].flatten(1)], dim=1)[:, None, None, :]
    for layer in p.transformer.layers:
        x = layer(x, attn_mask=mask)
    x = p.transformer.norm(x)
    expected = p.project(x[:, K:]).unflatten(1, (M, T))
    if with_context:
        own = p.project_context(x[:, :K]).unsqueeze(1).expand(-1, M, -1, -1)
        expected = torch.cat([own, expected], dim=2)
    torch.testing.assert_close(found, expected)
    gradients = torch.autograd.grad(found.square().sum(), list(p.parameters()), retain_graph=True)
    for mine, plain_one in zip(
        gradients, torch.autograd.grad(expected.square().sum(), list(p.parameters())), strict=True
    ):
        torch.testing.assert_close(mine, plain_one)


def test_a_shared_context_does_not_see_the_queries_and_is_the_same_function_for_one_layer(inputs):
    """In one layer the queries see the context before it could have seen them."""
    made = []
    for shared in (False, True):
        torch.manual_seed(0)
        made.append(disturbed(TransformerPredictor(SPEC, width=W, depth=1, heads=2, shared_context=shared)))
    torch.testing.assert_close(made[0](*asked(*inputs)), made[1](*asked(*inputs)))
    deep = [disturbed(TransformerPredictor(SPEC, width=W, depth=2, heads=2, shared_context=s)) for s in (False, True)]
    deep[1].load_state_dict(deep[0].state_dict())
    assert (deep[0](*asked(*inputs)) - deep[1](*asked(*inputs))).abs().max() > 1e-3


def test_a_shared_context_behind_a_condition(inputs, told, validity):
    """The condition belongs to the context: its padding has no effect, its values do."""
    p = disturbed(TransformerPredictor(TOLD, width=W, depth=2, heads=2, shared_context=True))
    found = p(*asked(*inputs, *validity), told)
    padding = replace(told, values=torch.where(told.valid[..., None], told.values, told.values + 1))
    torch.testing.assert_close(p(*asked(*inputs, *validity), padding), found)
    assert (p(*asked(*inputs, *validity), replace(told, values=told.values + 1)) - found).abs().max() > 1e-3


def test_rotary_attention_has_no_shared_context():
    with pytest.raises(ValueError, match="leave out rotary, or shared_context"):
        TransformerPredictor(SPEC, width=W, depth=1, heads=2, rotary="interleaved", shared_context=True)
