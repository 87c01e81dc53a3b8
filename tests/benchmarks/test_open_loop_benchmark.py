"""`benchmarks.open_loop`: readouts and errors of a world whose states are those of the dot itself."""

import pytest
import torch

from benchmarks.open_loop import errors, floors, linear, main, mlp
from jepa_lightning.cli.fit import fit
from jepa_lightning.environments import TwoRooms


class Straight:
    """A world that sees the true state, and knows of no wall."""

    def encode(self, observations):
        return observations.unsqueeze(1)

    def past(self, states):
        return states

    def imagine(self, past, actions):
        moved = past[:, :, :2] + actions[:, 0].cumsum(1)
        layout = past[:, :, 2:].expand(-1, moved.shape[1], -1)
        return torch.cat([moved, layout], dim=-1)[:, None, :, None]


class Bare(TwoRooms):
    """Two Rooms that is observed as it is."""

    def observe(self, states):
        return states


def test_a_world_without_walls_errs_as_the_sum_of_actions():
    rooms = Bare()
    walks = rooms.wander(50, 9, torch.Generator().manual_seed(0))
    found = errors(Straight(), rooms, walks.states, walks.actions, lambda states: states)
    floor = floors(walks.states, walks.actions)
    assert found["after 8 steps"] == pytest.approx(floor["sum of actions"], rel=1e-4)
    assert found["R2 x"] == 1
    squares, count, hit = 0.0, 0, 0
    for states, actions in zip(walks.states.tolist(), walks.actions.tolist(), strict=True):
        x, y = states[0][:2]
        stopped = False
        for t, (dx, dy) in enumerate(actions):
            x, y = x + dx, y + dy
            ahead = (states[t][0] + dx, states[t][1] + dy)
            stopped |= max(abs(ahead[0] - states[t + 1][0]), abs(ahead[1] - states[t + 1][1])) > 1e-2
        if stopped:
            squares += (x - states[-1][0]) ** 2 + (y - states[-1][1]) ** 2
            count += 2
        hit += stopped
    assert 3 < hit < 47
    assert found["after 8 steps, wall met"] == pytest.approx((squares / count) ** 0.5, rel=0.02)


@pytest.mark.long
def test_readouts_find_what_is_there():
    generator = torch.Generator().manual_seed(0)
    known = 30 * torch.rand(1500, 2, generator=generator)
    seen = torch.cat([known @ torch.tensor([[1.0, 0.5], [0.2, -1.0]]), torch.randn(1500, 1, generator=generator)], 1)
    assert (linear(seen, known)(seen) - known).abs().max() < 0.05
    curved = torch.cat([seen, (known[:, :1] / 5).sin()], 1)
    asked = (known[:, :1] / 5).cos() * 10
    ridge, net = linear(curved, asked)(curved) - asked, mlp(curved, asked, steps=1500)(curved) - asked
    assert net.square().mean() < 0.2 * ridge.square().mean()


@pytest.mark.long
def test_it_measures_a_run(tmp_path, capsys):
    small = ["--data.episodes=16", "--data.window=8", "--data.windows=1", "--data.batch_size=4", "--data.num_workers=0"]
    quiet = ["--trainer.max_steps=2", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
    run = tmp_path / "run"
    fit(["--config", "recipes/world_two_rooms", *small, *quiet, f"--trainer.default_root_dir={run}"])
    found = main(
        [str(run), "--walks", "6", "--fit", "20", "--steps", "4", "--updates", "3", "--json", str(tmp_path / "j")]
    )
    assert set(found[str(run)]) == {"linear", "MLP", "floors"}
    said = capsys.readouterr().out
    assert "the sum of actions is off by" in said
    assert "after 4 steps, wall met" in said
