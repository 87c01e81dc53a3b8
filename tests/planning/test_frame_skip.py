"""Frame skip: blocks of actions in a world, its agent, its actor and its report, against plain loops."""

import contextlib
import json
from types import SimpleNamespace

import pytest
import torch
from test_world import SMALL, module, pictures

import jepa_lightning
from jepa_lightning.cli.fit import fit
from jepa_lightning.cli.plan import plan as plan_command
from jepa_lightning.environments import Blocks, Disc, TwoRooms
from jepa_lightning.planning import CEM, Actor, Agent, Imitate, RandomShooting, Reactive, World, encode_walks
from jepa_lightning.planning.surprise import break_walks, detection
from jepa_lightning.predictors import rollout
from jepa_lightning.predictors.rollout import predict_next


def skipping(history=1, skip=3):
    """A world of actions of 2 numbers, in blocks of 3."""
    return World(module(history=history, action_dim=2 * skip), observations=SMALL, frame_skip=skip)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("history", [1, 2])
def test_a_block_is_one_step_of_the_predictor(history):
    found = skipping(history)
    found.pretext.action_mean.copy_(torch.arange(6.0))
    found.pretext.action_std.copy_(torch.arange(1.0, 7.0))
    actions = torch.randn(3, 4, 6, 2, generator=generator(2))  # 4 candidates of 6 actions
    states = found.imagine(found.past(found.encode(pictures())), actions)
    assert states.shape == (3, 4, 2, 1, 8)
    for b in range(3):
        for c in range(4):
            told = []
            for block in range(2):
                numbers = [float(actions[b, c, 3 * block + i, n]) for i in range(3) for n in range(2)]
                told.append([(value - j) / (j + 1) for j, value in enumerate(numbers)])
            past = found.past(found.encode(pictures()[b : b + 1]))
            alone = rollout(found.predictor, past, torch.tensor([told]))[0]
            torch.testing.assert_close(states[b, c], alone, atol=1e-3, rtol=1e-4)


def test_surprise_of_blocks():
    found = skipping(history=2)
    seen = torch.stack([pictures(2, seed) for seed in range(4)], dim=1)
    actions = torch.randn(2, 9, 2, generator=generator(1))
    scores = found.surprise(seen, actions)
    assert scores.shape == (2, 3)
    states = found.encode(seen.flatten(0, 1)).unflatten(0, (2, 4))
    past = found.past(states[:, 0])
    for t in range(3):
        told = found.pretext.standardized(actions[:, 3 * t : 3 * t + 3].flatten(1))
        error = (found.encode_goal(seen[:, t + 1]) - predict_next(found.predictor, past, told)).square()
        torch.testing.assert_close(scores[:, t], error.mean((-1, -2)).sqrt())
        past = past.push(states[:, t + 1])


def test_an_agent_looks_at_every_kth_observation():
    found = skipping(history=2)
    agent = Agent(found, Disc(3.0), RandomShooting(samples=8, horizon=12), execute=6)
    agent.reset(pictures(seed=9))
    looked, done = [], []
    for step in range(9):
        looked.append(agent.looks)
        done.append(agent.act(pictures(seed=step) if agent.looks else None))
    assert looked == [True, False, False] * 3
    torch.testing.assert_close(torch.stack(done[:6], 1), agent.loop.first.actions[:, :6])
    assert agent.plans == 6  # of three episodes, at steps 0 and 6
    for remembered, step in zip(agent.memory.states, (3, 6), strict=True):
        torch.testing.assert_close(remembered, found.encode(pictures(seed=step)))
    told = found.pretext.standardized(torch.cat(done[3:6], 1))  # the block between the two
    torch.testing.assert_close(agent.memory.past().actions, told.unsqueeze(1))
    agent.reset(pictures(seed=9))
    with pytest.raises(ValueError, match="expected an observation, since a plan or the memory is due"):
        agent.act(None)


def test_an_actor_does_a_block_in_as_many_steps():
    found = skipping()
    actor = Actor(8, found.block_space(Disc(3.0)))
    agent = Reactive(found, actor)
    agent.reset(pictures(seed=9))
    looked, done = [], []
    for step in range(6):
        looked.append(agent.looks)
        done.append(agent.act(pictures(seed=step) if agent.looks else None))
    assert looked == [True, False, False] * 2
    goal = found.encode_goal(pictures(seed=9))
    for step in (0, 3):
        block = actor(found.encode(pictures(seed=step)), goal).view(3, 3, 2)
        torch.testing.assert_close(torch.stack(done[step : step + 3], 1), block)
    agent.act(pictures())
    agent.keep(torch.tensor([2]))
    assert agent.act(None).shape == (1, 2)
    past = found.past(found.encode(pictures()))
    actions, states = actor.imagine(found, past, goal, horizon=12, hold=6)
    assert torch.equal(actions[:, :3], actions[:, 3:6])  # a block is held, where more is held than a block
    assert not torch.equal(actions[:, :3], actions[:, 6:9])
    torch.testing.assert_close(states, found.imagine(past, actions.unsqueeze(1))[:, 0])


