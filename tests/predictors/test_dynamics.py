"""Predictors of the next state: by hand, rolled out, with a history that is not full."""

from functools import partial

import pytest
import torch

from jepa_lightning.encoders import SinCosPositions, TokenSpec
from jepa_lightning.predictors import (
    AdaLNPredictor,
    GRUPredictor,
    MLPPredictor,
    Past,
    PredictorSpec,
    ResidualPredictor,
    TransformerPredictor,
    rollout,
)
from jepa_lightning.predictors.rollout import frame_spec, predict_next
from jepa_lightning.tokens import Latents, Query

D, A = 12, 3
TOKEN = TokenSpec(shape=(1, 8, 8), grid=(2, 2), positions=SinCosPositions)
PLACES = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
KINDS = {
    "residual": partial(ResidualPredictor, width=16),
    "gated": partial(ResidualPredictor, width=16, sines=5, gate=True),
    "gru": partial(GRUPredictor, width=5),
    "mlp": partial(MLPPredictor, width=16),
    "adaln": partial(AdaLNPredictor, width=16, depth=2, heads=2),
    "transformer": partial(TransformerPredictor, width=16, depth=2, heads=2),
}


def make(kind, *, history=1, pooled=True):
    torch.manual_seed(0)
    spec = PredictorSpec(dim=D, out=D, token=frame_spec(TOKEN, pooled=pooled), condition=A, history=history)
    predictor = KINDS[kind](spec)
    with torch.no_grad():
        for parameter in predictor.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
    return predictor.double().eval()


def past(history=1, tokens=1, valid=None, samples=3):
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(samples, history, tokens, D, generator=generator, dtype=torch.float64)
    return Past(states=states, valid=valid, positions=PLACES if tokens > 1 else None)


