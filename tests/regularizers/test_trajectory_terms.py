"""Terms on trajectories against plain loops."""

from functools import partial

import pytest
import torch

from jepa_lightning import JEPA
from jepa_lightning.encoders import ConvEncoder
from jepa_lightning.pretexts import Masked, Outcome, Rollout
from jepa_lightning.regularizers import (
    InverseDynamics,
    RegularizerSpec,
    Straightening,
    TemporalSimilarity,
    TrajectoryVICReg,
    VICReg,
)
from jepa_lightning.tokens import Latents
from modalities.image import Image

B, T, D, A = 5, 4, 6, 2
SPEC = RegularizerSpec(dim=D, out=D, actions=A)


def outcome(states=None, samples=B, tokens=1):
    generator = torch.Generator().manual_seed(0)
    if states is None:
        states = torch.randn(samples, T, tokens, D, generator=generator)
    actions = torch.randn(len(states), states.shape[1] - 1, A, generator=generator)
    return Outcome(context=[Latents(values=states.flatten(0, 1))], actions=actions)


def states_of(found):
    return found.by_trajectory(found.context[0])


def terms(rows, count, variance, covariance):
    """VICReg's terms of deviations (n, D) with so many degrees of freedom, in float64 loops."""
    rows = rows.double()
    c = [[float(sum(rows[:, i] * rows[:, j])) / count for j in range(D)] for i in range(D)]
    hinge = sum(max(0.0, 1 - (c[i][i] + 1e-4) ** 0.5) for i in range(D)) / D
    return variance * hinge + covariance * sum(c[i][j] ** 2 for i in range(D) for j in range(D) if i != j) / D


def test_vicreg_over_time_is_that_of_deviations_from_each_trajectorys_mean():
    seen = outcome()
    rows = torch.cat([s - s.mean(0) for s in states_of(seen)])
    term = TrajectoryVICReg(SPEC, over="time", variance=2.0, covariance=0.3)
    assert float(term(seen)) == pytest.approx(terms(rows, B * (T - 1), 2.0, 0.3), rel=1e-5)


def test_vicreg_over_the_batch_is_the_mean_of_that_at_each_time():
    seen = outcome()
    states = states_of(seen)
    expected = [terms(states[:, t] - states[:, t].mean(0), B - 1, 2.0, 0.3) for t in range(T)]
    term = TrajectoryVICReg(SPEC, over="batch", variance=2.0, covariance=0.3)
    assert float(term(seen)) == pytest.approx(sum(expected) / T, rel=1e-5)
    assert float(term(outcome(samples=1))) == 0.0


def test_scenery_contents_vicreg_and_not_the_term_over_time():
    still = 3 * torch.randn(32, 1, 1, D, generator=torch.Generator().manual_seed(1)).expand(-1, T, -1, -1)
    assert float(VICReg(SPEC, covariance=0.0)(outcome(still))) == 0.0
    assert float(TrajectoryVICReg(SPEC, covariance=0.0)(outcome(still))) == pytest.approx(0.99)


def test_similarity_and_straightness_in_loops():
    seen = outcome(tokens=3)
    states = states_of(seen).double()
    slow, bent = [], []
    for b in range(B):
        for t in range(T - 1):
            step = states[b, t + 1] - states[b, t]
            slow.append(float((step**2).mean()))
            if t:
                before = states[b, t] - states[b, t - 1]
                bent.append(1 - float(step @ before / (step.norm() * before.norm())))
    assert float(TemporalSimilarity(SPEC)(seen)) == pytest.approx(sum(slow) / len(slow), rel=1e-5)
    assert float(Straightening(SPEC)(seen)) == pytest.approx(sum(bent) / len(bent), rel=1e-5)


@pytest.mark.parametrize("linear", [False, True])
def test_inverse_dynamics_in_loops_and_what_a_still_state_tells(linear):
    torch.manual_seed(0)
    term, seen = InverseDynamics(SPEC, width=8, depth=1, linear=linear), outcome()
    states = states_of(seen)
    errors = []
    for b in range(B):
        for t in range(T - 1):
            pair = torch.cat([states[b, t], states[b, t + 1]])
            told = term.head[0].weight @ pair + term.head[0].bias if linear else term.head(pair)
            errors.append((told - seen.actions[b, t]).square().mean().item())
    value = term(seen)
    assert value.item() == pytest.approx(sum(errors) / len(errors), rel=1e-5)
    value.backward()
    assert all(p.grad is not None for p in term.parameters())


def test_a_head_learns_actions_from_states_that_hold_them():
    torch.manual_seed(0)
    actions = torch.randn(64, T - 1, A)
    states = torch.zeros(64, T, 1, D)
    states[:, 1:, 0, :A] = actions.cumsum(1)
    seen = Outcome(context=[Latents(values=states.flatten(0, 1))], actions=actions)
    term = InverseDynamics(SPEC, width=32)
    optimizer = torch.optim.Adam(term.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        term(seen).backward()
        optimizer.step()
    assert term(seen).item() < 0.1


def test_what_they_refuse():
    masked = Outcome(context=[Latents(values=torch.zeros(4, 1, D))])
    for term in (TrajectoryVICReg(SPEC), TemporalSimilarity(SPEC), Straightening(SPEC), InverseDynamics(SPEC)):
        with pytest.raises(ValueError, match="expected an outcome of trajectories, with actions, got none"):
            term(masked)
    with pytest.raises(ValueError, match="over must be batch or time, got 'space'"):
        TrajectoryVICReg(SPEC, over="space")
    with pytest.raises(ValueError, match="needs trajectories of at least 3 observations"):
        Straightening(SPEC)(outcome(torch.zeros(2, 2, 1, D)))
    with pytest.raises(ValueError, match="InverseDynamics tells actions, and this pretext has none"):
        InverseDynamics(RegularizerSpec(dim=D, out=D))
    with pytest.raises(ValueError, match="width and depth must be at least 1"):
        InverseDynamics(SPEC, depth=0)


def test_the_module_tells_them_the_width_of_an_action():
    encoder = partial(ConvEncoder, dim=8, width=2)
    modality = Image(image_size=16, patch_size=16, channels=1, encoder=encoder)
    jepa = JEPA(modality, pretext=Rollout(action_dim=3), regularizers=[InverseDynamics])
    assert jepa.regularizers[0].head[-1].out_features == 3
    with pytest.raises(ValueError, match="this pretext has none"):
        JEPA(modality, pretext=Masked(), regularizers=[InverseDynamics])