def test_broken_transitions_of_a_world_that_knows_the_laws():
    rooms = TwoRooms()
    known = SimpleNamespace(history=1, frame_skip=4)

    def surprise(observations, actions):
        assert (observations.shape[1], actions.shape[1]) == (2, 4)
        state = observations[:, 0]
        for action in actions.unbind(1):
            state = rooms.step(state, action)
        return (state - observations[:, 1]).norm(dim=-1, keepdim=True)

    known.surprise = surprise
    rooms.observe = lambda states: states
    walks = rooms.wander(5, 9, generator())
    other = next(b for b in break_walks(rooms, walks, generator(), frame_skip=4) if b.name == "other action")
    whose = [next(i for i in range(5) if torch.equal(walks.actions[i, -4:], block)) for block in other.action]
    assert sorted(whose) == list(range(5))
    assert all(i != j for i, j in enumerate(whose))
    found = detection(known, rooms, walks=400)
    assert found["teleport"]["auroc"] > 0.99
    assert found["other action"]["auroc"] > 0.99


def test_what_does_not_fit():
    found = skipping()
    past = found.past(found.encode(pictures()))
    with pytest.raises(ValueError, match="expected a multiple of 3 actions, the frame skip, got 4"):
        found.imagine(past, torch.zeros(3, 1, 4, 2))
    with pytest.raises(ValueError, match="expected actions of width 2, got 6"):
        found.imagine(past, torch.zeros(3, 1, 3, 6))
    with pytest.raises(ValueError, match=r"as multiples of 3, the world's frame skip, got 4 and 16"):
        Agent(found, Disc(3.0), CEM())
    with pytest.raises(ValueError, match="a frame_skip that divides 6, the width of a block"):
        World(module(action_dim=6), frame_skip=4)
    with pytest.raises(ValueError, match="a horizon that is a multiple of 3, the world's frame skip, got 4"):
        Actor(8, found.block_space(Disc(3.0))).imagine(found, past, past.states[:, -1], horizon=4)
    agent = Reactive(found, Actor(8, found.block_space(Disc(3.0))))
    agent.reset(pictures())
    with pytest.raises(ValueError, match="expected an observation, since a block of actions is done"):
        agent.act(None)


@pytest.mark.long
def test_a_run_with_a_frame_skip_is_fitted_loaded_and_planned_with(tmp_path, capsys):
    few = ["--data.episodes=16", "--data.windows=2", "--data.batch_size=8", "--trainer.max_epochs=1"]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--data.num_workers=0"]
    skip = ["--data.frame_skip=2", "--model.pretext.action_dim=4", f"--trainer.default_root_dir={tmp_path}"]
    with contextlib.redirect_stdout(None):
        fit(["--config", "world.yaml", *few, *quiet, *skip])
    found = jepa_lightning.load_world(tmp_path)
    assert (found.frame_skip, found.untrained().frame_skip, found.pretext.action_dim) == (2, 2, 4)
    space = found.block_space(Disc(3.0))
    assert isinstance(space, Blocks)
    data = found.data()
    walks, every = encode_walks(found, data), data.load()["train"].episodes
    assert walks.actions.shape == (16 * 16, 4)  # 32 observations, of which every second is kept
    torch.testing.assert_close(walks.actions[16 * 3 + 5], every[3].actions[10:12].flatten())
    assert (walks.actions[15::16] == 0).all()
    expected = found.encode({"image": found.observations.prepare(every[3].observations[10:11])})
    torch.testing.assert_close(walks.states[16 * 3 + 5], expected[0], atol=1e-5, rtol=1e-4)
    assert Imitate(steps=2)(found, walks, Disc(3.0)).space.dim == 4
    plan = ["--planner=CEM", "--planner.samples=8", "--planner.elites=2", "--actor=Imagine", "--actor.steps=2"]
    plan_command(["--checkpoint", str(tmp_path), "--episodes=4", "--budget=5", *plan])
    report = json.loads((tmp_path / "plan.json").read_text())
    assert report["protocol"]["frame_skip"] == 2
    assert {"world", "untrained", "actor", "half, from actor", "oracle"} <= set(report["rows"])
    assert "the world imagines 2 steps of the environment at once (frame skip)" in capsys.readouterr().out
