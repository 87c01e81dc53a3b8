"""`benchmarks.contact`: imagined places are in the world's units, and a small run fills the table."""

import math

import pytest
import torch

from benchmarks.contact import VARIANTS, imagine, main, train
from jepa_lightning.environments import TwoRooms


@pytest.mark.long
def test_an_untrained_predictor_stays_and_a_trained_one_moves():
    rooms = TwoRooms(rooms="other", walk="both")
    walks = rooms.wander(200, 2, torch.Generator().manual_seed(5))
    start, goal = walks.states[:, 0], walks.states[:, 1]
    still = train(rooms, {}, walks=8, updates=1)
    with torch.no_grad():
        for parameter in still.project.parameters():
            parameter.zero_()
    torch.testing.assert_close(imagine(still, start, walks.actions)[:, 0], start, atol=1e-4, rtol=0)
    moving = train(rooms, VARIANTS["sines and gate"], walks=64, updates=150)
    found = imagine(moving, start, walks.actions)[:, 0]
    before, after = (start - goal)[:, :2].norm(dim=-1).mean(), (found - goal)[:, :2].norm(dim=-1).mean()
    assert after < 0.7 * before
    assert torch.equal(found[:, 2:], start[:, 2:])


@pytest.mark.long
def test_every_variant_has_a_row(tmp_path, capsys):
    words = ["--updates", "2", "--walks", "8", "--episodes", "2", "--budget", "8", "--json", str(tmp_path / "j.json")]
    rows = main(words)
    assert list(rows) == [*VARIANTS, "true dynamics"]
    assert rows["true dynamics"]["believed"] == rows["true dynamics"]["achieved"]
    assert all(math.isfinite(row["8 steps"]) for row in rows.values())
    assert "true dynamics" in capsys.readouterr().out