def actions(steps=4, samples=3):
    return torch.randn(samples, steps, A, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize(("history", "pooled"), [(1, True), (3, True), (1, False), (3, False)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_rollout_is_so_many_single_steps(kind, history, pooled):
    if kind == "gru" and history > 1:
        pytest.skip("a GRU knows the last state alone")
    predictor, seen, told = make(kind, history=history, pooled=pooled), past(history, 1 if pooled else 4), actions()
    found = rollout(predictor, seen, told)
    assert found.shape == (3, 4, 1 if pooled else 4, D)
    states = list(seen.states.unbind(1))
    for t in range(4):
        window = Past(states=torch.stack(states[-history:], 1), positions=seen.positions)
        states.append(predict_next(predictor, window, told[:, t]))
        torch.testing.assert_close(found[:, t], states[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_each_action_changes_what_follows_it_alone(kind):
    predictor, seen, told = make(kind), past(), actions()
    other = told.clone()
    other[1, 2] += 1
    change = (rollout(predictor, seen, other) - rollout(predictor, seen, told)).abs().amax((2, 3))
    assert (change[[0, 2]] == 0).all()
    assert (change[1, :2] == 0).all()
    assert (change[1, 2:] > 1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_to_the_actions_against_finite_differences(kind):
    predictor, seen, told = make(kind), past(samples=1), actions(3, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: rollout(predictor, seen, a)[:, -1].sum(), told, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", ["residual", "transformer", "adaln", "mlp"])
def test_what_lies_before_an_episode_counts_for_nothing(kind):
    predictor, told = make(kind, history=3), actions()
    valid = torch.tensor([[False, False, True], [False, True, True], [True, True, True]])
    clean = past(3, valid=valid)
    states = clean.states.clone()
    states[~valid] = 100.0
    dirty = Past(states=states, valid=valid)
    torch.testing.assert_close(rollout(predictor, dirty, told), rollout(predictor, clean, told))
    last = clean.push(torch.zeros(3, 1, D).double())
    assert last.valid.tolist() == [[False, True, True], [True, True, True], [True, True, True]]


def test_the_residual_mlp_by_hand():
    predictor, seen = make("residual", history=2, pooled=False), past(2, 4)
    action = actions()[:, 0]
    found = predict_next(predictor, seen, action)
    for b in range(3):
        for s in range(4):
            x = torch.cat([seen.states[b, 0, s], seen.states[b, 1, s], action[b]])
            for linear, _ in predictor.layers:
                x = linear.weight @ x + linear.bias
                x = x * (1 + torch.erf(x / 2**0.5)) / 2
            expected = seen.states[b, 1, s] + predictor.project.weight @ x + predictor.project.bias
            torch.testing.assert_close(found[b, s], expected)


def test_sines_and_gate_by_hand():
    predictor, seen = make("gated", history=2, pooled=False), past(2, 4)
    action = actions()[:, 0]
    found = predict_next(predictor, seen, action)
    for b in range(3):
        for s in range(4):
            states = torch.cat([seen.states[b, 0, s], seen.states[b, 1, s]])
            angles = predictor.waves.weight @ states + predictor.waves.bias
            x = torch.cat([states, action[b], angles.sin(), angles.cos()])
            for linear, _ in predictor.layers:
                x = linear.weight @ x + linear.bias
                x = x * (1 + torch.erf(x / 2**0.5)) / 2
            x = predictor.project.weight @ x + predictor.project.bias
            expected = seen.states[b, 1, s] + x[:D] / (1 + torch.exp(-x[D:]))
            torch.testing.assert_close(found[b, s], expected)


def test_angles_are_spread_as_asked():
    torch.manual_seed(0)
    spec = PredictorSpec(dim=64, out=64, token=TOKEN, condition=A, history=2)
    waves = ResidualPredictor(spec, sines=500, frequency=4.0).waves
    angles = torch.randn(2000, 128) @ waves.weight.T
    assert abs(float(angles.std()) - 4.0) < 0.2


def test_the_gru_is_torchs():
    predictor, seen = make("gru"), past()
    action = actions()[:, 0]
    hidden = predictor.cell(predictor.embed(action), seen.states[:, 0, 0])
    torch.testing.assert_close(predict_next(predictor, seen, action)[:, 0], hidden)


def test_candidates_repeat_each_sample():
    seen = past(2, valid=torch.tensor([[False, True]] * 2 + [[True, True]])).repeat(2)
    assert torch.equal(seen.states[0], seen.states[1])
    assert seen.valid.tolist() == [[False, True]] * 4 + [[True, True]] * 2


def test_what_a_predictor_of_states_needs():
    spec = PredictorSpec(dim=D, out=D, token=TOKEN)
    with pytest.raises(ValueError, match=r"ResidualPredictor predicts what an action does.*use the pretext Rollout"):
        ResidualPredictor(spec)
    with pytest.raises(ValueError, match=f"states of width {D} and predictions of 7"):
        GRUPredictor(PredictorSpec(dim=D, out=7, token=TOKEN, condition=A))
    with pytest.raises(ValueError, match="GRUPredictor knows the last state alone, got history 2"):
        GRUPredictor(PredictorSpec(dim=D, out=D, token=TOKEN, condition=A, history=2))
    with pytest.raises(ValueError, match="width and depth must be at least 1"):
        ResidualPredictor(PredictorSpec(dim=D, out=D, token=TOKEN, condition=A), depth=0)
    for wrong in ({"sines": -1}, {"sines": 4, "frequency": 0.0}):
        with pytest.raises(ValueError, match="sines of at least 0 and a positive frequency"):
            ResidualPredictor(PredictorSpec(dim=D, out=D, token=TOKEN, condition=A), **wrong)
    asked = Query(positions=torch.zeros(3, 2, 1, 3))
    with pytest.raises(ValueError, match=r"got a context of 5 tokens and 2 block\(s\) of 1"):
        make("residual")(Latents(values=torch.zeros(3, 5, D)), asked, Latents(values=torch.zeros(3, 1, A)))
