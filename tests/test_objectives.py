"""Losses against plain float64 loops."""

import math

import pytest
import torch
import torch.nn.functional as F

from jepa_lightning.objectives import L1, MSE, Cosine, CrossEntropy, Hyperbola, SmoothL1
from jepa_lightning.schedules import LinearRamp
from jepa_lightning.tokens import pool

B, M, T, D = 2, 3, 4, 5


def pair(scale=2.0):
    generator = torch.Generator().manual_seed(0)
    return tuple(scale * torch.randn(B, M, T, D, generator=generator) for _ in range(2))


def plain_smooth_l1(p, t, beta):
    total = 0.0
    for a, b in zip(p, t, strict=True):
        d = abs(a - b)
        total += d * d / (2 * beta) if d < beta else d - beta / 2
    return total / len(p)


def plain_cosine(p, t):
    dot = sum(a * b for a, b in zip(p, t, strict=True))
    return 1 - dot / math.sqrt(sum(a * a for a in p)) / math.sqrt(sum(b * b for b in t))


def plain_cross_entropy(p, t):
    powers, shares = [math.exp(x / 0.5) for x in p], [math.exp(x / 0.2) for x in t]
    return -sum(s / sum(shares) * math.log(x / sum(powers)) for s, x in zip(shares, powers, strict=True))


LOSSES = [
    (SmoothL1(), lambda p, t: plain_smooth_l1(p, t, 1.0)),
    (SmoothL1(beta=2.0), lambda p, t: plain_smooth_l1(p, t, 2.0)),
    (L1(), lambda p, t: sum(abs(a - b) for a, b in zip(p, t, strict=True)) / len(p)),
    (MSE(), lambda p, t: sum((a - b) ** 2 for a, b in zip(p, t, strict=True)) / len(p)),
    (Cosine(), plain_cosine),
    (CrossEntropy(temperature=0.5, target_temperature=0.2), plain_cross_entropy),
]
every_loss = pytest.mark.parametrize(("loss", "plain"), LOSSES, ids=lambda x: getattr(x, "__class__", x).__name__)


@every_loss
def test_losses_are_the_mean_over_tokens(loss, plain):
    predicted, target = pair()
    tokens = zip(predicted.double().view(-1, D).tolist(), target.double().view(-1, D).tolist(), strict=True)
    assert float(loss(predicted, target)) == pytest.approx(sum(plain(p, t) for p, t in tokens) / (B * M * T), rel=1e-5)


@every_loss
def test_masked_tokens_count_nothing(loss, plain):
    predicted, target = pair()
    valid = torch.rand(B, M, T, generator=torch.Generator().manual_seed(1)) > 0.4
    real = [
        plain(predicted[b, m, t].double().tolist(), target[b, m, t].double().tolist())
        for b in range(B)
        for m in range(M)
        for t in range(T)
        if valid[b, m, t]
    ]
    assert float(loss(predicted, target, valid)) == pytest.approx(sum(real) / len(real), rel=1e-5)


@every_loss
@pytest.mark.parametrize("garbage", [1e30, float("inf"), float("nan")])
def test_garbage_in_masked_tokens_changes_nothing(loss, plain, garbage):
    predicted, target = pair()
    valid = torch.ones(B, M, T, dtype=torch.bool)
    valid[0, 1, 2] = valid[1, 2, 3] = False
    clean = loss(predicted, target, valid)
    target[~valid] = garbage
    assert torch.equal(loss(predicted, target, valid), clean)


@every_loss
def test_masked_tokens_get_no_gradient(loss, plain):
    predicted, target = pair()
    predicted.requires_grad_()
    valid = torch.ones(B, M, T, dtype=torch.bool)
    valid[0, 1] = False
    loss(predicted, target, valid).backward()
    assert (predicted.grad[~valid] == 0).all()
    assert (predicted.grad[valid].abs().sum(-1) > 0).all()


@every_loss
def test_no_real_token_at_all_is_a_loss_of_zero(loss, plain):
    assert float(loss(*pair(), torch.zeros(B, M, T, dtype=torch.bool))) == 0


@every_loss
@pytest.mark.parametrize("autocast", [False, True])
def test_bf16_input_is_computed_in_float32(loss, plain, autocast):
    predicted, target = (x.bfloat16() for x in pair())
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = loss(predicted, target)
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(predicted.float(), target.float()))


@pytest.mark.parametrize("beta", [0.0, -1.0])
def test_beta_must_be_positive(beta):
    with pytest.raises(ValueError, match="beta must be positive"):
        SmoothL1(beta=beta)


def test_temperatures_follow_a_schedule_and_are_above_0():
    predicted, target = pair()
    warming = CrossEntropy(temperature=0.5, target_temperature=LinearRamp(0.1, 0.3))
    warming.set_step(50, 100)
    assert torch.equal(
        warming(predicted, target), CrossEntropy(temperature=0.5, target_temperature=0.2)(predicted, target)
    )
    for settings in ({"temperature": 0.0}, {"target_temperature": -0.1}, {"target_temperature": LinearRamp(0.0, 1.0)}):
        with pytest.raises(ValueError, match=f"^{next(iter(settings))} must be above 0, got -?0"):
            CrossEntropy(**settings)
    with pytest.raises(ValueError, match="target_temperature must be above 0, got 0"):
        CrossEntropy(target_temperature=LinearRamp(0.1, 0.0)).set_step(100, 100)


