"""A world and its agent: energies against a plain loop, gradients, histories, and a run from end to end."""

import contextlib
import json
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image as Picture

import jepa_lightning
from jepa_lightning import JEPA
from jepa_lightning.cli.fit import fit
from jepa_lightning.cli.plan import plan as plan_command
from jepa_lightning.data.trajectories import Observations
from jepa_lightning.encoders import ConvEncoder, ViT
from jepa_lightning.environments import Disc, TwoRooms
from jepa_lightning.planning import CEM, Agent, GoalDistance, Gradient, Imagine, RandomShooting, World, load_actor
from jepa_lightning.planning.belief import fit_readouts
from jepa_lightning.planning.plan import plan, table
from jepa_lightning.predictors import ResidualPredictor, TransformerPredictor, rollout
from jepa_lightning.pretexts import Masked, Rollout
from jepa_lightning.targets import EMA, Online
from modalities.image import Image

SMALL = Observations("image", mean=0.1, std=0.25)


def module(*, predictor=ResidualPredictor, encoder=None, patch=16, target=Online, **pretext):
    torch.manual_seed(0)
    encoder = encoder or partial(ConvEncoder, dim=8, width=2)
    modality = Image(image_size=16, patch_size=patch, channels=1, encoder=encoder)
    jepa = JEPA(modality, pretext=Rollout(**{"action_dim": 2, **pretext}), predictor=predictor, target=target)
    jepa.pretext.estimate([{"actions": torch.randn(4, 9, jepa.pretext.action_dim) * 2 + 1}])
    with torch.no_grad():
        for parameter in jepa.predictor.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
    return jepa


def world(**settings):
    return World(module(**settings), observations=SMALL)


def observations(count=3, seed=0):
    return TwoRooms(image_size=16).wander(count, 2, torch.Generator().manual_seed(seed)).states[:, 0]


def pictures(count=3, seed=0):
    return TwoRooms(image_size=16).observe(observations(count, seed))


def test_encoding_is_that_of_the_trained_encoder_on_normalised_frames():
    found = world()
    batch = {"image": (pictures().float() / 255 - 0.1) / 0.25}
    expected = found.encoder(found.tokenizer(batch))
    torch.testing.assert_close(found.encode(pictures()), expected)
    torch.testing.assert_close(found.encode(batch), expected)
    moved = world(target=EMA)
    with torch.no_grad():
        for parameter in moved.target.parameters():
            parameter += 0.1
    assert not torch.allclose(moved.encode(batch), moved.encode_goal(batch))
    assert not any(p.requires_grad for p in found.parameters())
    trained = module().train()
    with torch.no_grad():
        World(trained).encoder.project.weight.zero_()
    assert all(p.requires_grad for p in trained.encoder.parameters())  # the module itself is left alone
    assert trained.encoder.training
    assert trained.encoder.project.weight.abs().sum() > 0


@pytest.mark.parametrize("history", [1, 3])
def test_the_energy_of_each_candidate_is_that_of_its_own_rollout(history):
    found = world(history=history)
    past, goal = found.past(found.encode(pictures())), found.encode_goal(pictures(seed=1))
    actions = torch.randn(3, 5, 4, 2, generator=torch.Generator().manual_seed(2))
    energies = found.energy(past, goal, GoalDistance())(actions)
    assert energies.shape == (3, 5)
    for b in range(3):
        for c in range(5):
            told = (actions[b, c] - found.pretext.action_mean) / found.pretext.action_std
            alone = found.past(found.encode(pictures()[b : b + 1]))
            states = rollout(found.predictor, alone, told.unsqueeze(0))[0]
            d = [float((s - goal[b]).square().mean().sqrt()) for s in states]
            assert float(energies[b, c]) == pytest.approx(min(d) + 0.02 * sum(d) / 4, rel=1e-4)


def test_states_of_all_tokens():
    found = world(
        state="tokens",
        encoder=partial(ViT, width=8, depth=1, heads=2),
        patch=8,
        predictor=partial(TransformerPredictor, width=8, depth=1, heads=2),
    )
    past = found.past(found.encode(pictures()))
    assert found.imagine(past, torch.randn(3, 2, 5, 2)).shape == (3, 2, 5, 4, 8)


def test_gradients_through_the_energy_against_finite_differences():
    found = world().double()
    past, goal = found.past(found.encode(pictures(1)).double()), found.encode_goal(pictures(1, seed=1)).double()
    energy = found.energy(past, goal, GoalDistance(reduce="mean"))
    actions = torch.randn(1, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: energy(a).sum(), actions)


