"""What neighbours share, against plain loops."""

import math

import numpy as np
import pytest
import torch
from short_runs import SHORT

from benchmarks import neighbours
from jepa_lightning.evaluation import Features


def labels(count, seed):
    rng = np.random.default_rng(seed)
    return {
        "direction": torch.from_numpy(rng.integers(0, 8, count)),
        "digit": torch.from_numpy(rng.integers(0, 3, count)),
        "position": torch.from_numpy(rng.uniform(0, 36, (count, 5, 2))),
    }


def test_shares_and_distances_in_plain_loops(monkeypatch):
    monkeypatch.setattr(neighbours, "K", 4)
    rng = torch.Generator().manual_seed(0)
    train = Features(torch.randn(30, 6, generator=rng), labels(30, 1))
    test = Features(torch.randn(7, 6, generator=rng), labels(7, 2))
    found = neighbours.shared(train, test)
    sums = dict.fromkeys(found, 0.0)
    for n in range(7):
        one = test.values[n]
        cosines = [float(one @ other / (one.norm() * other.norm())) for other in train.values]
        for m in sorted(range(30), key=lambda m: -cosines[m])[:4]:
            (a, b) = (of.labels["position"][row].tolist() for of, row in ((test, n), (train, m)))
            turn = (int(train.labels["direction"][m]) - int(test.labels["direction"][n])) % 8
            sums["same direction"] += turn == 0
            sums["opposite"] += turn == 4
            sums["same digit"] += bool(train.labels["digit"][m] == test.labels["digit"][n])
            middle = [[sum(place[axis] for place in path) / 5 for axis in (0, 1)] for path in (a, b)]
            sums["mean place"] += math.dist(*middle)
            sums["first place"] += math.dist(a[0], b[0])
            sums["path"] += sum(map(math.dist, a, b)) / 5
    assert found == pytest.approx({name: value / 28 for name, value in sums.items()})


def test_whitened_features_have_a_unit_covariance():
    train, test = torch.randn(200, 5) * torch.tensor([9.0, 5.0, 3.0, 1.0, 0.1]) + 7, torch.randn(20, 5)
    white, asked = neighbours.whiten(train, test, components=3)
    torch.testing.assert_close(white.T @ white / 200, torch.eye(3), atol=1e-3, rtol=0)
    assert asked.shape == (20, 3)
    assert float(neighbours.centre(train, test)[0].mean(0).abs().max()) < 1e-4


def test_the_table_of_a_run(tmp_path, capsys):
    rng = np.random.default_rng(0)
    clips = {"video": rng.integers(0, 255, (40, 16, 32, 32), dtype=np.uint8)}
    positions = rng.uniform(0, 30, (40, 16, 2)).astype(np.float32)
    clips |= {"direction": np.arange(40) % 8, "digit": np.arange(40) % 3, "position": positions}
    np.savez(tmp_path / "train.npz", **clips)
    from jepa_lightning.cli.lightning_cli import JEPACLI
    from jepa_lightning.config.plugins import load_plugins

    load_plugins()
    data = ["--data.root", str(tmp_path), "--data.labels", "[direction]", "--data.val_fraction", "0.25"]
    folder = ["--trainer.default_root_dir", str(tmp_path / "run")]
    JEPACLI(["fit", "--config", "video.yaml", *SHORT, *data, *folder])
    rows = neighbours.main([str(tmp_path / "run"), "--pooling", "quarters"])
    assert [row[0].split(": ")[-1] for row in rows] == ["trained", "untrained", "mean frame", "clips drawn at random"]
    assert all(len(row) == 10 for row in rows)
    assert all(0 <= float(value) <= 1 for row in rows[:3] for value in row[1:7])
    assert "whitened" in capsys.readouterr().out
