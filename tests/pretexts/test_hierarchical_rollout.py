"""HierarchicalRollout: values against plain loops in float64, strides, gradients, the prior, training and resuming."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from short_runs import Built
from torch.utils.data import DataLoader

from jepa_lightning import JEPA
from jepa_lightning.callbacks import CollapseMonitor
from jepa_lightning.cli.fit import fit
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.encoders import ConvEncoder, ViT
from jepa_lightning.objectives import MSE
from jepa_lightning.planning import load_world
from jepa_lightning.predictors import AdaLNPredictor, GRUPredictor, ResidualPredictor
from jepa_lightning.pretexts import HierarchicalRollout, Rollout
from jepa_lightning.regularizers import InverseDynamics, SIGReg, TrajectoryVICReg, UpperLevels
from jepa_lightning.targets import EMA, Online
from modalities.image import Image

FLOWING = partial(Online, stop_gradient=False)
D = 16


def world(*, target=FLOWING, encoder=None, patch=8, regularizers=None, seed=0, **settings):
    torch.manual_seed(seed)
    encoder = encoder or partial(ViT, width=D, depth=1, heads=2)
    modality = Image(image_size=16, patch_size=patch, channels=1, encoder=encoder)
    pretext = HierarchicalRollout(**{"action_dim": 2, "steps": 2, "width": 24, **settings})
    parts = {"target": target, "predictor": ResidualPredictor, "objective": MSE(), "regularizers": regularizers}
    jepa = JEPA(modality, pretext=pretext, **parts)
    with torch.no_grad():
        for parameter in (*jepa.predictor.parameters(), *jepa.pretext.parameters()):
            parameter += 0.1 * torch.randn(parameter.shape)
    return jepa


def batch(samples=2, length=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(samples, length, 1, 16, 16, generator=generator)
    return {"image": images, "actions": torch.randn(samples, length - 1, 2, generator=generator)}


def step(jepa, given):
    return jepa.step(given, torch.Generator())


# Plain loops in float64 -----------------------------------------------------------------------------------------------


def linear(x, part):
    return [sum(w * v for w, v in zip(row, x, strict=True)) + b
            for row, b in zip(part.weight.tolist(), part.bias.tolist(), strict=True)]  # fmt: skip


def normed(x, part):
    mean = sum(x) / len(x)
    std = math.sqrt(sum((v - mean) ** 2 for v in x) / len(x) + part.eps)
    return [(v - mean) / std * w + b for v, w, b in zip(x, part.weight.tolist(), part.bias.tolist(), strict=True)]


def gelu(x):
    return [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x]


def plus(x, y):
    return [a + b for a, b in zip(x, y, strict=True)]


def encoded(x, encoder):
    first, _, last = encoder.mlp
    return linear(gelu(linear(normed(x, encoder.norm), first)), last)


def macro_action(actions, part):
    """One macro-action of a list of actions."""
    places = part.positions.tolist()
    tokens = [plus(linear(action, part.embed), place) for action, place in zip(actions, places, strict=True)]
    tokens = [part.class_token.tolist(), *tokens]
    (layer,) = part.transformer.layers
    rows = [linear(normed(token, layer.norm1), layer.attn.qkv) for token in tokens]
    width, heads = len(tokens[0]), layer.attn.num_heads
    size, seen = width // heads, []
    for head in range(heads):
        cut = [slice(start + head * size, start + (head + 1) * size) for start in (0, width, 2 * width)]
        query = rows[0][cut[0]]
        scores = [sum(q * k for q, k in zip(query, row[cut[1]], strict=True)) / math.sqrt(size) for row in rows]
        weights = [math.exp(score) / sum(map(math.exp, scores)) for score in scores]
        seen += [sum(w * row[cut[2]][c] for w, row in zip(weights, rows, strict=True)) for c in range(size)]
    x = plus(tokens[0], linear(seen, layer.attn.proj))
    x = plus(x, linear(gelu(linear(normed(x, layer.norm2), layer.mlp.fc1)), layer.mlp.fc2))
    first, _, norm, last = part.head
    return normed(linear(normed(gelu(linear(normed(x, part.transformer.norm), first)), norm), last), part.norm)


def predicted(state, action, predictor):
    x = [*state, *action]
    for layer in predictor.layers:
        x = gelu(linear(x, layer[0]))
    return plus(state, linear(x, predictor.project))


@pytest.mark.parametrize(("strides", "upper_steps", "length"), [([2], 1, 5), ([3], 1, 8), ([2, 2], 1, 9), ([2], 2, 9)])
def test_the_loss_is_that_of_plain_loops(strides, upper_steps, length):
    jepa = world(depth=len(strides) + 1, stride=strides, upper_steps=upper_steps, steps=1).double()
    given = {name: value.double() for name, value in batch(length=length).items()}
    outcome = step(jepa, given)
    images = given["image"]
    losses = [0.0] * (len(strides) + 1)
    for b in range(2):
        frames = [jepa.encoder(jepa.tokenizer({"image": images[b, t : t + 1]}))[0].mean(0) for t in range(length)]
        states, actions = [frame.tolist() for frame in frames], given["actions"][b].tolist()
        for number, each in enumerate((None, *jepa.pretext.levels)):
            if each is not None:
                stride = strides[number - 1]
                whole = [actions[t * stride : (t + 1) * stride] for t in range(len(actions) // stride)]
                actions = [macro_action(part, each.macro_encoder) for part in whole]
                states = [encoded(state, each.encoder) for state in states[::stride]]
            predictor, steps = (jepa.predictor, 1) if each is None else (each.predictor, upper_steps)
            errors = []
            for start in range(len(states) - steps):
                state = states[start]
                for k in range(steps):
                    state = predicted(state, actions[start + k], predictor)
                    errors += [(s - t) ** 2 for s, t in zip(state, states[start + k + 1], strict=True)]
            assert errors
            losses[number] += sum(errors) / len(errors) / 2
    for made, expected in zip(outcome.predictions, losses, strict=True):
        assert float((made.predicted - made.target).square().mean().detach()) == pytest.approx(expected, rel=1e-9)
    total = jepa.losses(outcome)["prediction"].detach()  # in float32
    assert float(total) == pytest.approx(sum(losses), rel=1e-6)
    weighted = world(depth=len(strides) + 1, stride=strides, upper_steps=upper_steps, steps=1, upper_weight=0.25)
    found = weighted.double().losses(step(weighted.double(), given))["prediction"]
    assert float(found.detach()) == pytest.approx(losses[0] + 0.25 * sum(losses[1:]), rel=1e-6)


# Strides --------------------------------------------------------------------------------------------------------------


def test_which_actions_a_macro_action_stands_for_and_which_states_it_lies_between():
    """A number put into action 4 or 5 moves the macro-action from state 2 to 3 of level 2, and 1 to 2 of level 3."""
    pretext = world(depth=3).pretext
    actions = batch(length=9)["actions"]
    for marked, second, third in ((4, 2, 1), (5, 2, 1), (3, 1, 0), (6, 3, 1), (7, 3, 1), (0, 0, 0)):
        other = actions.clone()
        other[:, marked] = 7.0
        for level, changes, count in ((2, second, 4), (3, third, 2)):
            before, after = pretext.macro_actions(level, actions), pretext.macro_actions(level, other)
            assert after.shape == (2, count, 4)
            moved = [i for i in range(count) if not torch.allclose(before[:, i], after[:, i], atol=1e-6)]
            assert moved == [changes]
    assert pretext.macro_actions(2, actions[:, :7]).shape == (2, 3, 4)  # the last one is left out
    assert torch.equal(pretext.macro_actions(1, actions), actions)


def test_the_order_of_the_actions_below_counts():
    pretext = world().pretext
    actions = batch(length=3)["actions"]
    assert not torch.allclose(pretext.macro_actions(2, actions), pretext.macro_actions(2, actions.flip(1)), atol=1e-4)


def test_states_of_a_level_are_those_of_every_strideth_observation():
    jepa = world(depth=3, stride=[2, 3])
    outcome = step(jepa, batch(length=14))  # one more than needed
    states = outcome.by_trajectory(outcome.context[0])
    assert [level.by_trajectory(level.context[0]).shape[1] for level in outcome.levels] == [7, 3]
    assert [tuple(level.actions.shape) for level in outcome.levels] == [(2, 6, 4), (2, 2, 4)]
    for number, stride in ((2, 2), (3, 6)):
        level = outcome.levels[number - 2]
        lifted = jepa.pretext.lift(states.unsqueeze(2), level=number)[:, ::stride, 0]
        torch.testing.assert_close(level.by_trajectory(level.context[0]), lifted)
        torch.testing.assert_close(level.actions, jepa.pretext.macro_actions(number, outcome.actions).detach())


def test_lift_from_any_level_and_what_it_refuses():
    pretext = world(depth=3).pretext
    states = torch.randn(5, 2, 1, D)
    second = pretext.lift(states, level=2)
    assert torch.equal(pretext.lift(second, level=3, since=2), pretext.lift(states, level=3))
    assert torch.equal(pretext.lift(states, level=2, since=2), states)
    for level, since in ((1, 2), (4, 1), (0, 0)):
        with pytest.raises(ValueError, match="expected levels from 1 to 3"):
            pretext.lift(states, level=level, since=since)
    flat = Rollout(action_dim=2)
    assert flat.depth == 1
    assert torch.equal(flat.lift(states, level=1), states)
    with pytest.raises(ValueError, match="expected level 1, since Rollout has no other, got 1 and 2"):
        flat.lift(states, level=2)


def test_a_rollout_of_a_level_is_differentiable_in_state_and_actions():
    pretext = world().pretext
    state, actions = torch.randn(3, 1, D, requires_grad=True), torch.randn(3, 4, 4, requires_grad=True)
    found = pretext.rollout_at(2, state, actions)
    assert found.shape == (3, 4, 1, D)
    found[:, -1].sum().backward()
    assert (state.grad.abs().sum((1, 2)) > 0).all()
    assert (actions.grad.abs().sum(2) > 0).all()  # each action, the first too
    one = pretext.rollout_at(2, state, actions[:, :1])
    torch.testing.assert_close(one[:, 0], found[:, 0])
    for level in (1, 3):
        with pytest.raises(ValueError, match=f"expected a level above the first, 2 to 2, got {level}"):
            pretext.rollout_at(level, state, actions)


# Gradients ------------------------------------------------------------------------------------------------------------


def test_an_upper_loss_trains_all_levels_below_and_their_actions():
    jepa = world(depth=3)
    top = step(jepa, batch()).predictions[2]
    MSE()(top.predicted, top.target).backward()
    trained = {
        name for name, parameter in jepa.named_parameters() if parameter.grad is not None and parameter.grad.any()
    }
    for part in ("encoder.", "pretext.levels.0.encoder.", "pretext.levels.0.macro_encoder.", "pretext.levels.1."):
        assert any(name.startswith(part) for name in trained), part
    assert not any(name.startswith(("predictor.", "pretext.levels.0.predictor")) for name in trained)
    assert top.target.requires_grad


@pytest.mark.parametrize("target", [Online, EMA])
def test_targets_above_have_no_gradient_where_the_first_ones_have_none(target):
    jepa = world(target=target)
    outcome = step(jepa, batch())
    assert not outcome.predictions[1].target.requires_grad
    tokens = jepa.tokenizer({"image": batch()["image"][:, 4]})
    expected = jepa.pretext.lift(jepa.target(tokens).mean(1, keepdim=True), level=2)
    torch.testing.assert_close(outcome.predictions[1].target[:, 1], expected.detach())
    jepa.losses(outcome)["prediction"].backward()
    assert all(parameter.grad is not None for parameter in jepa.pretext.levels.parameters())


@pytest.mark.parametrize("predictor", [GRUPredictor, partial(AdaLNPredictor, width=16, depth=1, heads=2)])
def test_other_predictors_and_a_past_of_the_first_level(predictor):
    jepa = world(predictor=predictor, history=3)
    assert jepa.pretext.level(2).predictor.condition == 4
    jepa.losses(step(jepa, batch()))["prediction"].backward()


def test_regularizers_of_the_first_level_see_it_alone():
    regularizers = [SIGReg, InverseDynamics, TrajectoryVICReg, partial(UpperLevels, regularizer=InverseDynamics)]
    jepa = world(regularizers=regularizers)
    outcome, flat = step(jepa, batch()), Rollout(action_dim=2, steps=2)
    alone = flat(jepa.networks, batch(), torch.Generator())
    found = jepa.losses(outcome)
    assert [*found] == ["prediction", "sigreg", "inverse_dynamics", "trajectory_vicreg", "upper_inverse_dynamics"]
    for name, value in jepa.losses(alone.__class__(**{**alone.__dict__, "levels": outcome.levels})).items():
        if name != "prediction":
            torch.testing.assert_close(value, found[name])


# The prior ------------------------------------------------------------------------------------------------------------


def test_the_prior_is_of_the_last_4000_macro_actions():
    level = world().pretext.level(2)
    before = level.prior()
    for found, value in ((before.mean, 0.0), (before.std, 1.0), (before.low, -2.0), (before.high, 2.0)):
        assert torch.equal(found, torch.full((4,), value))
    generator = torch.Generator().manual_seed(0)
    every = []
    for count in (3, 1000, 2500, 700, 900):  # the last 4,000 begin within the second
        every.append(torch.randn(count, 2, 4, generator=generator) + len(every))
        level.remember(every[-1])
        kept = torch.cat(every).flatten(0, 1)[-4000:].numpy()
        found = level.prior()
        np.testing.assert_allclose(found.mean, kept.mean(0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.std, kept.std(0, ddof=1), rtol=1e-4)
        np.testing.assert_allclose(found.low, np.quantile(kept, 0.02, axis=0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.high, np.quantile(kept, 0.98, axis=0), rtol=1e-4, atol=1e-6)


def test_macro_actions_are_kept_in_training_alone_and_without_waiting_for_the_device():
    jepa = world(depth=3)
    outcome = step(jepa, batch())
    assert [int(level.filled) for level in jepa.pretext.levels] == [8, 4]
    torch.testing.assert_close(jepa.pretext.level(2).recent[-8:], outcome.levels[0].actions.flatten(0, 1))
    jepa.eval()
    step(jepa, batch(seed=1))
    assert [int(level.filled) for level in jepa.pretext.levels] == [8, 4]
    level = jepa.pretext.level(2).to("meta")  # where a number that is read is an error
    level.remember(level.macro_encoder(torch.zeros(2, 8, 2, device="meta")))
    with pytest.raises((RuntimeError, NotImplementedError)):
        level.prior()


# Runs -----------------------------------------------------------------------------------------------------------------


def test_a_fit_logs_each_level_and_its_checkpoint_holds_the_prior(make_trainer, tmp_path):
    keep = [partial(SIGReg, directions=8), partial(UpperLevels, regularizer=partial(SIGReg, directions=8))]
    encoder = partial(ConvEncoder, dim=8, width=2)
    jepa = world(encoder=encoder, patch=16, regularizers=keep, depth=3)
    monitor = CollapseMonitor(every_n_steps=2)
    trainer = make_trainer(monitor, max_steps=4)
    trainer.fit(jepa, DataLoader([batch(8, seed=seed) for seed in range(4)], batch_size=None))
    metrics = trainer.callback_metrics
    for level in ("", "level2_", "level3_"):
        for name in ("effective_rank", "std", "within"):
            assert math.isfinite(metrics[f"collapse/{level}{name}"])
    assert "train/loss_upper_sigreg" in metrics
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    other = world(encoder=encoder, patch=16, regularizers=keep, depth=3, seed=1)
    stored = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    other.load_state_dict(stored)
    for level in (2, 3):
        assert torch.equal(other.pretext.prior(level).mean, jepa.pretext.prior(level).mean)
        assert other.pretext.prior(level).mean.any()
    again = CollapseMonitor()
    again.load_state_dict(monitor.state_dict())
    assert again.state_dict() == monitor.state_dict()
    assert monitor.state_dict()["first_of_levels"].keys() == {"level2", "level3"}
    assert not again.warned_of_loss


def test_upper_levels_may_learn_more_slowly(make_trainer):
    """Each group has its own learning rate; with AdamW the first step is as long as that."""
    jepa = world(encoder=partial(ConvEncoder, dim=8, width=2), patch=16, upper_learning_rate=0.2)
    before = {name: parameter.detach().clone() for name, parameter in jepa.named_parameters()}
    trainer = make_trainer(max_steps=1)
    trainer.fit(jepa, DataLoader([batch(8)], batch_size=None))
    groups = trainer.optimizers[0].param_groups
    own = {id(parameter) for parameter in jepa.pretext.parameters()}
    assert sum(len(group["params"]) for group in groups) == len(before)
    rate = jepa.scheduled("lr", 0)
    for group in groups:
        (upper,) = {id(parameter) in own for parameter in group["params"]}
        assert group["lr"] == pytest.approx(rate * (0.2 if upper else 1.0))
    for name, parameter in jepa.named_parameters():
        moved = float((parameter.detach() - before[name]).abs().max())
        assert 0 < moved < 1.2 * rate * (0.2 if name.startswith("pretext.") else 1.0) or not parameter.grad.any(), name


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_half_precision(make_trainer, precision):
    keep = [partial(SIGReg, directions=8), partial(UpperLevels, regularizer=InverseDynamics)]
    jepa = world(encoder=partial(ConvEncoder, dim=8, width=2), patch=16, regularizers=keep, depth=3)
    trainer = make_trainer(max_steps=2, precision=precision)
    trainer.fit(jepa, DataLoader([batch(8, seed=seed) for seed in range(2)], batch_size=None))
    assert math.isfinite(trainer.callback_metrics["train/loss"])
    prior = jepa.pretext.prior(3)
    assert prior.mean.dtype == torch.float32
    assert (prior.low < prior.high).all()


def test_world_yaml_with_levels_says_what_a_window_must_be():
    words = ["--config", "world.yaml", "--model.pretext", "HierarchicalRollout", "--model.pretext.depth", "3"]
    words += ["--model.pretext.stride", "[2,4]", "--model.pretext.predictor", "GRUPredictor"]
    load_plugins()
    jepa = Built(["fit", *words]).model
    assert jepa.pretext.strides == (2, 4)
    assert type(jepa.pretext.level(3).predictor) is GRUPredictor
    with pytest.raises(ValueError, match=r"level 3 needs trajectories of at least 9 observations.*got 8: set data\.w"):
        step(jepa, batch(length=8))


def test_the_recipe_trains_and_its_world_says_the_same_as_the_module(tmp_path):
    small = ["--data.episodes=16", "--data.windows=1", "--data.batch_size=4", "--data.num_workers=0"]
    quiet = ["--trainer.max_steps=2", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
    words = ["--config", "recipes/hjepa_four_rooms", *small, *quiet, f"--trainer.default_root_dir={tmp_path}"]
    fit(words)
    world = load_world(tmp_path)
    assert world.pretext.depth == 2
    assert world.pretext.prior(2).std.min() > 0
    walk = world.data().environment.wander(2, 9, torch.Generator().manual_seed(0))
    found = world.pretext.macro_actions(2, world.told(walk.actions))
    assert found.shape == (2, 2, 4)
    states = world.encode(world.data().environment.observe(walk.states[:, 0]))
    assert world.pretext.rollout_at(2, world.pretext.lift(states, level=2), found).shape == (2, 2, 1, 32)


def test_settings_that_make_no_sense():
    for name, value, least in (("depth", 1, 2), ("macro_dim", 1, 2), ("width", 0, 1)):
        with pytest.raises(ValueError, match=f"{name} must be at least {least}, got {value}"):
            HierarchicalRollout(action_dim=2, **{name: value})
    for name in ("upper_steps", "upper_learning_rate"):
        with pytest.raises(ValueError, match="upper_steps of at least 1 and a positive upper_learning_rate, got"):
            HierarchicalRollout(action_dim=2, **{name: 0})
    with pytest.raises(ValueError, match="re-encodes one vector a state, got state tokens"):
        HierarchicalRollout(action_dim=2, state="tokens")
    for stride in (0, [2], [2, 2, 2], [2, 0]):
        with pytest.raises(ValueError, match="expected a stride of at least 1, or a list of 2 of them"):
            HierarchicalRollout(action_dim=2, depth=3, stride=stride)
    with pytest.raises(ValueError, match="a pretext that JEPA has built"):
        HierarchicalRollout(action_dim=2).prior(2)
    jepa = world()
    jepa.target._student = (ConvEncoder(jepa.modality.spec, dim=5, width=2),)
    with pytest.raises(ValueError, match="got states of width 16 and targets of width 5"):
        HierarchicalRollout(action_dim=2).build(jepa.modality, jepa.target)
