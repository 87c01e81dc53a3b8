"""Drawings of a run's curves."""

import xml.etree.ElementTree as ET

import pytest

from benchmarks.curves import main

ROWS = """step,probe/knn,probe/knn_untrained,probe/linear,probe/linear_untrained,collapse/effective_rank,train/loss
24,,,,,12.5,0.9
49,0.4,0.2,0.6,0.3,20.0,nan
99,0.5,0.2,0.7,0.3,30.0,0.7
"""


def words(path):
    return {"".join(text.itertext()).strip() for text in ET.parse(path).iter("{http://www.w3.org/2000/svg}text")}


def test_probes_and_rank_of_a_run(tmp_path, capsys):
    run = tmp_path / "smell"
    run.mkdir()
    (run / "metrics.csv").write_text(ROWS)
    main([str(run), "--out", str(tmp_path / "docs")])
    path = tmp_path / "docs" / "curves_smell.svg"
    assert capsys.readouterr().out.strip() == str(path)
    found = words(path)
    assert {"smell.yaml", "linear probe, accuracy", "kNN, accuracy", "effective rank", "untrained"} <= found
    assert "loss" not in found
    first = path.read_bytes()
    main([str(run), "--out", str(tmp_path / "docs")])
    assert path.read_bytes() == first


def test_a_run_without_labels_has_its_rank_alone(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,collapse/effective_rank\n0,3\n10,5\n")
    main([str(tmp_path), "--out", str(tmp_path)])
    found = words(tmp_path / f"curves_{tmp_path.name}.svg")
    assert {"effective rank", "optimiser step"} <= found
    assert "accuracy of probes" not in found


def test_what_is_no_run_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert "expected a run's folder with a metrics.csv" in capsys.readouterr().err
    (tmp_path / "metrics.csv").write_text("step,other\n1,2\n")
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert "got step, other" in capsys.readouterr().err