def test_pool_is_the_mean_over_real_tokens():
    features = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    valid = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 1]]).bool()
    expected = torch.stack([(features[0, 0] + features[0, 1]) / 2, (features[1, 1] + features[1, 3]) / 2])
    torch.testing.assert_close(pool(features, valid), expected)
    torch.testing.assert_close(pool(features), features.sum(1) / 4)
    features[~valid] = float("nan")
    torch.testing.assert_close(pool(features, valid), expected)
    assert torch.equal(pool(features, torch.zeros_like(valid)), torch.zeros(2, 3))


# Weights of tokens, and draws of z -----------------------------------------------------------------------------------

DISTANCES = {  # of one token: two (D,) to a scalar, in float64
    "SmoothL1": lambda p, t: sum(d * d / 4 if abs(d) < 2 else abs(d) - 1 for d in p - t) / D,
    "L1": lambda p, t: sum(abs(d) for d in p - t) / D,
    "MSE": lambda p, t: sum(d * d for d in p - t) / D,
    "Cosine": lambda p, t: 1 - sum(p * t) / sum(p * p).sqrt() / sum(t * t).sqrt(),
}
OBJECTIVES = {"SmoothL1": SmoothL1(beta=2.0), "L1": L1(), "MSE": MSE(), "Cosine": Cosine()}
every_objective = pytest.mark.parametrize("name", OBJECTIVES)


def plain_weighted(distance, predicted, target, valid, weight, over):
    """Token by token: predicted (S, B, M, T, D) and the rest in float64; the draws of a sample at its end."""
    total, weights = 0.0, 0.0
    for b in range(B):
        draws = [0.0] * len(predicted)
        for m in range(M):
            for t in range(T):
                if valid is not None and not valid[b, m, t]:
                    continue
                w = 1.0 if weight is None else float(weight[b, m, t])
                weights += w
                for s in range(len(predicted)):
                    draws[s] = draws[s] + w * distance(predicted[s, b, m, t], target[b, m, t])
        share = {"mean": 1.0, "min": 0.0}.get(over, over)
        total = total + share * sum(draws) / len(draws) + (1 - share) * min(draws)
    return total / weights


def draws_of(count=3):
    """Predictions (S, B, M, T, D), targets, validity and weights, of which some are zero."""
    generator = torch.Generator().manual_seed(7)
    predicted = 2 * torch.randn(count, B, M, T, D, generator=generator)
    target = 2 * torch.randn(B, M, T, D, generator=generator)
    valid = torch.rand(B, M, T, generator=generator) > 0.3
    weight = 3 * torch.rand(B, M, T, generator=generator)
    weight[0, 1], weight[1, 2, 3] = 0.0, 0.0
    return predicted, target, valid, weight


