"""`benchmarks.scaling`: runs on fewer samples and minutes, joined over seeds, in a table and a drawing."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from test_sweep import _threads, words  # noqa: F401  # the small clouds

from benchmarks import scaling, sweep
from benchmarks.scaling import draw, points


def texts(path):
    return {"".join(text.itertext()).strip() for text in ET.parse(path).iter("{http://www.w3.org/2000/svg}text")}


@pytest.fixture
def given(words, tmp_path):  # noqa: F811
    taken = words[words.index("--recipe") :][:2] + words[words.index("--data.root") :]
    taken += ["--out", str(tmp_path / "out"), "--json", str(tmp_path / "scaling.json"), "--split", "val"]
    return [*taken, "--minutes", "0.002", "0.004", "--samples", "12", "--seeds", "0", "1"]


@pytest.mark.long
def test_a_small_grid(given, tmp_path, monkeypatch, capsys):
    trained, original = [], sweep.score

    def watched(run, *args, **kwargs):
        part = run.datamodule.part("train")
        trained.append((len(part), frozenset(part.indices.tolist()), len(run.data().part("probe"))))
        return original(run, *args, **kwargs)

    monkeypatch.setattr(sweep, "score", watched)
    found = scaling.main(given)
    runs = json.loads((tmp_path / "scaling.json").read_text())["results"]["runs"]
    assert [(p["samples"], p["minutes"], p["probe"]) for p in found] == [
        (12, minutes, probe) for minutes in (0.002, 0.004) for probe in ("knn", "logistic")
    ]
    assert [count for count, _, _ in trained] == [12] * 4
    assert len({rows for _, rows, _ in trained}) == 2  # other samples for another seed
    assert {labelled for _, _, labelled in trained} == {30}  # probes are fitted on all
    log = sweep.read_log(tmp_path / "out" / "log.jsonl")
    assert [line["minutes"] for line in log] == [0.004, 0.004, 0.002, 0.002]  # the longest first
    for point in found:
        values = [
            run["scores"][point["probe"]]["trained"]
            for run in runs
            if (run["samples"], run["minutes"]) == (point["samples"], point["minutes"])
        ]
        assert len(values) == point["seeds"] == 2
        assert point["trained"] == pytest.approx(np.mean(values))
        assert point["trained_std"] == pytest.approx(np.std(values, ddof=1))
    assert "trained" in capsys.readouterr().out
    assert {"12 samples", "untrained", "kNN, accuracy"} <= texts(tmp_path / "out" / "scaling.svg")
    monkeypatch.setattr(sweep, "measure", None)
    assert scaling.main(given) == found


def test_seeds_are_joined_and_drawn_by_samples(tmp_path):
    def line(samples, minutes, seed, trained):
        scores = {"knn": {"trained": trained, "untrained": 0.25}}
        return {"samples": samples, "minutes": minutes, "seed": seed, "steps": 7, "seconds": 60.0, "scores": scores}

    lines = [line(100, 1.0, 0, 0.5), line(100, 1.0, 1, 0.7), line(None, 1.0, 0, 0.9)]
    few, all_samples = points(lines)
    assert (few["samples"], few["seeds"], few["trained"], few["untrained"]) == (100, 2, pytest.approx(0.6), 0.25)
    assert few["trained_std"] == pytest.approx(0.02**0.5)
    assert (all_samples["samples"], all_samples["trained"], all_samples["trained_std"]) == (None, 0.9, None)
    assert all_samples["cpu_minutes"] == 1.0
    path = tmp_path / "drawing.svg"
    path.write_text(draw([few, all_samples], "A title"))
    assert {"A title", "100 samples", "all samples", "untrained", "CPU minutes of pre-training"} <= texts(path)


def test_too_many_samples_are_named(given, capsys):
    with pytest.raises(SystemExit) as stop:
        scaling.main([*given, "--samples", "31", "--minutes", "0.002", "--seeds", "0"])
    assert stop.value.code == 2
    assert "expected 1 to 30 training samples, got 31" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        scaling.main([*given, "--minutes", "0"])
    assert "--minutes must be above 0" in capsys.readouterr().err
