"""Losses and regularisers against plain float64 loops."""

import math

import pytest
import torch
import torch.nn.functional as F

from jepa_lightning.objectives import L1, MSE, Cosine, Hyperbola, SmoothL1, VICReg, pool

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


LOSSES = [
    (SmoothL1(), lambda p, t: plain_smooth_l1(p, t, 1.0)),
    (SmoothL1(beta=2.0), lambda p, t: plain_smooth_l1(p, t, 2.0)),
    (L1(), lambda p, t: sum(abs(a - b) for a, b in zip(p, t, strict=True)) / len(p)),
    (MSE(), lambda p, t: sum((a - b) ** 2 for a, b in zip(p, t, strict=True)) / len(p)),
    (Cosine(), plain_cosine),
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


def test_pool_is_the_mean_over_real_tokens():
    features = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    valid = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 1]]).bool()
    expected = torch.stack([(features[0, 0] + features[0, 1]) / 2, (features[1, 1] + features[1, 3]) / 2])
    torch.testing.assert_close(pool(features, valid), expected)
    torch.testing.assert_close(pool(features), features.sum(1) / 4)
    features[~valid] = float("nan")
    torch.testing.assert_close(pool(features, valid), expected)
    assert torch.equal(pool(features, torch.zeros_like(valid)), torch.zeros(2, 3))


def plain_vicreg(z, variance, covariance, eps=1e-4):
    """VICReg's equations 1 to 4 on rows z[i][j], gamma = 1."""
    n, d = len(z), len(z[0])
    means = [sum(row[j] for row in z) / n for j in range(d)]

    def cov(a, b):
        return sum((row[a] - means[a]) * (row[b] - means[b]) for row in z) / (n - 1)

    v = sum(max(0.0, 1 - math.sqrt(cov(j, j) + eps)) for j in range(d)) / d
    c = sum(cov(i, j) ** 2 for i in range(d) for j in range(d) if i != j) / d
    return variance * v + covariance * c


def test_vicreg_is_the_papers_variance_and_covariance():
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(9, 4, 6, generator=generator) @ torch.randn(6, 6, generator=generator)
    valid = torch.rand(9, 4, generator=generator) > 0.3
    valid[:, 0] = True
    rows = []
    for b in range(9):
        real = [context[b, k].double() for k in range(4) if valid[b, k]]
        rows.append((sum(real) / len(real)).tolist())
    for weights in ((1.0, 0.0), (0.0, 1.0), (25.0, 3.0)):
        found = VICReg(variance=weights[0], covariance=weights[1])(context, valid)
        assert float(found) == pytest.approx(plain_vicreg(rows, *weights), rel=1e-5)


@pytest.mark.parametrize("autocast", [False, True])
def test_vicreg_is_computed_in_float32(autocast):
    context = torch.randn(16, 4, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = VICReg(variance=0.0, covariance=1.0)(context)
    assert found.dtype == torch.float32
    assert torch.equal(found, VICReg(variance=0.0, covariance=1.0)(context.float()))


def test_a_collapsed_context_is_penalised_and_pushed_apart():
    generator = torch.Generator().manual_seed(0)
    healthy = torch.randn(64, 1, 8, generator=generator) * 1.5
    collapsed = torch.ones(64, 4, 8) + 1e-3 * torch.randn(64, 1, 8, generator=generator)
    tells_positions_apart = torch.randn(1, 4, 8, generator=generator).expand(64, 4, 8)
    one_dimension = torch.randn(64, 1, 1, generator=generator).expand(64, 1, 8) * 1.5
    vicreg = VICReg()
    assert float(vicreg(healthy)) < 0.1
    assert float(vicreg(collapsed)) > 0.9
    assert float(vicreg(tells_positions_apart)) > 0.9
    assert float(vicreg(one_dimension)) > 10 * float(vicreg(healthy))
    collapsed.requires_grad_()
    vicreg(collapsed).backward()
    moved = collapsed.detach() - 1e-2 * collapsed.grad
    assert moved.mean(1).std(0).mean() > collapsed.detach().mean(1).std(0).mean()


def test_vicreg_of_one_sample_says_what_to_do():
    with pytest.raises(ValueError, match=r"at least two samples.*batch_size"):
        VICReg()(torch.zeros(1, 4, 8))


def test_vicreg_target_std_rescales_the_features():
    context = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(3))
    one, fifth = VICReg(variance=2.0, covariance=0.3), VICReg(variance=2.0, covariance=0.3, target_std=0.2)
    torch.testing.assert_close(fifth(context), one(context * 5))
    with pytest.raises(ValueError, match="target_std must be positive, got 0"):
        VICReg(target_std=0)


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


def test_settings_that_are_nan_are_refused():
    with pytest.raises(ValueError, match="beta must be positive"):
        SmoothL1(beta=float("nan"))
    with pytest.raises(ValueError, match="target_std must be positive"):
        VICReg(target_std=float("nan"))
