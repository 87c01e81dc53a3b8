"""SIGReg against numerical integration in float64, its expected value, collapse, seeds."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from jepa_lightning.pretexts import Outcome
from jepa_lightning.regularizers import RegularizerSpec, SIGReg, SubspaceSIGReg
from jepa_lightning.tokens import Latents


def outcome(*features):
    return Outcome(context=[Latents(values=f.unsqueeze(1)) for f in features])


def sigreg(dim, **settings):
    return SIGReg(RegularizerSpec(dim, dim), **settings)


def draw(count, dim, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def integrated(features, directions, limit):
    """The Epps-Pulley statistic by adaptive quadrature in float64, a direction at a time."""
    values = []
    for direction in directions.T.double().numpy():
        x = features.double().numpy() @ direction

        def integrand(t, x=x):
            characteristic = np.exp(1j * t * x).mean()
            return abs(characteristic - math.exp(-t * t / 2)) ** 2 * math.exp(-t * t / 2)

        values.append(len(x) * quad(integrand, -limit, limit, limit=200)[0])
    return sum(values) / len(values)


def test_value_is_that_of_numerical_integration():
    features = draw(40, 5) * torch.tensor([0.3, 1.0, 2.0, 0.0, 1.5]) + 0.2
    part = sigreg(5, directions=7, points=201, limit=6.0)
    part.seed = 3
    expected = integrated(features, part.draw(features), 6.0)
    assert float(part(outcome(features))) == pytest.approx(expected, rel=1e-4)
    coarse = sigreg(5, directions=7, points=17, limit=5.0)  # the paper's
    coarse.seed = 3
    assert float(coarse(outcome(features))) == pytest.approx(expected, rel=0.02)


def test_gradient_is_that_of_finite_differences():
    features = draw(6, 3).requires_grad_()
    part = sigreg(3, directions=5)
    part(outcome(features)).backward()
    for i, j in ((0, 0), (3, 2), (5, 1)):
        shifted = []
        for step in (1e-2, -1e-2):
            moved = features.detach().clone()
            moved[i, j] += step
            shifted.append(float(part(outcome(moved))))
        assert float(features.grad[i, j]) == pytest.approx((shifted[0] - shifted[1]) / 2e-2, rel=2e-2, abs=2e-3)


def test_expected_value_of_a_gaussian_and_what_is_far_from_it():
    """sqrt(2 pi) - sqrt(2 pi / 3) = 1.059 on average, whatever the batch; collapse and anisotropy are far above."""
    expected = math.sqrt(2 * math.pi) - math.sqrt(2 * math.pi / 3)
    for count in (64, 512):
        found = [float(sigreg(8)(outcome(draw(count, 8, seed)))) for seed in range(12)]
        assert sum(found) / len(found) == pytest.approx(expected, abs=0.12)
    gaussian = draw(256, 8)
    collapsed, flat = 0.01 * gaussian, gaussian * torch.tensor([3.0, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    for bad in (collapsed, flat, torch.ones(256, 8), gaussian + 2):
        assert float(sigreg(8)(outcome(bad))) > 5 * expected


def test_directions_follow_the_seed():
    part, features = sigreg(6, directions=9), draw(4, 6)
    first = part.draw(features)
    assert torch.equal(first, part.draw(features))
    assert torch.allclose(first.norm(dim=0), torch.ones(9))
    part.seed = 1
    assert not torch.equal(first, part.draw(features))


def test_several_views_are_averaged_and_tokens_pooled():
    a, b = draw(16, 4), draw(16, 4, 1)
    part = sigreg(4)
    assert float(part(outcome(a, b))) == pytest.approx((float(part(outcome(a))) + float(part(outcome(b)))) / 2)
    tokens = Outcome(context=[Latents(values=torch.stack([a, b], 1))])
    assert torch.equal(part(tokens), part(outcome((a + b) / 2)))
    assert float(sigreg(4, per_sample=True)(outcome(a))) == pytest.approx(float(part(outcome(a))) / 16)


def test_each_token_is_a_sample_and_padding_is_none():
    values = torch.stack([draw(6, 4, seed) for seed in range(5)])  # (B, N, D)
    valid = torch.rand(5, 6, generator=torch.Generator().manual_seed(1)) < 0.7
    part = sigreg(4, tokens=True, directions=7, points=201, limit=6.0)
    whole, some = (Outcome(context=[Latents(values=values, valid=v)]) for v in (None, valid))
    for found, samples in ((whole, values.flatten(0, 1)), (some, values[valid])):
        assert float(part(found)) == pytest.approx(integrated(samples, part.draw(samples), 6.0), rel=1e-4)
    assert float(part(Outcome(context=[Latents(values=values)] * 2))) == pytest.approx(float(part(whole)))
    loud = values.masked_fill(~valid.unsqueeze(-1), 1e3).requires_grad_()  # what padding holds counts for nothing
    found = part(Outcome(context=[Latents(values=loud, valid=valid)]))
    assert float(found.detach()) == pytest.approx(float(part(some)), rel=1e-5)
    found.backward()
    assert (loud.grad.abs().sum(-1) > 0).equal(valid)
    layers = Outcome(context=[Latents(values=values.unflatten(-1, (2, 2)), valid=valid)])
    assert float(part(layers)) == pytest.approx(float(part(some)), rel=1e-5)


def test_tokens_that_tell_nothing_but_their_image_are_far_from_a_gaussian():
    """As the mean of a sample's tokens they may be one; each by itself, three of them are not."""
    same = draw(512, 8).unsqueeze(1).expand(-1, 3, -1)
    apart = draw(512 * 3, 8, 1).unflatten(0, (512, 3))
    found = {
        tokens: [float(sigreg(8, tokens=tokens)(Outcome(context=[Latents(values=v)]))) for v in (same, apart)]
        for tokens in (False, True)
    }
    assert found[False][0] < 2
    assert found[False][1] > 10  # a mean of three has a third of the variance
    assert found[True][1] < 2 < found[True][0]