@pytest.mark.parametrize("planner", [CEM(samples=64, horizon=4, hold=2), Gradient(restarts=4, horizon=4, hold=2)])
def test_a_plan_leads_nearer_to_the_goal_than_where_it_starts(planner):
    found = world()
    past, goal = found.past(found.encode(pictures())), found.encode_goal(pictures(seed=1))
    energy, space = found.energy(past, goal, GoalDistance()), Disc(3.0)
    start = planner.start(3, space)
    plan_ = planner(energy, space, start, torch.Generator().manual_seed(0))
    assert (plan_.energy < energy(start.unsqueeze(1)).squeeze(1)).all()
    torch.testing.assert_close(energy(plan_.actions.unsqueeze(1)).squeeze(1), plan_.energy)


@pytest.mark.parametrize("history", [1, 2])
def test_an_agent_remembers_plans_and_drops_episodes(history):
    found = world(history=history)
    agent = Agent(found, Disc(3.0), RandomShooting(samples=8, horizon=4), execute=2)
    agent.reset(pictures(seed=1))
    first = agent.act(pictures())
    assert first.shape == (3, 2)
    torch.testing.assert_close(agent.act(pictures(seed=5)), agent.loop.first.actions[:, 1])  # the plan goes on
    agent.keep(torch.tensor([0, 2]))
    assert agent.act(pictures(2, seed=6)).shape == (2, 2)
    expected = found.encode(pictures(2, seed=6))
    torch.testing.assert_close(agent.memory.states[-1], expected)
    if history == 2:  # what was seen while the plan was carried out is remembered, too
        torch.testing.assert_close(agent.memory.states[0], found.encode(pictures(seed=5))[[0, 2]])
    agent.reset(pictures(seed=1))
    torch.testing.assert_close(agent.act(pictures()), first)


def test_a_readout_tells_what_the_state_holds():
    found = world(encoder=partial(ConvEncoder, dim=64, width=8))
    rooms = TwoRooms(image_size=16)
    readout = fit_readouts(found, rooms, samples=1200)[1]
    states = rooms.wander(400, 8, torch.Generator().manual_seed(9)).states[:, -1]
    error = (readout(found.encode(rooms.observe(states))) - states).square().mean(0)
    expected = 1 - error / states.var(0, correction=0)
    assert (expected - readout.r2).abs().max() < 0.2  # on other samples
    assert readout.r2[2] > 0.3  # a random network shows where the wall is


