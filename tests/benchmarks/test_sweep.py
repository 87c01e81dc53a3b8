"""`benchmarks.sweep`: what is tried, in what order it is halved, what is scored, and nothing twice."""

import json

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.utilities.exceptions import SIGTERMException
from test_repeated_splits import clouds, write_clouds

from benchmarks import sweep
from benchmarks.sweep import draw_settings, read_space, rounds
from jepa_lightning.evaluation.probes import protocols

WIDTH, RATE = "model.modality.init_args.encoder.init_args.width", "model.learning_rate"


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def write_space(path, space):
    path.write_text(yaml.safe_dump(space, sort_keys=False))
    return path


@pytest.fixture
def words(tmp_path, monkeypatch):
    monkeypatch.setattr(protocols, "C_GRID", (0.1, 1.0))  # most of the time
    monkeypatch.setattr(protocols, "_INNER_FOLDS", 2)
    (tmp_path / "clouds").mkdir()
    write_clouds(tmp_path / "clouds" / "train.h5", [0, 1] * 20, seed=0)
    write_clouds(tmp_path / "clouds" / "test.h5", [0, 1] * 3, seed=1)
    encoder = {"class_path": "ViT", "init_args": {"width": 16, "depth": 1, "heads": 2}}
    modality = {"points": 32, "groups": 8, "group_size": 8, "encoder": encoder}
    predictor = {"class_path": "TransformerPredictor", "init_args": {"width": 8, "depth": 1, "heads": 2}}
    data = {"batch_size": 6, "val_fraction": 0.25, "num_workers": 0}
    recipe = {
        "model": {"modality": {"class_path": "PointCloud", "init_args": modality}, "predictor": predictor},
        "data": {"class_path": "PointCloudData", "init_args": data},
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "devices": 1, "log_every_n_steps": 1},
    }
    (tmp_path / "clouds.yaml").write_text(yaml.safe_dump(recipe))
    space = {
        "axis": [{"name": "about z", "data.rotation": "z"}, {"name": "none", "data.rotation": "none"}],
        WIDTH: [16, 24],
    }
    return [
        *("--recipe", str(tmp_path / "clouds.yaml"), "--space", str(write_space(tmp_path / "space.yaml", space))),
        *("--budget", "0.01", "--settings", "3", "--out", str(tmp_path / "out"), "--json", str(tmp_path / "out.json")),
        *("--data.root", str(tmp_path / "clouds")),
    ]


def test_rounds_halve_runs_and_share_the_budget():
    assert rounds(9, 27) == [(9, 1.0), (3, 3.0), (1, 9.0)]
    assert rounds(1, 5) == [(1, 5.0)]
    assert [count for count, _ in rounds(20, 1)] == [20, 6, 2, 1]
    assert rounds(20, 12, most=2) == [(20, 0.3), (6, 1.0)]
    for count in range(1, 40):
        plan = rounds(count, 7.0)
        assert sum(runs * minutes for runs, minutes in plan) == pytest.approx(7.0)
        assert plan[-1][0] == 1


def test_settings_are_all_combinations_or_different_ones_at_random(tmp_path):
    overlays = [{"name": "a", "data.rotation": "z", "data.points": 8}, {"name": "b"}]
    space = read_space(write_space(tmp_path / "s.yaml", {"kind": overlays, RATE: [0.1, {"class_path": "X"}, 0.3]}))
    everything = draw_settings(space, None, seed=0)
    assert [tuple(map(str, s.chosen.values())) for s in everything] == [
        (kind, rate) for kind in "ab" for rate in ("0.1", "{'class_path': 'X'}", "0.3")
    ]
    assert everything[1].arguments == [
        *("--data.rotation", "z", "--data.points", "8", f"--{RATE}", '{"class_path": "X"}')
    ]
    assert everything[3].words == {RATE: 0.1}
    some = [draw_settings(space, 4, seed=seed) for seed in (0, 0, 1, 2, 3)]
    assert some[0] == some[1]
    assert any(other != some[0] for other in some[2:])
    assert all(len({str(s.words) for s in drawn}) == 4 and all(s in everything for s in drawn) for drawn in some)
    assert draw_settings(space, 6, seed=5) == everything


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ([1, 2], "expected names with lists of values"),
        ({"data.points": 3}, r"expected a list of at least one value for 'data.points', got 3: write \[3\]"),
        ({"data.points": []}, "at least one value"),
        ({"points": [3, 4]}, "expected overlays with a name for 'points'"),
        ({"views": [{"name": "z", "rotation": "z"}]}, "expected full names of settings, .* in 'views', got 'rotation'"),
    ],
)
def test_a_space_that_cannot_be_used_is_named(tmp_path, space, message):
    with pytest.raises(ValueError, match=message):
        read_space(write_space(tmp_path / "s.yaml", space))


