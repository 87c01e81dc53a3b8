"""Rollout: values against a plain loop, gradients by target, actions, histories, training and resuming."""

from functools import partial

import pytest
import torch
from torch.utils.data import DataLoader

from jepa_lightning import JEPA
from jepa_lightning.encoders import ConvEncoder, ViT
from jepa_lightning.objectives import MSE
from jepa_lightning.predictors import ResidualPredictor, TransformerPredictor
from jepa_lightning.pretexts import Rollout
from jepa_lightning.regularizers import VICReg
from jepa_lightning.targets import EMA, Online
from modalities.image import Image

FLOWING = partial(Online, stop_gradient=False)


def world(*, target=FLOWING, encoder=None, patch=8, predictor=ResidualPredictor, seed=0, **settings):
    torch.manual_seed(seed)
    encoder = encoder or partial(ViT, width=16, depth=1, heads=2)
    modality = Image(image_size=16, patch_size=patch, channels=1, encoder=encoder)
    pretext = Rollout(**{"action_dim": 2, "steps": 3, **settings})
    jepa = JEPA(modality, pretext=pretext, target=target, predictor=predictor, objective=MSE())
    with torch.no_grad():
        for parameter in jepa.predictor.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return jepa


def batch(samples=2, length=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(samples, length, 1, 16, 16, generator=generator)
    return {"image": images, "actions": torch.randn(samples, length - 1, 2, generator=generator)}


def step(jepa, given):
    return jepa.step(given, torch.Generator())


@pytest.mark.parametrize("history", [1, 3])
def test_values_are_those_of_a_plain_loop(history):
    jepa, given = world(history=history), batch()
    outcome = step(jepa, given)
    states = torch.stack([jepa.encoder(jepa.tokenizer({"image": given["image"][:, t]})).mean(1) for t in range(6)], 1)
    total, count = 0.0, 0
    for b in range(2):
        for start in range(3):
            known = [torch.zeros(16)] * (history - 1) + list(states[b, : start + 1])
            for k in range(3):
                x = torch.cat([*known[-history:], given["actions"][b, start + k]])
                for layer in jepa.predictor.layers:
                    x = layer(x)
                known.append(known[-1] + jepa.predictor.project(x))
                total += (known[-1] - states[b, start + k + 1]).square().mean().item()
                count += 1
    assert count == 18
    assert float(jepa.losses(outcome)["prediction"]) == pytest.approx(total / count, rel=1e-5)
    torch.testing.assert_close(outcome.context[0].values[:, 0], states.flatten(0, 1))
    torch.testing.assert_close(outcome.by_trajectory(outcome.context[0]), states)
    assert torch.equal(outcome.actions, given["actions"])


def test_all_tokens_as_a_state():
    jepa = world(state="tokens", predictor=partial(TransformerPredictor, width=16, depth=1, heads=2))
    outcome = step(jepa, batch())
    assert outcome.predictions[0].predicted.shape == outcome.predictions[0].target.shape == (2, 3, 12, 16)
    states = jepa.encoder(jepa.tokenizer({"image": batch()["image"][:, 2]}))  # of the start 0, two steps on
    torch.testing.assert_close(outcome.predictions[0].target[:, 0, 4:8], states)


def test_every_observation_is_encoded_once():
    jepa, seen = world(), []
    jepa.encoder.register_forward_pre_hook(lambda module, given: seen.append(given[0].batch_size))
    step(jepa, batch())
    assert seen == [12]


@pytest.mark.parametrize(("target", "flows"), [(FLOWING, True), (Online, False), (EMA, False)])
def test_which_gradient_reaches_the_target(target, flows):
    jepa = world(target=target)
    outcome = step(jepa, batch())
    assert outcome.predictions[0].target.requires_grad == flows
    jepa.losses(outcome)["prediction"].backward()
    assert all(p.grad is not None for p in [*jepa.encoder.parameters(), *jepa.predictor.parameters()])


def test_an_ema_target_makes_the_targets():
    jepa = world(target=EMA)
    with torch.no_grad():
        for parameter in jepa.target.encoder.parameters():
            parameter += 0.1
    outcome = step(jepa, batch())
    expected = jepa.target(jepa.tokenizer({"image": batch()["image"][:, 1]})).mean(1)
    torch.testing.assert_close(outcome.predictions[0].target[:, 0, 0], expected)
    assert not torch.allclose(outcome.context[0].values, outcome.target[0].values)


def test_actions_are_standardised_by_the_training_data_and_stored(tmp_path):
    pretext = Rollout(action_dim=2)
    assert pretext.needs_statistics
    given = [batch(seed=1), batch(seed=2)]
    for part in given:
        part["actions"] = part["actions"] * torch.tensor([3.0, 0.0]) + torch.tensor([5.0, 7.0])
    pretext.estimate(given)
    every = torch.cat([part["actions"].flatten(0, 1) for part in given])
    found = pretext.standardized(every)
    torch.testing.assert_close(found[:, 0].mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(found[:, 0].std(correction=0), torch.tensor(1.0))
    assert (found[:, 1].abs() < 1e-5).all()  # never varies, and is not scaled
    other = Rollout(action_dim=2)
    other.load_state_dict(pretext.state_dict())
    assert not other.needs_statistics
    assert torch.equal(other.standardized(every), found)
    assert not Rollout(action_dim=2, standardize=False).needs_statistics
    with pytest.raises(ValueError, match="expected training batches to standardise actions by, got none"):
        Rollout(action_dim=2).estimate([])


def test_a_fit_estimates_them_and_a_frame_is_embedded_as_a_sample(make_trainer):
    jepa = world(encoder=partial(ConvEncoder, dim=8, width=2), patch=16)
    jepa = JEPA(jepa.modality, pretext=Rollout(action_dim=2), target=FLOWING, predictor=ResidualPredictor,
                regularizers=[VICReg])  # fmt: skip
    given = batch(4, 8)
    given["actions"] = 4 * given["actions"]
    make_trainer(max_steps=2).fit(jepa, DataLoader([given, given], batch_size=None))
    torch.testing.assert_close(jepa.pretext.action_std, given["actions"].flatten(0, 1).std(0, correction=0))
    assert jepa.embed(given).shape == (32, 8)
    assert jepa(given).shape == (32, 1, 8)
    torch.testing.assert_close(jepa.embed(given)[9], jepa.embed({"image": given["image"][1, 1:2]})[0])


def test_settings_and_data_that_make_no_sense():
    for name in ("action_dim", "steps", "history"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            Rollout(**{"action_dim": 2, name: 0})
    with pytest.raises(ValueError, match="state must be pooled or tokens, got 'mean'"):
        Rollout(action_dim=2, state="mean")
    with pytest.raises(ValueError, match="needs trajectories of at least 4 observations, got 3"):
        step(world(), batch(length=3))
    with pytest.raises(ValueError, match=r"with actions \(B, T - 1, A\), got \['image'\]"):
        step(world(), {"image": torch.zeros(2, 1, 16, 16)})
    with pytest.raises(ValueError, match=r"expected actions of width 3, got 2: set model\.pretext\.action_dim"):
        step(world(action_dim=3), batch())
    jepa = world()
    jepa.modality.spec = jepa.modality.spec.__class__(**{**jepa.modality.spec.__dict__, "grid": None})
    with pytest.raises(ValueError, match="state tokens needs tokens on a grid"):
        Rollout(action_dim=2, state="tokens").predictor_spec(jepa.modality, jepa.target)


def test_predictions_that_are_fed_back_are_as_wide_as_states(tmp_path):
    jepa = world()
    jepa.target._student = (ConvEncoder(jepa.modality.spec, dim=5, width=2),)
    with pytest.raises(ValueError, match="got states of width 16 and targets of width 5"):
        Rollout(action_dim=2).predictor_spec(jepa.modality, jepa.target)
    assert Rollout(action_dim=2, steps=1).predictor_spec(jepa.modality, jepa.target).out == 5
