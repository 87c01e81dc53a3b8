"""VISReg and SIGReg in subspaces: values against plain float64, expected values, collapse, gradients."""

import pytest
import torch
from scipy.stats import norm

from jepa_lightning.pretexts import Outcome
from jepa_lightning.regularizers import RegularizerSpec, SIGReg, SubspaceSIGReg, VISReg
from jepa_lightning.regularizers.sigreg import draw_directions
from jepa_lightning.tokens import Latents


def outcome(*features):
    return Outcome(context=[Latents(values=f.unsqueeze(1)) for f in features])


def draw(count, dim, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def visreg(dim, **settings):
    return VISReg(RegularizerSpec(dim, dim), **settings)


def test_terms_are_those_of_the_paper():
    features = draw(9, 4) * torch.tensor([0.2, 1.0, 2.0, 1.5]) + 0.3
    x = features.double()
    mean, std = x.mean(0), x.std(0, correction=0)
    directions = draw_directions(features, 6, 3).double()
    quantiles = norm.ppf([i / 10 for i in range(1, 10)])
    shape = 0.0
    for k in range(6):
        projected = sorted(float(((x[n] - mean) / std) @ directions[:, k]) for n in range(9))
        shape += sum((a - b) ** 2 for a, b in zip(projected, quantiles, strict=True)) / 9 / 6
    expected = {"scale": float((1 - std).square().mean()), "centre": float(mean.square().mean()), "shape": shape}
    for name, value in expected.items():
        weights = {"scale": 0.0, "centre": 0.0, "shape": 0.0, name: 2.0}
        part = visreg(4, directions=6, **weights)
        part.seed = 3
        assert float(part(outcome(features))) == pytest.approx(2 * value, rel=1e-4), name


def test_a_gaussian_is_near_zero_and_other_batches_are_not():
    gaussian = draw(2000, 8)
    batches = {
        "gaussian": gaussian,
        "wide": 3 * gaussian,
        "moved": gaussian + 1,
        "flat": gaussian * torch.tensor([1.0] * 4 + [0.0] * 4),
        "one line": gaussian[:, :1].expand(-1, 8),
        "cubed": gaussian**3 / 15**0.5,
    }
    value = {name: float(visreg(8)(outcome(x))) for name, x in batches.items()}
    assert value.pop("gaussian") < 0.01
    assert min(value.values()) > 0.05


def test_collapsed_representations_have_a_gradient():
    """Unlike SIGReg's, which vanishes: of nearly equal samples the scale's is about -2 / D along what is left."""
    nearly = (1e-3 * draw(64, 8)).requires_grad_()
    norms = []
    for part in (visreg(8, shape=0.0), SIGReg(RegularizerSpec(8, 8), per_sample=True, directions=64)):
        (gradient,) = torch.autograd.grad(part(outcome(nearly)), nearly)
        norms.append(float(gradient.norm()))
    assert norms[0] > 100 * norms[1]
    equal = torch.zeros(8, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(visreg(4)(outcome(equal)), equal)
    assert gradient.isfinite().all()


def test_the_shape_does_not_change_the_scale():
    features = draw(50, 4).requires_grad_()
    (gradient,) = torch.autograd.grad(visreg(4, scale=0.0, centre=0.0)(outcome(features)), features)
    part = visreg(4, scale=0.0, centre=0.0)
    larger = float(part(outcome(2 * features.detach())))
    assert larger == pytest.approx(float(part(outcome(features.detach()))), rel=1e-4)
    assert gradient.abs().sum() > 0


def test_subspaces_are_sigreg_of_the_projections():
    features = draw(40, 12) * torch.linspace(0.2, 2, 12)
    part = SubspaceSIGReg(RegularizerSpec(12, 12), subspaces=3, dim=4, directions=15)
    part.seed = 5
    torch.testing.assert_close(part.bases.mT @ part.bases, torch.eye(4).expand(3, 4, 4), atol=1e-5, rtol=0)
    within = draw_directions(features[:, :4], 15, 5)
    values = []
    for number, basis in enumerate(part.bases):
        inner = SIGReg(RegularizerSpec(4, 4), directions=5)
        own = within[:, 5 * number : 5 * number + 5]
        inner.draw = lambda _, own=own: own
        values.append(float(inner(outcome(features @ basis))))
    assert float(part(outcome(features))) == pytest.approx(sum(values) / 3, rel=1e-5)


def test_subspaces_are_kept_and_a_gaussian_is_expected():
    part = SubspaceSIGReg(RegularizerSpec(64, 64))
    assert part.bases.shape == (32, 64, 2)
    assert "bases" in part.state_dict()
    expected = (2 * torch.pi) ** 0.5 - (2 * torch.pi / 3) ** 0.5
    values = [float(part(outcome(draw(256, 64, seed)))) for seed in range(5)]
    assert sum(values) / 5 == pytest.approx(float(expected), rel=0.15)
    assert float(part(outcome(torch.zeros(256, 64)))) > 50


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"subspaces": 3}, "a multiple of the subspaces, got 1024 and 3"),
        ({"dim": 9}, "from 1 to 8 dimensions"),
        ({"dim": 0}, "got 0"),
    ],
)
def test_subspaces_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        SubspaceSIGReg(RegularizerSpec(8, 8), **settings)


def test_directions_of_visreg_must_be_there():
    with pytest.raises(ValueError, match="directions must be at least 1"):
        visreg(4, directions=0)
