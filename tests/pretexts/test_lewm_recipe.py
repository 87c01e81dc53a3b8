"""The recipe of LeWorldModel, small: trained on walks in Two Rooms, and planned with as in the paper."""

import json

import torch

import jepa_lightning
from jepa_lightning.cli.fit import fit
from jepa_lightning.cli.plan import plan


def test_a_small_lewm_is_trained_and_planned_with(tmp_path):
    key = "--model.modality"
    small = [f"{key}.image_size=28", f"{key}.encoder.dim=16", f"{key}.encoder.hidden=32"]
    small += [f"{key}.encoder.encoder.{name}={value}" for name, value in (("width", 24), ("depth", 2), ("heads", 2))]
    small += ["--model.predictor.width=16", "--model.predictor.depth=2", "--model.predictor.heads=2"]
    small += ["--model.predictor.head_dim=12", "--model.predictor.projector=32", "--data.environment.image_size=28"]
    few = ["--data.episodes=16", "--data.length=24", "--data.windows=3", "--data.batch_size=8", "--data.num_workers=0"]
    few += ["--data.probe_samples=8", "--trainer.max_epochs=2", "--trainer.precision=32-true"]
    quiet = [
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        f"--trainer.default_root_dir={tmp_path}",
    ]
    fit(["--config", "recipes/lewm_tworoom", *small, *few, *quiet])
    assert json.loads((tmp_path / "summary.json").read_text())["steps"] == 12
    world = jepa_lightning.load_world(tmp_path)
    rooms = world.data().environment
    walk = rooms.wander(4, 16, torch.Generator().manual_seed(0))
    frames = rooms.observe(walk.states)[:, ::5]
    assert world.surprise(frames, walk.actions).shape == (4, 3)
    planner = [
        "--planner=CEM",
        "--planner.samples=6",
        "--planner.elites=2",
        "--planner.iterations=2",
        "--planner.hold=1",
    ]
    planner += ["--planner.horizon=10", "--execute=10", "--cost=GoalDistance", "--cost.reduce=last"]
    plan(["--checkpoint", str(tmp_path), *planner, "--budget=20", "--episodes=3"])
    report = json.loads((tmp_path / "plan.json").read_text())
    assert report["protocol"]["frame_skip"] == 5
    assert {"world", "untrained", "random", "oracle"} <= set(report["rows"])
