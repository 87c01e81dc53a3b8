"""`benchmarks.levels`: the plans reach equally far, and it trains, plans and prints."""

import math

import pytest

import jepa_lightning
from benchmarks.levels import STEPS, STRIDES, horizons, main, planners
from jepa_lightning.evaluation.probes.protocols import wilson


@pytest.mark.parametrize("depth", STRIDES)
def test_all_plans_of_a_depth_see_as_many_steps(depth):
    found = planners(depth, 16)
    assert [cost.level for _, cost, _ in found.values()] == [*range(1, depth + 1), *([1] if depth > 1 else [])]
    for planner, _, execute in found.values():
        assert execute % planner.hold == 0
        steps = getattr(planner, "horizons", [planner.horizon])
        assert steps[-1] * math.prod(STRIDES[depth][: len(steps) - 1]) == STEPS
    for level, stride in enumerate(STRIDES[depth]):
        assert horizons(depth)[level] % stride == 0


@pytest.mark.long
def test_it_trains_plans_and_prints(tmp_path, capsys):
    small = ["--trainer.max_epochs", "-1", "--trainer.max_steps", "2", "--data.episodes", "40", "--data.windows", "1"]
    quick = ["--episodes", "2", "--budget", "10", "--samples", "8"]
    found = main([*quick, "--out", str(tmp_path), "--json", str(tmp_path / "found.json"), *small])["rows"]
    assert [len(reports) for reports in found.values()] == [1, 3, 4, 5]
    assert jepa_lightning.load_world(tmp_path / "0" / "3").pretext.strides == (4, 2)
    assert jepa_lightning.load_world(tmp_path / "0" / "4").pretext.strides == (2, 2, 2)
    said = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for depth, reports in found.items():
        for name, report in reports.items():
            row = report["rows"]["world"]
            low, high = wilson(row["reached"], row["episodes"])
            line = next(line for line in said if line.startswith(f"{depth} {name} "))
            assert f"{100 * row['success']:.0f}% [{100 * low:.0f}, {100 * high:.0f}]" in line
    for name in ("random", "towards", "oracle"):
        assert any(line.startswith(f"- {name} ") for line in said)
