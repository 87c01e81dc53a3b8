"""Teacher forcing: both losses of V-JEPA 2-AC in plain loops, one causal call, what reaches what, and imagination."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from jepa_lightning import JEPA
from jepa_lightning.encoders import FrozenEncoder, ViT
from jepa_lightning.environments import Disc
from jepa_lightning.objectives import L1
from jepa_lightning.planning import Agent, GoalDistance, RandomShooting, World
from jepa_lightning.predictors import FrameCausalPredictor, Past, ResidualPredictor, TransformerPredictor
from jepa_lightning.predictors.rollout import predict_next, rollout
from jepa_lightning.pretexts import LatentRollout, Rollout, TeacherForcing
from jepa_lightning.targets import Online
from modalities.image import Image

T, A = 6, 2
VIT = partial(ViT, width=16, depth=1, heads=2)
CAUSAL = partial(FrameCausalPredictor, width=16, depth=2, heads=2)
PREDICTORS = {
    "causal": CAUSAL,
    "modulated": partial(FrameCausalPredictor, width=16, depth=2, heads=2, action="modulation"),
    "transformer": partial(TransformerPredictor, width=16, depth=1, heads=2),
    "residual": ResidualPredictor,
}


def world(predictor="causal", *, pretext=TeacherForcing, encoder=VIT, target=Online, **settings):
    torch.manual_seed(0)
    image = Image(image_size=16, patch_size=8, channels=1, encoder=encoder)
    settings = {"action_dim": A, "standardize": False, "history": T - 1, "state": "tokens", **settings}
    jepa = JEPA(image, pretext=pretext(**settings), target=target, predictor=PREDICTORS[predictor], objective=L1())
    with torch.no_grad():
        for parameter in jepa.predictor.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return jepa


def batch(samples=2, length=T):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(samples, length, 1, 16, 16, generator=generator)
    return {"image": images, "actions": torch.randn(samples, length - 1, A, generator=generator)}


def step(jepa, given):
    return jepa.step(given, torch.Generator())


def counted(jepa):
    """The contexts that the predictor is called with."""
    seen = []
    jepa.predictor.register_forward_pre_hook(lambda module, given: seen.append(tuple(given[0].values.shape)))
    return seen


def encoded(jepa, given):
    """States (B, T, S, D), observation by observation."""
    pooled = jepa.pretext.state == "pooled"
    found = [jepa.encoder(jepa.tokenizer({"image": given["image"][:, t]})) for t in range(given["image"].shape[1])]
    return torch.stack([x.mean(1, keepdim=True) if pooled else x for x in found], 1)


def one_by_one(jepa, states, actions):
    """The next state of one trajectory from the last `history` true states (h, S, D) and the actions between."""
    positions = None if jepa.pretext.state == "pooled" else torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    if not jepa.predictor.causal:  # a state that is not there is told as filler
        missing = jepa.pretext.history - len(states)
        valid = torch.tensor([[False] * missing + [True] * len(states)])
        states = torch.cat([torch.zeros(missing, *states.shape[1:]), states])
        return predict_next(jepa.predictor, Past(states=states[None], valid=valid, positions=positions), actions[-1:])[
            0
        ]
    told = actions[None, :-1] if len(actions) > 1 else None
    return predict_next(jepa.predictor, Past(states=states[None], positions=positions, actions=told), actions[-1:])[0]


@pytest.mark.parametrize("state", ["tokens", "pooled"])
@pytest.mark.parametrize(
    ("predictor", "history"), [*((name, T - 1) for name in PREDICTORS), ("causal", 3), ("residual", 1)]
)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_losses_are_those_of_plain_loops(predictor, history, state, steps):
    jepa, given = world(predictor, history=history, state=state, steps=steps).eval(), batch()
    with torch.no_grad():
        loss = float(jepa.losses(step(jepa, given))["prediction"])
        states, actions = encoded(jepa, given), given["actions"]
        forced, count, rolled = 0.0, 0, 0.0
        for b in range(2):
            for k in range(T - 1):
                first = max(0, k + 1 - history)
                guess = one_by_one(jepa, states[b, first : k + 1], actions[b, first : k + 1])
                forced += float((guess - states[b, k + 1]).abs().mean())
                count += 1
            known = [states[b, 0]]
            for k in range(steps):
                first = max(0, k + 1 - history)
                known.append(one_by_one(jepa, torch.stack(known[first:]), actions[b, first : k + 1]))
            rolled += float((known[-1] - states[b, steps]).abs().mean()) / 2
    assert count == 2 * (T - 1)
    assert loss == pytest.approx(forced / count + (rolled if steps > 1 else 0.0), rel=2e-5)


def test_a_causal_predictor_is_called_once_and_once_for_each_further_step():
    jepa = world(steps=3)
    seen = counted(jepa)
    step(jepa, batch())
    assert seen == [(2, 5 * 4, 16), (2, 2 * 4, 16), (2, 3 * 4, 16)]  # all next states, and two steps from predictions
    jepa = world("transformer", steps=1)
    seen = counted(jepa)
    step(jepa, batch())
    assert seen == [(2 * 5, 5 * 4, 16)]  # a sample for each start


def test_the_one_call_is_the_single_predictions():
    jepa = world(steps=1).double().eval()
    states = torch.randn(2, T, 4, 16, dtype=torch.float64)
    actions = torch.randn(2, T - 1, A, dtype=torch.float64)
    positions = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    found = jepa.pretext.forced(jepa.predictor, states, actions, positions)
    past = jepa.pretext.past(states, T - 1, positions, actions)
    each = predict_next(jepa.predictor, past, actions.flatten(0, 1)).unflatten(0, (2, T - 1))
    torch.testing.assert_close(found, each)


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_no_later_frame_or_action_reaches_an_earlier_prediction(predictor):
    jepa, given = world(predictor, target=partial(Online, stop_gradient=False), steps=1), batch()
    images, actions = given["image"].requires_grad_(), given["actions"].requires_grad_()
    found = step(jepa, given).predictions[0].predicted
    for k in range(T - 1):
        of_images, of_actions = torch.autograd.grad(found[:, k].sum(), (images, actions), retain_graph=True)
        assert (of_images[:, k + 1 :] == 0).all()
        assert (of_actions[:, k + 1 :] == 0).all()
        assert (of_images[:, k] != 0).any()
        assert (of_actions[:, k] != 0).any()


def test_the_rollout_goes_on_from_its_own_prediction():
    jepa, given = world(steps=2, target=partial(Online, stop_gradient=False)), batch()
    images = given["image"].requires_grad_()
    rolled = step(jepa, given).predictions[1]
    of_images = torch.autograd.grad(rolled.predicted.sum(), images, retain_graph=True)[0]
    assert (of_images[:, 1:] == 0).all()
    assert (of_images[:, 0] != 0).any()
    torch.testing.assert_close(rolled.target[:, 0], encoded(jepa, given)[:, 2])


def test_the_predictor_alone_learns_on_frozen_states():
    jepa = world(encoder=partial(FrozenEncoder, encoder=VIT, norm=True), steps=2)
    assert {name.split(".")[0] for name, p in jepa.named_parameters() if p.requires_grad} == {"predictor"}
    jepa.total_steps = 30
    optimizer = torch.optim.Adam(jepa.configure_optimizers().param_groups, lr=3e-3)
    losses = []
    for number in range(30):
        loss = sum(jepa.losses(step(jepa, batch(8)), number).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("history", [1, 3, 5])
def test_a_world_imagines_from_the_present_state_and_remembers_what_it_imagined(history):
    jepa = world(history=history, steps=2)
    own = World(jepa)
    states = own.encode({"image": batch()["image"][:, 0]})
    actions = torch.randn(2, 3, 4, A)
    found = own.imagine(own.past(states), actions)
    assert found.shape == (2, 3, 4, 4, 16)
    for b in range(2):
        for c in range(3):
            known = [states[b]]
            for k in range(4):
                first = max(0, k + 1 - history)
                known.append(one_by_one(jepa.eval(), torch.stack(known[first:]), actions[b, c, first : k + 1]))
            torch.testing.assert_close(found[b, c], torch.stack(known[1:]), rtol=1e-4, atol=1e-5)


def test_rollout_tells_a_causal_predictor_what_was_done_before_each_start():
    jepa, given = world(pretext=Rollout, history=3, steps=2).eval(), batch()
    found = step(jepa, given).predictions[0].predicted.unflatten(2, (2, 4))  # (B, starts, steps, S, D)
    states, actions = encoded(jepa, given), given["actions"]
    for start in range(4):
        first = max(0, start - 2)
        one = one_by_one(jepa, states[0, first : start + 1], actions[0, first : start + 1])
        torch.testing.assert_close(found[0, start, 0], one)
        known, first = torch.cat([states[0, : start + 1], one[None]]), max(0, start - 1)
        two = one_by_one(jepa, known[first:], actions[0, first : start + 2])
        torch.testing.assert_close(found[0, start, 1], two)


def test_an_agent_tells_a_causal_predictor_what_it_did():
    jepa, given = world(history=3, standardize=True).eval(), batch()
    jepa.pretext.estimate([given])
    own, images = World(jepa), given["image"]
    agent = Agent(own, Disc(3.0), RandomShooting(samples=4, horizon=4), execute=4)
    agent.reset({"image": images[:, -1]})
    done = [agent.act({"image": images[:, t]}) for t in range(5)]  # the second plan is made at the fifth step
    seen, told = encoded(jepa, given)[:, 2:5], jepa.pretext.standardized(torch.stack(done[2:4], dim=1))
    past = agent.memory.past(own.positions)
    torch.testing.assert_close(past.states, seen)
    torch.testing.assert_close(past.actions, told)
    candidates = torch.randn(2, 3, 1, A)
    found = own.energy(past, agent.goal, GoalDistance())(candidates)
    for b in range(2):
        for c in range(3):
            after = jepa.pretext.standardized(candidates[b, c])
            state = one_by_one(jepa, seen[b], torch.cat([told[b], after]))
            expected = GoalDistance()(state[None, None], candidates[b : b + 1, c], agent.goal[b : b + 1])
            torch.testing.assert_close(found[b, c], expected[0])
    forgotten = own.energy(replace(past, actions=None), agent.goal, GoalDistance())(candidates)
    assert not torch.allclose(found, forgotten)


@pytest.mark.parametrize("history", [1, 3, T - 1])
def test_surprise_of_a_causal_predictor_is_told_what_was_done_before(history):
    jepa, given = world(history=history).eval(), batch()
    scores = World(jepa).surprise({"image": given["image"]}, given["actions"])
    states = encoded(jepa, given)
    for b in range(2):
        for k in range(T - 1):
            first = max(0, k + 1 - history)
            error = one_by_one(jepa, states[b, first : k + 1], given["actions"][b, first : k + 1]) - states[b, k + 1]
            torch.testing.assert_close(scores[b, k], error.square().mean().sqrt())


def test_codes_are_told_to_a_causal_predictor_with_the_actions():
    jepa = world(pretext=LatentRollout, history=3, steps=2, codes=3)
    guesses = step(jepa, batch()).predictions[0].predicted
    assert guesses.shape == (3, 2 * 4 * 2, 1, 4, 16)
    own = World(jepa)
    states = own.encode({"image": batch()["image"][:, 0]})
    assert own.imagine(own.past(states), torch.randn(2, 3, 4, A), samples=5).shape == (2, 3, 5, 4, 4, 16)


def test_rollouts_of_other_predictors_are_as_they_were():
    jepa = world("residual", state="pooled", history=2).double()
    past = Past(states=torch.randn(3, 2, 1, 16).double())
    told = Past(states=past.states, actions=torch.randn(3, 1, A).double())
    actions = torch.randn(3, 4, A).double()
    assert torch.equal(rollout(jepa.predictor, past, actions), rollout(jepa.predictor, told, actions))


def robot(samples=2, length=T):
    """A batch whose actions are the changes of a robot's own state."""
    own = 3 + torch.randn(samples, length, A, generator=torch.Generator().manual_seed(1)).cumsum(1)
    return {**batch(samples, length), "actions": own.diff(dim=1), "labels": {"pose": own, "other": own[..., 0]}}


