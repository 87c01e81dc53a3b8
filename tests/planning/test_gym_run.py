"""Pendulum from pixels: collect, fit and plan, by the three commands."""

import json
import shlex

import pytest

from jepa_lightning.cli.collect import collect
from jepa_lightning.cli.fit import fit
from jepa_lightning.cli.plan import plan

pytest.importorskip("gymnasium", reason="needs gymnasium, of the extra world")
pytest.importorskip("pygame", reason="needs pygame, of the extra world")


@pytest.mark.long
def test_a_pendulum_is_collected_fitted_and_planned_with(tmp_path, capsys):
    episodes, run = tmp_path / "episodes", tmp_path / "run"
    collect(["Pendulum-v1", str(episodes), "--episodes=6", "--length=26", "--image_size=16"])
    small = ["--model.modality.image_size=16", "--model.modality.patch_size=16", "--model.modality.encoder.dim=8"]
    few = [
        "--data.window=7",
        "--data.windows=2",
        "--data.batch_size=4",
        "--data.probe_samples=5",
        "--data.num_workers=0",
    ]
    quiet = ["--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
    data = ["--data.environment=null", f"--data.root={episodes}", f"--trainer.default_root_dir={run}"]
    fit(["--config", "recipes/world_pendulum", *small, *few, *quiet, *data])
    gym = [
        "--environment=Gym",
        "--environment.id=Pendulum-v1",
        "--environment.image_size=16",
        "--environment.angles=[0]",
        "--environment.walks=24",  # each picture takes a millisecond
    ]
    goal = ["--environment.goal=[0,0]", "--environment.measured=[0]", "--episodes=3", "--budget=4"]
    planner = ["--planner=CEM", "--planner.samples=4", "--planner.elites=2", "--planner.horizon=4"]
    with pytest.raises(SystemExit):
        plan(["--checkpoint", str(run), *planner])
    assert "expected an environment to act in, since the run's data are files" in capsys.readouterr().err
    plan(["--checkpoint", str(run), *gym, *goal, *planner])
    report = json.loads((run / "plan.json").read_text())
    rows = report["rows"]
    assert report["protocol"]["frame_skip"] == 4
    assert list(rows) == ["world", "untrained", "nothing", "random", "straight line", "oracle"]
    for row in rows.values():
        assert row["return_interval"][0] <= row["return"] <= row["return_interval"][1]
        assert row["return"] < 0
    said = capsys.readouterr().out
    assert "ms a plan  return  95% interval" in said
    assert "cos_0" in said


@pytest.mark.long
def test_a_world_model_of_a_state_needs_no_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr("jepa_lightning.environments.gym.picture", None)  # none is drawn
    few = ["--data.episodes=16", "--data.length=33", "--data.window=7", "--data.windows=1", "--data.probe_samples=8"]
    few += ["--data.environment.walks=24", "--trainer.max_epochs=1"]
    quiet = [
        "--trainer.enable_progress_bar=false",
        "--trainer.accelerator=cpu",
        f"--trainer.default_root_dir={tmp_path}",
    ]
    fit(["--config", "recipes/world_pendulum_state", *few, *quiet])
    assert json.loads((tmp_path / "summary.json").read_text())["modality"] == "vector"
    planner = ["--planner=CEM", "--planner.samples=4", "--planner.elites=2", "--planner.horizon=4"]
    plan(
        [
            "--checkpoint",
            str(tmp_path),
            *planner,
            "--episodes=3",
            "--budget=4",
            "--cost=TemporalDistance",
            "--cost.steps=2",
        ]
    )
    rows = json.loads((tmp_path / "plan.json").read_text())["rows"]
    assert list(rows) == ["world", "untrained", "nothing", "random", "straight line", "oracle"]


@pytest.mark.long
@pytest.mark.parametrize("said_before", ["next: jepa-fit ", "or from its state: jepa-fit "])
def test_the_next_command_trains_on_what_was_collected(said_before, tmp_path, capsys):
    collect(["CartPole-v1", str(tmp_path / "episodes"), "--episodes=6", "--image_size=16"])
    said = capsys.readouterr().out
    command = said.partition(said_before)[2].partition("\n")[0]
    assert "--model.pretext.action_dim 2" in command
    few = [
        "--trainer.max_steps=2",
        "--data.window=7",
        "--data.batch_size=2",
        "--data.num_workers=0",
        "--data.probe_samples=4",
    ]
    quiet = [
        "--trainer.enable_progress_bar=false",
        "--trainer.accelerator=cpu",
        f"--trainer.default_root_dir={tmp_path}",
    ]
    fit([*shlex.split(command), *few, *quiet])
    assert json.loads((tmp_path / "summary.json").read_text())["steps"] == 2
