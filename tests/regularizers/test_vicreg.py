"""VICReg's terms against plain float64 loops."""

import math

import pytest
import torch
from seeing import seen, vicreg

from jepa_lightning.pretexts import Outcome
from jepa_lightning.regularizers import RegularizerSpec, VICReg
from jepa_lightning.tokens import Latents


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
        found = vicreg(6, variance=weights[0], covariance=weights[1])(seen(context, valid))
        assert float(found) == pytest.approx(plain_vicreg(rows, *weights), rel=1e-5)


@pytest.mark.parametrize("autocast", [False, True])
def test_vicreg_is_computed_in_float32(autocast):
    context = torch.randn(16, 4, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = vicreg(32, variance=0.0, covariance=1.0)(seen(context))
    assert found.dtype == torch.float32
    assert torch.equal(found, vicreg(32, variance=0.0, covariance=1.0)(seen(context.float())))


def test_a_collapsed_context_is_penalised_and_pushed_apart():
    generator = torch.Generator().manual_seed(0)
    healthy = torch.randn(64, 1, 8, generator=generator) * 1.5
    collapsed = torch.ones(64, 4, 8) + 1e-3 * torch.randn(64, 1, 8, generator=generator)
    tells_positions_apart = torch.randn(1, 4, 8, generator=generator).expand(64, 4, 8)
    one_dimension = torch.randn(64, 1, 1, generator=generator).expand(64, 1, 8) * 1.5
    penalty = vicreg(8)
    assert float(penalty(seen(healthy))) < 0.1
    assert float(penalty(seen(collapsed))) > 0.9
    assert float(penalty(seen(tells_positions_apart))) > 0.9
    assert float(penalty(seen(one_dimension))) > 10 * float(penalty(seen(healthy)))
    collapsed.requires_grad_()
    penalty(seen(collapsed)).backward()
    moved = collapsed.detach() - 1e-2 * collapsed.grad
    assert moved.mean(1).std(0).mean() > collapsed.detach().mean(1).std(0).mean()


def test_vicreg_of_one_sample_says_what_to_do():
    with pytest.raises(ValueError, match=r"at least two samples.*batch_size"):
        vicreg(8)(seen(torch.zeros(1, 4, 8)))


def test_vicreg_target_std_rescales_the_features():
    context = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(3))
    one, fifth = vicreg(4, variance=2.0, covariance=0.3), vicreg(4, variance=2.0, covariance=0.3, target_std=0.2)
    torch.testing.assert_close(fifth(seen(context)), one(seen(context * 5)))
    with pytest.raises(ValueError, match="target_std must be positive, got 0"):
        vicreg(4, target_std=0)
    with pytest.raises(ValueError, match="target_std must be positive"):
        vicreg(4, target_std=float("nan"))


def test_gathered_in_one_process_it_is_the_same():
    context = torch.randn(9, 4, 6, generator=torch.Generator().manual_seed(0)) @ torch.randn(6, 6)
    values, gradients = [], []
    for gather in (False, True):
        given = context.clone().requires_grad_()
        value = vicreg(6, variance=2.0, covariance=0.3, target_std=0.7, gather=gather)(seen(given))
        value.backward()
        values.append(value.detach())
        gradients.append(given.grad)
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*gradients)


def test_gathered_one_sample_stays_finite():
    """A rank may have few samples, but then it must take part; in one process there is nothing to compare it with."""
    context = torch.randn(1, 4, 8, requires_grad=True)
    value = vicreg(8, gather=True)(seen(context))
    value.backward()
    assert float(value.detach()) == pytest.approx(0.99)
    assert context.grad.isfinite().all()


def test_cjepas_invariance_is_that_of_the_mean_of_tokens():
    """Pooled context against pooled target, in plain loops: one target for two contexts, with filler."""
    generator = torch.Generator().manual_seed(0)
    first, second, target = (torch.randn(4, n, 6, generator=generator) for n in (3, 2, 5))
    valid = torch.tensor([[True, True, False]] * 4)
    contexts = [Latents(values=first, valid=valid), Latents(values=second)]
    outcome = Outcome(context=contexts, target=[Latents(values=target)])
    means = [first[:, :2].double().mean(1), second.double().mean(1)]
    expected = sum(
        float((mean[b, d] - target[b, :, d].double().mean()) ** 2) for mean in means for b in range(4) for d in range(6)
    ) / (2 * 4 * 6)
    spec = RegularizerSpec(6, 6)
    part = VICReg(spec, variance=0.0, covariance=0.0, invariance=25.0)
    assert float(part(outcome)) == pytest.approx(25 * expected, rel=1e-5)
    both = VICReg(spec, invariance=25.0)(outcome) - VICReg(spec)(outcome)
    assert float(both) == pytest.approx(25 * expected, rel=1e-4)
    with pytest.raises(ValueError, match="a context and targets of one width, got 6 and 8"):
        VICReg(RegularizerSpec(6, 8), invariance=1.0)