def test_through_the_module_it_draws_anew_at_each_step_and_the_same_after_a_resume(make_jepa):
    jepa = make_jepa(regularizers=[partial(SIGReg, directions=4)])
    found = jepa.step({"image": torch.rand(4, 3, 32, 32)}, torch.Generator().manual_seed(0))
    values = [jepa.losses(found, step)["sigreg"].item() for step in (0, 1, 0)]
    assert values[0] == values[2] != values[1]


def test_times_or_tokens():
    with pytest.raises(ValueError, match="expected by_time or tokens, got both"):
        sigreg(4, by_time=True, tokens=True)


@pytest.mark.parametrize("wrong", [{"directions": 0}, {"points": 1}, {"limit": 0.0}, {"limit": math.inf}])
def test_wrong_settings(wrong):
    with pytest.raises(ValueError, match="SIGReg needs at least"):
        sigreg(4, **wrong)


@pytest.mark.parametrize("kind", [SIGReg, SubspaceSIGReg])
def test_where_half_precision_is_the_default_it_is_computed_in_float32(kind):
    """As Lightning's bf16-true runs a training step."""
    features = draw(64, 16).bfloat16()
    part = kind(RegularizerSpec(16, 16), directions=64)
    expected = part(outcome(features))
    torch.set_default_dtype(torch.bfloat16)
    try:
        found = part(outcome(features))
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_states_at_each_time_by_themselves():
    """LeWorldModel's: over the trajectories of a batch at each time, and the mean over times."""
    states = draw(4 * 3, 5) * 2 + 0.3  # 4 trajectories of 3 states
    given = Outcome(context=[Latents(values=states.unsqueeze(1))], actions=torch.zeros(4, 2, 1))
    part, whole = sigreg(5, directions=7, by_time=True), sigreg(5, directions=7)
    expected = [float(whole(outcome(states.view(4, 3, 5)[:, t]))) for t in range(3)]
    assert float(part(given)) == pytest.approx(sum(expected) / 3, rel=1e-5)
    assert float(part(given)) != pytest.approx(float(whole(given)), rel=0.05)
    with pytest.raises(ValueError, match="expected an outcome of trajectories, with actions"):
        part(outcome(states))