@every_objective
@pytest.mark.parametrize("over", ["mean", "min", 0.25])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("drawn", [False, True])
def test_weights_and_draws_are_those_of_plain_loops(name, over, padded, weighted, drawn):
    predicted, target, valid, weight = draws_of(3 if drawn else 1)
    valid, weight = valid if padded else None, weight if weighted else None
    given = (predicted if drawn else predicted[0]).clone().requires_grad_()
    exact, exact_target = predicted.double().requires_grad_(), target.double().requires_grad_()
    expected = plain_weighted(DISTANCES[name], exact, exact_target, valid, weight, over)
    expected.backward()
    target.requires_grad_()
    loss = OBJECTIVES[name](given, target, valid, weight, over)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    torch.testing.assert_close(given.grad.double(), exact.grad if drawn else exact.grad[0], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(target.grad.double(), exact_target.grad, rtol=1e-4, atol=1e-7)
    if weighted:
        assert (given.grad[..., 0, 1, :, :] == 0).all()  # weights of zero


def test_only_the_best_draw_of_each_sample_learns():
    _, target, valid, weight = draws_of()
    predicted = (target + torch.tensor([[3.0, 0.1], [2.0, 5.0], [0.2, 4.0]]).view(3, B, 1, 1, 1)).requires_grad_()
    loss = MSE()(predicted, target, valid, weight, "min")
    loss.backward()
    moved = predicted.grad.abs().sum((2, 3, 4)) > 0
    assert moved.tolist() == [[False, True], [False, False], [True, False]]
    shares = [float((weight * valid)[b].sum()) for b in range(B)]
    assert float(loss.detach()) == pytest.approx((0.04 * shares[0] + 0.01 * shares[1]) / sum(shares), rel=1e-4)


@every_objective
@pytest.mark.parametrize("over", ["mean", "min"])
def test_one_draw_is_the_plain_mean(name, over):
    predicted, target, valid, _ = draws_of(1)
    for real in (None, valid):
        expected = OBJECTIVES[name](predicted[0], target, real)
        torch.testing.assert_close(OBJECTIVES[name](predicted, target, real, over=over), expected)
        torch.testing.assert_close(OBJECTIVES[name](predicted[0], target, real, over=over), expected)


@every_objective
def test_equal_weights_change_nothing(name):
    predicted, target, valid, _ = draws_of()
    for real in (None, valid):
        expected = OBJECTIVES[name](predicted, target, real)
        torch.testing.assert_close(OBJECTIVES[name](predicted, target, real, torch.full((B, M, T), 0.25)), expected)


@every_objective
@pytest.mark.parametrize("over", ["mean", "min"])
def test_weights_of_zero_are_a_loss_of_zero(name, over):
    predicted, target, valid, weight = draws_of()
    predicted.requires_grad_()
    loss = OBJECTIVES[name](predicted, target, valid, torch.zeros_like(weight), over)
    loss.backward()
    assert float(loss.detach()) == 0
    assert (predicted.grad == 0).all()


@every_objective
@pytest.mark.parametrize("over", ["mean", "min"])
def test_garbage_in_masked_tokens_of_draws_changes_nothing(name, over):
    predicted, target, valid, weight = draws_of()
    clean = OBJECTIVES[name](predicted, target, valid, weight, over)
    target[~valid], weight[~valid] = torch.nan, torch.nan
    assert torch.equal(OBJECTIVES[name](predicted, target, valid, weight, over), clean)
    empty = torch.zeros_like(valid)
    assert float(OBJECTIVES[name](predicted, target, empty, weight, over)) == 0


def test_draws_and_weights_of_half_precision_are_computed_in_float32():
    predicted, target, valid, weight = draws_of()
    halves = [x.bfloat16() for x in (predicted, target, weight)]
    found = MSE()(halves[0], halves[1], valid, halves[2], "min")
    assert found.dtype == torch.float32
    assert torch.equal(found, MSE()(halves[0].float(), halves[1].float(), valid, halves[2].float(), "min"))


def test_what_becomes_of_draws_is_checked():
    with pytest.raises(ValueError, match="over must be mean, min or a number from 0 to 1, got 'max'"):
        MSE()(*pair(), over="max")


# The hyperbola -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_hyperbola_is_the_distance_of_two_channels_to_a_point(beta):
    generator = torch.Generator().manual_seed(0)
    predicted = 2 * torch.randn(B, M, T, 6, generator=generator)
    target = F.layer_norm(torch.randn(B, M, T, 6, generator=generator), (6,))
    total = 0.0
    for p, t in zip(predicted.view(-1, 6).tolist(), target.view(-1, 6).tolist(), strict=True):
        angle = sum(t[:3]) / 3
        total += plain_smooth_l1(p[:2], [math.cosh(angle), math.sinh(angle)], beta)
    assert float(Hyperbola(beta)(predicted, target)) == pytest.approx(total / (B * M * T), rel=1e-5)


def test_hyperbola_leaves_the_other_channels_and_masked_tokens_alone():
    generator = torch.Generator().manual_seed(0)
    predicted = torch.randn(B, M, T, 6, generator=generator, requires_grad=True)
    target = F.layer_norm(torch.randn(B, M, T, 6, generator=generator), (6,))
    valid = torch.rand(B, M, T, generator=generator) > 0.5
    target[~valid] = 1e30
    loss = Hyperbola()(predicted, target, valid)
    loss.backward()
    assert torch.isfinite(loss)
    assert (predicted.grad[..., 2:] == 0).all()
    assert (predicted.grad[~valid] == 0).all()
    assert (predicted.grad[valid][:, :2] != 0).all()


def test_the_angle_of_a_layer_normed_target_is_at_most_one():
    """The worst case, one value in the first half and another in the second, gives just that."""
    worst = torch.cat([torch.full((4,), 1e30), torch.full((4,), -1e30)]).double()
    random = 10 ** torch.empty(2000, 8, dtype=torch.float64).uniform_(-6, 6, generator=torch.Generator().manual_seed(0))
    vectors = F.layer_norm(torch.cat([worst[None], -worst[None], random]), (8,))
    angle = vectors[:, :4].mean(1)
    assert angle.abs().max() <= 1 + 1e-9
    assert angle[:2].tolist() == pytest.approx([1, -1])
    point = torch.zeros(1, 1, 1, 8)
    point[..., :2] = torch.tensor([math.cosh(1), math.sinh(1)])
    assert float(Hyperbola()(point, vectors[0].float().view(1, 1, 1, 8))) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("dim", [1, 5])
def test_hyperbola_needs_two_halves(dim):
    with pytest.raises(ValueError, match=f"an even number of channels, got {dim}"):
        Hyperbola()(torch.zeros(1, 1, 1, dim), torch.zeros(1, 1, 1, dim))


def test_a_beta_that_is_nan_is_refused():
    with pytest.raises(ValueError, match="beta must be positive"):
        SmoothL1(beta=float("nan"))
