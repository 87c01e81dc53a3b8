"""A latent z in a world model: against plain loops, and two equally likely futures, with actions and without."""

from functools import partial

import numpy as np
import pytest
import torch

from jepa_lightning import JEPA
from jepa_lightning.data import DataError, TrajectoryData
from jepa_lightning.data.trajectories import Observations
from jepa_lightning.encoders import ConvEncoder
from jepa_lightning.environments import Disc, TwoRooms
from jepa_lightning.objectives import MSE
from jepa_lightning.planning import CEM, ActionPenalty, Actor, Agent, GoalDistance, WeightedSum, World
from jepa_lightning.predictors import ResidualPredictor
from jepa_lightning.predictors.rollout import predict_next
from jepa_lightning.pretexts import LatentRollout, Rollout
from jepa_lightning.regularizers import InverseDynamics
from jepa_lightning.targets import Online
from modalities.image import Image


def jepa_of(pretext, predictor=ResidualPredictor, **settings):
    torch.manual_seed(0)
    modality = Image(image_size=16, patch_size=16, channels=1, encoder=partial(ConvEncoder, dim=8, width=4))
    jepa = JEPA(modality, pretext=pretext, predictor=predictor, target=Online, objective=MSE(), **settings)
    with torch.no_grad():
        for parameter in jepa.predictor.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return jepa


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(samples=2, length=5, width=2):
    images = torch.randn(samples, length, 1, 16, 16, generator=generator())
    return {"image": images, "actions": torch.randn(samples, length - 1, width, generator=generator(1))}


@pytest.mark.parametrize(("history", "width"), [(1, 2), (2, 2), (1, 0)])
def test_values_are_those_of_a_plain_loop(history, width):
    pretext = LatentRollout(action_dim=width, codes=3, width=5, mean=0.1, steps=2, history=history)
    jepa, given = jepa_of(pretext).eval(), batch(width=width)
    with torch.no_grad():
        outcome = jepa.step(given, generator())
        states = torch.stack([jepa.encoder(jepa.tokenizer({"image": given["image"][:, t]}))[:, 0] for t in range(5)], 1)
        total, count = 0.0, 0
        for b in range(2):
            for start in range(3):
                known = [torch.zeros(8)] * (history - 1) + list(states[b, : start + 1])
                for k in range(2):
                    guesses = []
                    for code in pretext.codes:
                        x = torch.cat([*known[-history:], given["actions"][b, start + k], code])
                        for layer in jepa.predictor.layers:
                            x = layer(x)
                        guesses.append(known[-1] + jepa.predictor.project(x))
                    errors = [float((guess - states[b, start + k + 1]).square().mean()) for guess in guesses]
                    total += 0.9 * min(errors) + 0.1 * sum(errors) / 3
                    known.append(guesses[errors.index(min(errors))])  # the rollout continues from the best
                    count += 1
    assert count == 12
    assert float(jepa.losses(outcome)["prediction"]) == pytest.approx(total / count, rel=1e-4)


def test_each_code_gets_a_gradient_and_use_is_counted_in_training_alone():
    pretext = LatentRollout(action_dim=2, codes=3, steps=2)
    jepa = jepa_of(pretext)
    jepa.losses(jepa.step(batch(), generator()))["prediction"].backward()
    assert (pretext.codes.grad.abs().sum(1) > 0).all()
    used = pretext.usage.clone()
    assert float(used.sum()) == pytest.approx(1)
    assert not torch.equal(used, torch.full((3,), 1 / 3))
    jepa.eval().step(batch(), generator())
    assert torch.equal(pretext.usage, used)
    assert "usage" in pretext.state_dict()


def forks(count, seed, *, told):
    """A bar that moves to the left or to the right, equally often, in each step; `told`: how far down it moves, too."""
    drawn = generator(seed)
    sign = 2 * torch.randint(2, (count, 3), generator=drawn) - 1
    down = torch.randint(3, (count, 3, 1), generator=drawn).float() if told else torch.zeros(count, 3, 0)
    x = torch.cat([torch.full((count, 1), 8), 8 + 2 * sign.cumsum(1)], 1)
    y = torch.cat([torch.zeros(count, 1), down[..., 0].cumsum(1)], 1) if told else torch.zeros(count, 4)
    places = torch.arange(16)
    across = (places - x.unsqueeze(-1)).abs() < 2
    below = places >= 8 + y.unsqueeze(-1)
    images = (across.unsqueeze(-2) & below.unsqueeze(-1)).float().unsqueeze(2)  # (count, 4, 1, 16, 16)
    return {"image": 2 * images - 1, "actions": down}, sign