@pytest.mark.parametrize("predictor", ["causal", "modulated", "residual"])
def test_the_robots_own_state_is_told_beside_each_action(predictor):
    jepa, given = world(predictor, proprio="pose", standardize=True, steps=2, state="pooled").eval(), robot()
    jepa.pretext.estimate(iter([robot(1), robot(4)]))
    seen = []
    jepa.predictor.register_forward_pre_hook(lambda module, args: seen.append(args[2].values))
    step(jepa, given)
    every = torch.cat([part["labels"]["pose"].flatten(0, 1) for part in (robot(1), robot(4))])
    own = (given["labels"]["pose"] - every.mean(0)) / every.std(0, correction=0)
    told = torch.cat([jepa.pretext.standardized(given["actions"]), own[:, :-1]], dim=-1)
    torch.testing.assert_close(seen[0].flatten(0, 1), told.flatten(0, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("predictor", ["causal", "residual"])
def test_imagination_adds_actions_to_the_robots_own_state(predictor):
    jepa, given = world(predictor, proprio="pose", standardize=True, steps=2, state="pooled").eval(), robot()
    jepa.pretext.estimate([given])
    own = World(jepa)
    past = own.past(own.encode({"image": given["image"][:, 0]}))
    past = replace(past, proprio=given["labels"]["pose"][:, 0])
    found = own.imagine(past, given["actions"].unsqueeze(1).expand(-1, 3, -1, -1))
    assert found.shape == (2, 3, T - 1, 1, 16)
    told = jepa.pretext.told(given, jepa.pretext.standardized(given["actions"]))  # from the recorded states
    for c in range(3):
        torch.testing.assert_close(found[:, c], rollout(own.predictor, own.past(past.states[:, -1]), told))
    after = torch.randn(2, 1, 16)
    surprise = jepa.pretext.surprise(own.predictor, past, jepa.pretext.standardized(given["actions"])[:, 0], after)
    torch.testing.assert_close(surprise, (after - found[:, 0, 0]).square().mean((1, 2)).sqrt())


def test_kinds_of_tokens_have_maps_of_their_own():
    predictor = world(proprio="pose").predictor
    assert [tuple(part.weight.shape) for part in predictor.embed_action] == [(16, A), (16, A)]


def test_what_the_robots_own_state_needs():
    jepa = world(proprio="arm")
    with pytest.raises(
        ValueError, match=r"expected the label 'arm' \(model.pretext.proprio\), got \['other', 'pose'\]"
    ):
        step(jepa, robot())
    jepa = world(proprio="other")
    with pytest.raises(ValueError, match=r"of the width of an action, which is its change, \(B, T, 2\), got \(2, 6\)"):
        step(jepa, robot())
    own = World(world(proprio="pose"))
    past = own.past(own.encode({"image": batch()["image"][:, 0]}))
    with pytest.raises(ValueError, match=r"expected the robot's own state.*replace\(past, proprio=...\)"):
        own.imagine(past, torch.randn(2, 3, 4, A))


def test_what_it_needs():
    with pytest.raises(ValueError, match="a rollout of 2 steps needs trajectories of at least 3 observations, got 2"):
        step(world(), batch(length=2))
    with pytest.raises(ValueError, match="steps must be at least 1"):
        TeacherForcing(action_dim=2, steps=0)
    with pytest.raises(ValueError, match="action_dim must be at least 1"):
        TeacherForcing(action_dim=0)
