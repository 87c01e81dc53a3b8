"""`benchmarks.world`: what it changes in world.yaml, and that it trains, plans and prints."""

import json

import pytest
import yaml

import jepa_lightning
from benchmarks.world import BATCHES, PLANNERS, VARIANTS, main, regularizers
from jepa_lightning.config.shipped import shipped
from jepa_lightning.evaluation.probes.protocols import wilson


def listed(words):
    return {given["class_path"]: given["init_args"] for given in json.loads(words[1])}


def test_unchanged_they_are_the_regularizers_of_the_shipped_configuration():
    given = yaml.safe_load(shipped()["world.yaml"].read_text())["model"]["regularizers"]
    assert listed(regularizers()) == {part["class_path"]: part["init_args"] for part in given}


def test_each_variant_changes_one_thing():
    whole = listed(regularizers())
    for name, words in VARIANTS.items():
        if words[:1] == ["--model.regularizers"]:
            found = listed(words)
            changed = [term for term in whole if found.get(term) != whole[term]]
            assert len(changed) == 1, name
            if changed[0] in found:
                assert sum(found[changed[0]][key] != value for key, value in whole[changed[0]].items()) == 1


@pytest.mark.long
def test_it_trains_plans_and_prints(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("benchmarks.world.BATCHES", BATCHES[:2])
    words = ["--trainer.max_epochs", "-1", "--trainer.max_steps", "2", "--data.episodes", "40", "--data.windows", "1"]
    only = ["world.yaml", "1 step in a row, of 6"]
    given = ["--seeds", "0", "--episodes", "2", "--out", str(tmp_path), "--json", str(tmp_path / "found.json")]
    found = main([*given, *words, "--only", *only])
    assert set(found["rows"]) == {*only, *PLANNERS}
    steps = [
        jepa_lightning.load_world(tmp_path / "0" / folder).pretext.steps
        for folder in ("world_yaml", "1_step_in_a_row__of_6")
    ]
    assert steps == [6, 1]
    said = capsys.readouterr().out
    for name, (report,) in found["rows"].items():
        row = report["rows"]["world"]
        low, high = wilson(round(row["success"] * row["episodes"]), row["episodes"])
        line = next(line for line in said.splitlines() if line.strip("| ").startswith(name) and "%" in line)
        assert f"{100 * row['success']:.1f}% [{100 * low:.1f}, {100 * high:.1f}]" in line
    assert len(found["speed"]) == 3
    assert min(found["speed"].values()) > 0
