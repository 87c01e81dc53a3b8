"""Push-T from pixels: the recipe is fitted and planned with, small, by the commands."""

import json

import pytest

from jepa_lightning.cli.fit import fit
from jepa_lightning.cli.plan import plan

pytest.importorskip("gymnasium", reason="needs gymnasium, of the extra world")
pytest.importorskip("gym_pusht.envs", reason="needs gym-pusht, of the extra pusht")


@pytest.mark.long
def test_push_t_is_fitted_and_planned_with(tmp_path, capsys):
    run = tmp_path / "run"
    small = ["--model.modality.image_size=16", "--model.modality.patch_size=16", "--model.predictor.width=32"]
    few = ["--data.episodes=8", "--data.length=26", "--data.window=5", "--data.windows=2", "--data.batch_size=4"]
    push = ["--data.environment.image_size=16", "--data.environment.walks=24"]
    quiet = ["--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
    more = ["--data.num_workers=0", "--data.probe_samples=4", f"--trainer.default_root_dir={run}"]
    fit(["--config", "recipes/world_pusht", *small, *few, *push, *quiet, *more])
    planner = ["--planner=CEM", "--planner.samples=4", "--planner.elites=2", "--planner.iterations=2"]
    steps = ["--planner.horizon=10", "--planner.hold=5", "--execute=5", "--budget=10"]
    plan(["--checkpoint", str(run), *planner, *steps, "--episodes=3"])
    report = json.loads((run / "plan.json").read_text())
    assert report["protocol"]["frame_skip"] == 5
    assert report["protocol"]["environment"]["name"] == "pusht"
    assert list(report["rows"]) == ["world", "untrained", "nothing", "random", "straight line", "oracle", "towards"]
    assert "return" not in report["rows"]["world"]
    assert report["rows"]["nothing"]["success"] == 0
    assert list(report["readout_r2"])[-2:] == ["block_cos", "block_sin"]
    assert "block_cos" in capsys.readouterr().out
