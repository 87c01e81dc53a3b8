"""The benchmark of the point clouds' geometry, at a small size."""

import json

import pytest
import torch

from benchmarks import pointcloud

SIZES = {"points": 64, "groups": 8, "group-size": 4, "width": 24, "depth": 1, "heads": 2, "step-batch": 2}
SIZES |= {"predictor-width": 12, "predictor-depth": 1, "predictor-heads": 2, "steps": 1, "repeats": 1}
SMALL = [word for name, value in SIZES.items() for word in (f"--{name}", str(value))] + ["--batch", "1", "2"]


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_it_writes_the_share_of_a_step(tmp_path, capsys):
    file = tmp_path / "figures.json"
    pointcloud.main([*SMALL, "--json", str(file)])
    results = json.loads(file.read_text())["results"]
    assert set(results["geometry"]) == {"1", "2"}
    most = max(parts["together"]["cloud_ms"] for parts in results["geometry"].values())
    assert results["share"] == pytest.approx(most / results["step"]["cloud_ms"])
    assert f"{results['share']:.1%} of a step" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--batch", "4", "0"], "--batch must be at least 1"), (["--points", "7"], "points must be at least 8")],
)
def test_options_that_do_not_fit(options, message, capsys):
    with pytest.raises(SystemExit) as ended:
        pointcloud.main([*SMALL, *options])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
