"""The frame-causal predictor: V-JEPA 2-AC's and LeWorldModel's formulas in plain loops, one call against many."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from asking import disturbed, plain_norm

from jepa_lightning.encoders import SinCosPositions, TokenSpec
from jepa_lightning.predictors import FrameCausalPredictor, Past, PredictorSpec, rollout
from jepa_lightning.predictors.rollout import frame_spec, predict_next
from jepa_lightning.tokens import Latents, Query

D, A, W, B, H = 12, 3, 16, 2, 4
TOKEN = TokenSpec(shape=(1, 8, 8), grid=(2, 2), positions=SinCosPositions)
PLACES = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
KINDS = {
    "token": partial(FrameCausalPredictor, width=W, depth=2, heads=2),
    "modulation": partial(FrameCausalPredictor, width=W, depth=2, heads=2, action="modulation", dropout=0.1),
    "wide heads": partial(FrameCausalPredictor, width=W, depth=2, heads=3, head_dim=6, action="modulation"),
    "projector": partial(FrameCausalPredictor, width=W, depth=2, heads=2, projector=20),
}


def make(kind, *, pooled=False):
    torch.manual_seed(0)
    predictor = KINDS[kind](PredictorSpec(dim=D, out=D, token=frame_spec(TOKEN, pooled=pooled), condition=A, history=H))
    return disturbed(predictor)


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def past(*, pooled=False, valid=None, actions=True):
    tokens = 1 if pooled else 4
    told = drawn(B, H - 1, A, seed=2) if actions else None
    return Past(states=drawn(B, H, tokens, D), valid=valid, positions=None if pooled else PLACES, actions=told)


def every(predictor, seen, actions):
    """One call: what follows each state, (B, H, S, D)."""
    return predictor(seen.context(), seen.query(seen.states.shape[1]), Latents(values=actions))


def turned(x, place, size):
    """One head's channels (C,) rotated by a place (P,): RoFormer's pairs, an equal segment for each axis."""
    x, half = x.clone(), size // len(place) // 2
    for axis, coordinate in enumerate(place.tolist()):
        for i in range(half):
            angle = coordinate * 10_000.0 ** (-i / half)
            first = 2 * half * axis + 2 * i
            a, b = x[first].clone(), x[first + 1].clone()
            x[first] = a * math.cos(angle) - b * math.sin(angle)
            x[first + 1] = a * math.sin(angle) + b * math.cos(angle)
    return x


def plain_attention(x, attn, places, sees):
    """Attention over a list of tokens (L, W), token by token; `sees[i]` are the tokens that i attends to."""
    size, heads = attn.head_dim, attn.num_heads
    q, k, v = (x @ attn.qkv.weight.T + attn.qkv.bias).chunk(3, dim=-1)
    rows = []
    for i in range(len(x)):
        parts = []
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            query = turned(q[i, part], places[i], size)
            scores = torch.stack([query @ turned(k[j, part], places[j], size) / size**0.5 for j in sees[i]]).exp()
            parts.append(sum(s * v[j, part] for s, j in zip(scores / scores.sum(), sees[i], strict=True)))
        rows.append(torch.cat(parts))
    return torch.stack(rows) @ attn.proj.weight.T + attn.proj.bias


def gelu(x):
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def plain_layer(x, layer, places, sees, vectors):
    if layer.modulation is None:
        first, second = layer.norm1, layer.norm2
        x = x + plain_attention(plain_norm(x, first.weight, first.bias), layer.attn, places, sees)
        inner = plain_norm(x, second.weight, second.bias)
        return (
            x + gelu(inner @ layer.mlp.fc1.weight.T + layer.mlp.fc1.bias) @ layer.mlp.fc2.weight.T + layer.mlp.fc2.bias
        )
    silu = vectors / (1 + torch.exp(-vectors))
    parts = (silu @ layer.modulation.weight.T + layer.modulation.bias).split(W, dim=1)
    x = x + parts[2] * plain_attention(plain_norm(x) * (1 + parts[1]) + parts[0], layer.attn, places, sees)
    inner = plain_norm(x) * (1 + parts[4]) + parts[3]
    inner = gelu(inner @ layer.mlp.fc1.weight.T + layer.mlp.fc1.bias) @ layer.mlp.fc2.weight.T + layer.mlp.fc2.bias
    return x + parts[5] * inner


def plain(p, states, actions, pooled):
    """One trajectory: states (h, S, D) and actions (h, A) to what follows each state, (h, S, D)."""
    x, places, frame, vectors = [], [], [], []
    for t, (state, action) in enumerate(zip(states, actions, strict=True)):
        if p.action == "token":
            x.append(p.embed_action[0].weight @ action + p.embed_action[0].bias)
            places.append(torch.tensor([float(t)] + ([] if pooled else [0.0, 0.0])))
            frame.append(t)
        else:
            first, _, second = p.embed_action
            inner = first.weight @ action + first.bias
            vector = second.weight @ (inner / (1 + torch.exp(-inner))) + second.bias
        for s, token in enumerate(state):
            x.append(p.embed.weight @ token + p.embed.bias)
            places.append(torch.tensor([float(t)] + ([] if pooled else PLACES[s].tolist())))
            frame.append(t)
            vectors += [] if p.action == "token" else [vector]
    x, places = torch.stack(x), torch.stack(places)
    sees = [[j for j in range(len(x)) if frame[j] <= frame[i]] for i in range(len(x))]
    vectors = torch.stack(vectors) if vectors else None
    for layer in p.layers:
        x = plain_layer(x, layer, places, sees, vectors)
    x = plain_norm(x, p.norm.weight, p.norm.bias).unflatten(0, (len(states), -1))[:, -states.shape[1] :]
    for part in p.project:
        if isinstance(part, torch.nn.BatchNorm1d):
            x = (x - part.running_mean) / (part.running_var + part.eps).sqrt() * part.weight + part.bias
        else:
            x = gelu(x) if isinstance(part, torch.nn.GELU) else x @ part.weight.T + part.bias
    return x


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_all_next_states_by_the_formula(kind, pooled):
    predictor, seen, actions = make(kind, pooled=pooled), past(pooled=pooled), drawn(B, H, A, seed=3)
    found = every(predictor, seen, actions)
    assert found.shape == (B, H, 1 if pooled else 4, D)
    for b in range(B):
        torch.testing.assert_close(found[b], plain(predictor, seen.states[b], actions[b], pooled))


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_one_call_is_as_many_single_steps(kind, pooled):
    predictor, seen, actions = make(kind, pooled=pooled), past(pooled=pooled), drawn(B, H, A, seed=3)
    found = every(predictor, seen, actions)
    for t in range(H):
        until = Past(states=seen.states[:, : t + 1], positions=seen.positions, actions=actions[:, :t] if t else None)
        torch.testing.assert_close(found[:, t], predict_next(predictor, until, actions[:, t]))


@pytest.mark.parametrize("kind", KINDS)
def test_no_later_state_or_action_reaches_an_earlier_prediction(kind):
    predictor, seen = make(kind), past()
    states, actions = seen.states.requires_grad_(), drawn(B, H, A, seed=3).requires_grad_()
    found = every(predictor, seen, actions)
    for t in range(H):
        of_states, of_actions = torch.autograd.grad(found[:, t].sum(), (states, actions), retain_graph=True)
        assert (of_states[:, t + 1 :] == 0).all()
        assert (of_actions[:, t + 1 :] == 0).all()
        assert (of_states[:, : t + 1].abs().amax((0, 2, 3)) > 1e-9).all()  # all earlier ones do
        assert (of_actions[:, : t + 1].abs().amax((0, 2)) > 1e-9).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_rollout_is_told_all_actions_and_forgets_the_oldest_state(kind):
    predictor, seen, actions = make(kind), past(), drawn(B, 3, A, seed=3)
    found = rollout(predictor, seen, actions)
    states, told = list(seen.states.unbind(1)), list(seen.actions.unbind(1))
    for t in range(3):
        told.append(actions[:, t])
        window = Past(states=torch.stack(states[-H:], 1), positions=PLACES)
        states.append(every(predictor, window, torch.stack(told[-H:], 1))[:, -1])
        torch.testing.assert_close(found[:, t], states[-1])


def test_states_whose_actions_are_not_known_are_left_out():
    predictor, actions = make("token"), drawn(B, 3, A, seed=3)
    seen = past(actions=False)
    alone = Past(states=seen.states[:, -1:], positions=PLACES)
    torch.testing.assert_close(
        predict_next(predictor, seen, actions[:, 0]), predict_next(predictor, alone, actions[:, 0])
    )
    first = predict_next(predictor, alone, actions[:, 0])
    grown = Past(states=torch.stack([alone.states[:, 0], first], 1), positions=PLACES, actions=actions[:, :1])
    second = predict_next(predictor, grown, actions[:, 1])
    torch.testing.assert_close(rollout(predictor, seen, actions)[:, 1], second)


@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_before_an_episode_counts_for_nothing(kind):
    predictor, actions = make(kind), drawn(B, H, A, seed=3)
    valid = torch.tensor([[False, False, True, True], [True, True, True, True]])
    clean = past(valid=valid)
    states, told = clean.states.clone(), clean.actions.clone()
    states[~valid], told[0, :2] = torch.nan, 100.0
    dirty = Past(states=states, valid=valid, positions=PLACES, actions=told)
    found = predict_next(predictor, dirty, actions[:, 0])
    assert found.isfinite().all()
    torch.testing.assert_close(found, predict_next(predictor, clean, actions[:, 0]))
    begun = Past(states=clean.states[:1, 2:], positions=PLACES, actions=clean.actions[:1, 2:])
    torch.testing.assert_close(found[:1], predict_next(predictor, begun, actions[:1, 0]))


def test_gradients_to_the_actions_against_finite_differences():
    predictor, seen = make("token"), past(pooled=False)
    told = drawn(B, 2, A, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: rollout(predictor, seen, a)[:, -1, 0].sum(), told, atol=1e-4, rtol=1e-3)


def test_modulated_layers_start_as_the_identity():
    torch.manual_seed(0)
    spec = PredictorSpec(dim=D, out=D, token=frame_spec(TOKEN, pooled=True), condition=A)
    predictor = FrameCausalPredictor(spec, width=W, depth=3, heads=2, action="modulation").double()
    seen = past(pooled=True)
    expected = predictor.project(predictor.norm(predictor.embed(seen.states)))
    torch.testing.assert_close(every(predictor, seen, drawn(B, H, A)), expected)


def test_axes_with_one_place_take_no_channels():
    """A frame of a video encoder lies at (tubelet 0, row, column): three axes with time, as of an image."""
    image = PredictorSpec(dim=D, out=D, token=frame_spec(TOKEN, pooled=False), condition=A, frame=(2, 2))
    flat = partial(FrameCausalPredictor, width=W, depth=2, heads=2)
    torch.manual_seed(0)
    one = disturbed(flat(image))
    two = disturbed(flat(replace(image, frame=(1, 2, 2))))
    two.load_state_dict(one.state_dict())
    seen, actions = past(), drawn(B, H, A, seed=3)
    deeper = replace(seen, positions=torch.cat([torch.zeros(4, 1), PLACES], dim=1))
    torch.testing.assert_close(every(one, seen, actions), every(two, deeper, actions))


def test_dropout_is_of_training_alone():
    predictor, seen, actions = make("modulation"), past(), drawn(B, H, A, seed=3)
    assert torch.equal(every(predictor, seen, actions), every(predictor, seen, actions))
    predictor.train()
    assert not torch.equal(every(predictor, seen, actions), every(predictor, seen, actions))


def test_a_projector_learns_from_the_rows_that_are_predicted():
    predictor, seen, actions = make("projector").train(), past(), drawn(B, H, A, seed=3)
    rows = []
    predictor.project[0].register_forward_hook(lambda module, given, out: rows.append(out))
    predictor(seen.context(), seen.query(2), Latents(values=actions))
    assert rows[0].shape == (B * 2 * 4, 20)


def test_the_past_keeps_as_many_actions_as_lie_between_its_states():
    seen = Past(states=drawn(B, 3, 1, D))
    assert seen.known().states.shape[1] == 1
    for count in (1, 2, 2, 2):
        seen = seen.push(drawn(B, 1, D), drawn(B, A))
        assert seen.actions.shape == (B, count, A)
        assert seen.known().states.shape[1] == count + 1
    assert seen.repeat(3).actions.shape == (3 * B, 2, A)
    assert seen.push(drawn(B, 1, D)).actions is None
    assert Past(states=drawn(B, 1, 1, D)).push(drawn(B, 1, D), drawn(B, A)).actions is None


def test_what_it_needs():
    spec = PredictorSpec(dim=D, out=D, token=TOKEN, condition=A)
    with pytest.raises(ValueError, match=r"predicts what an action does.*TeacherForcing, Rollout"):
        FrameCausalPredictor(PredictorSpec(dim=D, out=D, token=TOKEN))
    for wrong, said in (
        ({"action": "word"}, "action must be token or modulation, got 'word'"),
        ({"dropout": 1.0}, "dropout is a share"),
        ({"head_dim": 1}, "at least 1 head of at least 2 channels"),
        ({"projector": 0}, "a projector of at least 1 channel"),
        ({"width": 10, "heads": 4}, "width 10 is not a multiple of heads 4"),
    ):
        with pytest.raises(ValueError, match=said):
            FrameCausalPredictor(spec, **wrong)
    predictor, seen = make("token"), past()
    with pytest.raises(ValueError, match=r"16 tokens, 4 block\(s\) of 4 and 1 action\(s\)"):
        every(predictor, seen, drawn(B, 1, A))
    with pytest.raises(ValueError, match=r"16 tokens, 1 block\(s\) of 3"):
        predictor(seen.context(), Query(positions=torch.zeros(B, 1, 3, 3)), Latents(values=drawn(B, H, A)))
    with pytest.raises(ValueError, match="needs the context's positions"):
        predictor(Latents(values=drawn(B, 4, D)), seen.query(), Latents(values=drawn(B, 1, A)))
