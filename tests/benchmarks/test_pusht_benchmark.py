"""`benchmarks.pusht`: errors of a world whose states are the true ones and in which nothing moves."""

import pytest
import torch

from benchmarks.pusht import READ, apart, errors, main
from jepa_lightning.cli.fit import fit

pytest.importorskip("gymnasium", reason="needs gymnasium, of the extra world")
pytest.importorskip("gym_pusht.envs", reason="needs gym-pusht, of the extra pusht")


class Still:
    """A world that sees the true state, and in which nothing moves."""

    frame_skip = 5

    def encode(self, observations):
        return observations.unsqueeze(1)

    def past(self, states):
        return states

    def imagine(self, past, actions):
        return past[:, None, None].expand(-1, 1, actions.shape[2] // self.frame_skip, -1, -1)


def test_a_world_in_which_nothing_moves_errs_as_the_start(monkeypatch):
    from jepa_lightning.environments import PushT

    push = PushT(image_size=16)
    walks = push.wander(12, 11, torch.Generator().manual_seed(0))
    monkeypatch.setattr(push, "observe", lambda states: states)
    found = errors(Still(), push, walks.states, walks.actions, lambda states: states)
    assert list(found) == ["R2", "true states", "1 step", "2 steps"]
    assert found["R2"] == dict.fromkeys(READ, 1.0)
    assert max(found["true states"].values()) < 0.1
    for when, step in (("1 step", 5), ("2 steps", 10)):
        assert found[when] == pytest.approx(apart(push, walks.states[:, 0], walks.states[:, step]))
    moved = [
        sum((a - b) ** 2 for a, b in zip(w[0][4:6], w[10][4:6], strict=True)) ** 0.5 for w in walks.states.tolist()
    ]
    assert found["2 steps"]["block"] == pytest.approx(sum(moved) / 12, rel=1e-4)
    assert found["2 steps"]["block"] > 1


@pytest.mark.long
def test_it_measures_a_run(tmp_path, capsys):
    small = ["--model.modality.image_size=16", "--model.modality.patch_size=16", "--data.environment.image_size=16"]
    few = ["--data.episodes=8", "--data.length=26", "--data.window=5", "--data.windows=1", "--data.batch_size=4"]
    quiet = ["--trainer.max_steps=1", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
    run = tmp_path / "run"
    fit(["--config", "recipes/world_pusht", *small, *few, *quiet, "--data.num_workers=0", "--data.probe_samples=4",
         f"--trainer.default_root_dir={run}"])  # fmt: skip
    found = main([str(run), "--walks=4", "--fit=12", "--steps=2", "--updates=2", "--json", str(tmp_path / "j")])
    assert set(found[str(run)]) == {"linear", "MLP", "start", "walks"}
    said = capsys.readouterr().out
    assert "4 walks that moved the block" in said
    assert "degrees" in said