def trained(pretext, *, told, steps=250):
    """Predictor and codes alone are trained, on the states of a random encoder."""
    jepa = jepa_of(pretext)
    jepa.encoder.requires_grad_(False).eval()
    optimizer = torch.optim.Adam([*jepa.predictor.parameters(), *pretext.parameters()], lr=5e-3)
    for step in range(steps):
        loss = jepa.losses(jepa.step(forks(32, step, told=told)[0], generator()))["prediction"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return jepa.eval()


@pytest.mark.long
@pytest.mark.parametrize("told", [True, False], ids=["actions", "no actions"])
def test_the_best_of_several_futures_is_much_nearer_than_one_prediction(told):
    width = 1 if told else 0
    given, sign = forks(64, 10_000, told=told)
    plain = trained(Rollout(action_dim=1, steps=2, standardize=False), told=True) if told else None
    jepa = trained(LatentRollout(action_dim=width, codes=4, steps=2, standardize=False), told=told)
    with torch.no_grad():
        found = jepa.step(given, generator()).predictions[0]
        errors = (found.predicted - found.target).square().mean((-1, -2, -3))  # (4, 64 x 2 starts x 2 steps)
        best = float(errors.amin(0).mean())
        target = found.target.flatten(0, 2)
        if plain is not None:
            one = plain.step(given, generator()).predictions[0]
            single = float((one.predicted - one.target).square().mean())
            assert best < 0.35 * single
        assert best < 0.2 * float((target - target.mean(0)).square().mean())
        world = World(jepa)
        past = world.past(world.encode({"image": given["image"][:, 0]}))
        futures = world.imagine(past, given["actions"][:, None, :1], samples=16, generator=generator(3))
        assert futures.shape == (64, 1, 16, 1, 1, 8)
        after = world.encode({"image": given["image"][:, 1]})
        nearest = (futures[:, 0, :, 0] - after.unsqueeze(1)).square().mean((-1, -2)).amin(1)
        assert float(nearest.mean()) < 2 * best + 1e-3
        told_ = jepa.pretext.each(jepa.predictor, past, given["actions"][:, 0])  # (4, 64, 1, 8)
        code = (told_ - after).square().mean((-1, -2)).argmin(0)
    for one in set(code.tolist()):  # a code is an action: always the same way
        ways = sign[code == one, 0].float()
        assert abs(float(ways.mean())) > 0.9
    assert float(jepa.pretext.usage.max()) < 0.9  # both ways are taken


def latent_world(**settings):
    jepa = jepa_of(LatentRollout(**{"action_dim": 2, "codes": 3, "standardize": False, **settings}))
    return World(jepa, observations=Observations("image", mean=0.1, std=0.25))


def pictures(count=3, seed=0):
    rooms = TwoRooms(image_size=16)
    return rooms.observe(rooms.wander(count, 2, generator(seed)).states[:, 0])


def test_futures_are_rollouts_of_codes_drawn_as_often_as_they_were_used():
    found = latent_world()
    found.pretext.usage.copy_(torch.tensor([0.0, 0.25, 0.75]))
    past, actions = found.past(found.encode(pictures())), torch.randn(3, 2, 4, 2, generator=generator(2))
    states = found.imagine(past, actions, samples=200, generator=generator(4))
    assert states.shape == (3, 2, 200, 4, 1, 8)
    first = found.pretext.each(found.predictor, past, actions[:, 1, 0])  # (3 codes, 3, 1, 8)
    told = (states[:, 1, :, 0].unsqueeze(0) - first.unsqueeze(2)).abs().amax((-1, -2))  # (codes, 3, 200)
    assert (told.amin(0) < 1e-5).all()
    counts = torch.bincount(told.argmin(0).flatten(), minlength=3) / 600
    assert counts[0] == 0
    assert float(counts[1]) == pytest.approx(0.25, abs=0.07)
    one = states[:1, 0, 7]  # each further step continues from the one before
    alone, seen = found.past(found.encode(pictures()[:1])), []
    for t in range(4):
        guesses = found.pretext.each(found.predictor, alone, actions[:1, 0, t])[:, 0]
        number = int((guesses - one[0, t]).abs().amax((-1, -2)).argmin())
        alone = alone.push(guesses[number].unsqueeze(0))
        seen.append(guesses[number])
    torch.testing.assert_close(torch.stack(seen), one[0], atol=1e-4, rtol=1e-4)
    assert found.imagine(past, actions).shape == (3, 2, 4, 1, 8)
    again = found.imagine(past, actions, samples=5)
    assert torch.equal(again, found.imagine(past, actions, samples=5))
    torch.testing.assert_close(again[:, :1], found.imagine(past, actions[:, :1], samples=5))


def test_a_plan_minimises_the_mean_over_futures_and_surprise_is_of_the_best_code():
    found = latent_world()
    past, goal = found.past(found.encode(pictures())), found.encode_goal(pictures(seed=1))
    actions = torch.randn(3, 2, 4, 2, generator=generator(2))
    cost = WeightedSum([GoalDistance(reduce="last"), ActionPenalty()], weights=[1.0, 0.1])
    states = found.imagine(past, actions, samples=3)
    expected = torch.zeros(3, 2)
    for b in range(3):
        for c in range(2):
            for k in range(3):
                expected[b, c] += float(cost(states[b, c, k], actions[b, c], goal[b])) / 3
    torch.testing.assert_close(found.energy(past, goal, cost)(actions), expected)
    agent = Agent(found, Disc(3.0), CEM(samples=8, elites=2))
    agent.reset(pictures(seed=1))
    assert agent.act(pictures()).shape == (3, 2)
    seen = torch.stack([pictures(3, 0), pictures(3, 1)], 1)
    told, after = torch.cat([actions[:, :1, 0], torch.zeros(3, 1, 0)], -1), found.encode_goal(pictures(3, 1))
    errors = []
    for code in found.pretext.codes:
        guess = predict_next(found.predictor, past, torch.cat([told[:, 0], code.expand(3, -1)], -1))
        errors.append((guess - after).square().mean((-1, -2)).sqrt())
    torch.testing.assert_close(found.surprise(seen, told)[:, 0], torch.stack(errors).amin(0))


@pytest.mark.parametrize("lengths", [None, [4, 6, 5, 5]])
def test_observations_alone_have_actions_of_no_numbers(tmp_path, lengths):
    shape = (20, 3) if lengths else (4, 5, 3)
    more = {"episode_lengths": lengths} if lengths else {}
    np.savez(tmp_path / "walks.npz", observations=np.random.default_rng(0).normal(size=shape), **more)
    settings = {"key": "vector", "window": 4, "batch_size": 2, "num_workers": 0}
    with pytest.raises(DataError, match="expected an array 'actions'"):
        TrajectoryData(root=str(tmp_path), **settings).setup()
    found = next(iter(TrajectoryData(root=str(tmp_path), actions=None, **settings).train_dataloader()))
    assert (found["vector"].shape[1:], found["actions"].shape[1:]) == ((4, 3), (3, 0))
    rooms = TrajectoryData(
        key="image", actions=None, episodes=8, length=9, window=4, frame_skip=2, num_workers=0, batch_size=4
    )
    assert next(iter(rooms.train_dataloader()))["actions"].shape[1:] == (3, 0)


def test_what_is_refused():
    with pytest.raises(ValueError, match="expected at least 1 code and channel, and mean from 0 to 1; got 0"):
        LatentRollout(action_dim=1, codes=0)
    with pytest.raises(ValueError, match="action_dim must be at least 0, got -1"):
        LatentRollout(action_dim=-1)
    with pytest.raises(ValueError, match="action_dim must be at least 1, got 0"):
        Rollout(action_dim=0)
    with pytest.raises(ValueError, match="InverseDynamics tells actions, and this pretext has none"):
        jepa_of(LatentRollout(action_dim=0), regularizers=[InverseDynamics])
    found, actions = latent_world(), torch.zeros(3, 1, 4, 2)
    past = found.past(found.encode(pictures()))
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        found.imagine(past, actions, samples=0)
    with pytest.raises(ValueError, match="let it plan without an actor"):
        Actor(8, Disc(3.0)).imagine(found, past, past.states[:, -1], horizon=4)
    plain = World(jepa_of(Rollout(action_dim=2)))
    with pytest.raises(ValueError, match="expected 1 sample, since Rollout has no latent z, got 4"):
        plain.imagine(past, actions, samples=4)