def test_what_is_refused():
    modality = Image(image_size=16, patch_size=8, channels=1, encoder=partial(ViT, width=8, depth=1, heads=2))
    with pytest.raises(ValueError, match="expected a run of the pretext Rollout, got one of Masked"):
        World(JEPA(modality, pretext=Masked()))
    with pytest.raises(ValueError, match="expected a memory of 1 states"):
        Agent(world(), Disc(3.0), CEM(), memory=jepa_lightning.planning.Memory(2))
    with pytest.raises(ValueError, match="nobody knows how this world's data were normalised"):
        World(module()).encode(pictures())
    with pytest.raises(ValueError, match="got a module built in Python"):
        world().untrained()
    with pytest.raises(ValueError, match="episodes and budget must be at least 1"):
        plan(world(), episodes=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run of the shipped config."""
    folder = tmp_path_factory.mktemp("world")
    few = ["--data.episodes=16", "--data.windows=2", "--data.batch_size=8", "--trainer.max_epochs=1"]
    quiet = [
        "--trainer.enable_progress_bar=false",
        "--trainer.accelerator=cpu",
        "--trainer.default_root_dir",
        str(folder),
    ]
    with (folder / "said.txt").open("w") as said, contextlib.redirect_stdout(said):
        fit(["--config", "world.yaml", *few, *quiet])
    return folder


def test_a_run_says_what_a_world_is_for_and_draws_no_masks(run, capsys):
    assert f"next: jepa-plan {run} plans with it; jepa-probe {run} evaluates it" in (run / "said.txt").read_text()
    assert jepa_lightning.view(run, ["masks", "error"], samples=2, device="cpu") == []
    said = capsys.readouterr().out
    assert "masks: left out, since the pretext of this run, Rollout, hides no tokens" in said
    assert "error: left out" in said


def test_observations_of_a_run_are_viewed_and_embedded_one_by_one(run, tmp_path, capsys):
    files = jepa_lightning.view(run, ["features", "neighbours"], samples=2, device="cpu", out=str(tmp_path))
    assert {path.name for path in files} == {"features.png", "neighbours.png", "neighbours.json"}
    row = json.loads((tmp_path / "neighbours.json").read_text())["samples"][0]
    assert set(row["labels"]) == {"x", "y", "wall", "door"}
    assert all(isinstance(value, float) for value in row["labels"].values())
    seen = TwoRooms(image_size=32).observe(observations())
    expected = jepa_lightning.load_world(run).encode(seen)[:, 0]
    encoder = jepa_lightning.load(run)
    torch.testing.assert_close(encoder([seen[0], seen[1].numpy(), seen[2]]), expected)
    torch.testing.assert_close(encoder(Picture.fromarray(seen[0, 0].numpy())), expected[0])
    np.save(tmp_path / "seen.npy", seen[0].numpy())
    torch.testing.assert_close(encoder(tmp_path / "seen.npy"), expected[0])


def test_a_run_is_fitted_loaded_and_planned_with(run, capsys):
    summary = json.loads((run / "summary.json").read_text())
    assert {"r2_x", "r2_x_untrained", "r2_door"} <= set(summary)
    found = jepa_lightning.load_world(run)
    assert bool(found.pretext.estimated)
    assert found.pretext.action_std.tolist() != [1.0, 1.0]
    state = found.encode(TwoRooms(image_size=32).observe(observations()))
    assert state.shape == (3, 1, 32)
    fresh = found.untrained()
    assert torch.equal(fresh.pretext.action_mean, found.pretext.action_mean)
    assert not torch.allclose(fresh.encode(TwoRooms(image_size=32).observe(observations())), state)
    few = ["--episodes=4", "--budget=6", "--planner=CEM", "--planner.samples=8", "--planner.elites=2", "--seed=3"]
    plan_command(["--checkpoint", str(run), *few])
    report = json.loads((run / "plan.json").read_text())
    assert list(report["rows"]) == ["world", "untrained", "nothing", "random", "straight line", "oracle", "towards"]
    assert report["rows"]["nothing"]["success"] == 0
    protocol = report["protocol"]
    assert protocol["planner"] | {"samples": 8, "elites": 2, "horizon": 16} == protocol["planner"]
    assert protocol["environment"]["rooms"] == "same"
    assert (protocol["seed"], protocol["budget"], protocol["episodes"]) == (3, 6, 4)
    assert set(report["first_plans"]) == {"believed", "achieved", "error", "plans"}
    surprise = report["surprise"]
    assert set(surprise) == {"world", "untrained"}
    assert surprise["untrained"]["other action"]["auroc"] == 0.5  # it predicts that nothing changes
    assert surprise["world"]["other action"]["auroc"] != 0.5
    said = capsys.readouterr().out
    assert table(report) in said
    assert "jump over the wall  " in said
    settings = {"planner": CEM(samples=8, elites=2), "seed": 3, "controls": False, "actor": Imagine(steps=2)}
    again = plan(str(run), episodes=4, budget=6, **settings)
    assert list(again["rows"]) == ["world", "actor", "half", "half, from actor"]
    assert again["rows"]["actor"]["ms_a_plan"] is None
    assert again["protocol"]["actor"]["class"] == "Imagine"
    size = found.encode(TwoRooms(image_size=32).observe(observations()))
    assert load_actor(run / "actor.pt", Disc(3.0))(size, size).shape == (3, 2)
    assert again["first_plans"] == report["first_plans"]
    summed = "[{class_path: GoalDistance}, {class_path: TemporalDistance, init_args: {steps: 3, width: 8}}]"
    plan_command(
        ["--checkpoint", str(run), *few, "--cost=WeightedSum", f"--cost.costs={summed}", "--cost.weights=[1, 2]"]
    )
    judged = json.loads((run / "plan.json").read_text())
    assert list(judged["rows"]) == list(report["rows"])  # each world's cost is fitted to its own states
    cost = judged["protocol"]["cost"]
    assert (cost["class"], cost["weights"], [part["class"] for part in cost["costs"]]) == (
        "WeightedSum",
        [1.0, 2.0],
        ["GoalDistance", "TemporalDistance"],
    )
    assert cost["seconds"] > 0
    assert cost["costs"][1] | {"steps": 3, "width": 8, "margin": 1.0} == cost["costs"][1]


def test_mistakes_of_the_command_end_in_a_line(run, short_run, capsys):
    image = str(short_run("image")[0])
    for words, said in (
        (["--checkpoint", image], "a world model is trained on trajectories, as by jepa-fit --config world.yaml"),
        ([], "checkpoint"),
        (["--checkpoint", str(run), "--planner=CME"], "CME"),
        (["--checkpoint", str(run / "nowhere")], "nowhere"),
        (["--checkpoint", str(run), "--planner=CEM", "--planner.horizon=7"], "multiple of hold"),
    ):
        with pytest.raises(SystemExit) as stop:
            plan_command(words)
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error