@pytest.mark.long
def test_a_small_sweep_is_logged_and_resumed(words, tmp_path, monkeypatch, capsys):
    lines = sweep.main(words)
    assert [line["round"] for line in lines] == [1, 0, 0, 0]
    first = [line for line in lines if line["round"] == 0]
    gains = [np.mean([found["gain"] for found in line["scores"].values()]) for line in first]
    assert gains == sorted(gains, reverse=True)
    assert lines[0]["words"] == first[0]["words"]  # the best one goes on, three times as long
    assert lines[0]["minutes"] == pytest.approx(3 * first[0]["minutes"], abs=1e-5)
    for line in lines:
        assert line["steps"] >= 1
        assert line["seconds"] > 0
        assert set(line["words"]) == {"data.rotation", WIDTH}
        for found in line["scores"].values():
            assert found["gain"] == pytest.approx(found["trained"] - found["untrained"])
            assert found["low"] <= found["gain"] <= found["high"]
    printed = capsys.readouterr().out
    assert "best: --data.root" in printed
    assert {"rotation", "about", "width"} & set(printed.split())

    log = tmp_path / "out" / "log.jsonl"
    kept = log.read_text().splitlines()
    assert sorted(map(json.loads, kept), key=str) == sorted(lines, key=str)
    assert json.loads((tmp_path / "out.json").read_text())["results"]["runs"] == lines

    measured = []
    original = sweep.measure
    monkeypatch.setattr(sweep, "measure", lambda job: measured.append(job) or original(job))
    assert sweep.main(words) == lines
    assert not measured
    log.write_text("\n".join([*kept[:-1], kept[-1][:40]]))  # cut off in the middle of its last line
    again = sweep.main(words)
    assert len(measured) == 1
    assert [line["words"] for line in again] == [line["words"] for line in lines]
    sweep.main([*words, "--seed", "1", "--settings", "1"])
    assert len(measured) == 2  # another seed is another sweep, in the same log


@pytest.mark.long
def test_held_out_samples_are_not_trained_on_and_the_test_split_is_not_read(words, tmp_path, monkeypatch):
    runs = []
    original = sweep.score

    def watched(run, *args, **kwargs):
        runs.append(run)
        return original(run, *args, **kwargs)

    monkeypatch.setattr(sweep, "score", watched)
    monkeypatch.setattr("modalities.pointcloud.PointCloudData.test_dataloader", None)
    (tmp_path / "more").mkdir()
    write_clouds(tmp_path / "more" / "train.h5", [0, 1] * 3, seed=2)
    views = ["--data.view_transform", "PointCloudViews", "--data.view_transform.dropout", "0.5"]
    sweep.main([*words, "--settings", "1", "--extra", str(tmp_path / "more"), *views])
    run = runs[0]
    assert run.datamodule.training_transform.dropout == 0.5
    used, held = run.datamodule.part("train"), run.datamodule.part("val")
    assert (len(used), len(held)) == (30 + 6, 10)
    own = run.data()
    assert clouds([held.dataset[i] for i in held.indices]) == clouds(
        [own.part("val").dataset[i] for i in own.part("val").indices]
    )
    assert not clouds([used.dataset[i] for i in used.indices]) & clouds([held.dataset[i] for i in held.indices])
    assert [used.dataset[i]["labels"] for i in range(30, 36)] == [None] * 6


@pytest.mark.long
def test_a_setting_that_fails_is_named_and_out(words, tmp_path, capsys):
    write_space(tmp_path / "space.yaml", {"data.points": [32, 4]})  # fewer points than groups
    lines = sweep.main([*words, "--protocol", "repeated", "--repeats", "2", "--by", "trained"])
    assert {line["words"]["data.points"] for line in lines} == {32}
    assert "points 4: " in capsys.readouterr().out
    failed = [line for line in sweep.read_log(tmp_path / "out" / "log.jsonl") if "error" in line]
    assert [line["words"] for line in failed] == [{"data.points": 4}]
    write_space(tmp_path / "space.yaml", {"data.points": [4], "data.no_such": [5]})
    with pytest.raises(SystemExit) as stop:
        sweep.main(words)
    assert stop.value.code == 2
    assert "all 1 runs of round 1 failed" in capsys.readouterr().err


@pytest.mark.parametrize("stopped", [SystemExit(1), SIGTERMException(), KeyboardInterrupt()], ids=repr)
def test_a_sweep_that_is_stopped_ends_and_can_be_resumed(words, tmp_path, monkeypatch, stopped):
    def stop(*args, **kwargs):
        raise stopped

    monkeypatch.setattr(sweep, "train_for", stop)
    with pytest.raises(type(stopped)):
        sweep.main(words)
    assert sweep.read_log(tmp_path / "out" / "log.jsonl") == []


@pytest.mark.parametrize("wrong", ["--budget 0", "--label-share 2", "--jobs 0", "--space none.yaml"])
def test_wrong_options_end_with_a_line(words, wrong, capsys):
    with pytest.raises(SystemExit) as stop:
        sweep.main([*words, *wrong.split()])
    assert stop.value.code == 2
    assert wrong.removeprefix("--").split()[0].split("-")[0] in capsys.readouterr().err


@pytest.mark.long
def test_runs_beside_each_other_give_the_same_settings(words, tmp_path):
    lines = sweep.main([*words, "--jobs", "2", "--rounds", "1"])
    assert len(lines) == len({json.dumps(line["words"]) for line in lines}) == 3
    assert all(line["scores"] for line in lines)
