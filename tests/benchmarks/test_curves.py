"""Drawings of a run's curves."""

import re
import xml.etree.ElementTree as ET

import pytest

from benchmarks.curves import draw, main, read

ROWS = """step,probe/knn,probe/knn_untrained,probe/linear,probe/linear_untrained,collapse/effective_rank,train/loss
24,,,,,12.5,0.9
49,0.4,0.2,0.6,0.3,20.0,nan
99,0.5,0.2,0.7,0.3,30.0,0.7
"""


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "smell"
    folder.mkdir()
    (folder / "metrics.csv").write_text(ROWS)
    return folder


def test_metrics_are_read_where_they_have_numbers(run):
    found = read(run / "metrics.csv")
    assert found["probe/knn"] == [(49, 0.4), (99, 0.5)]
    assert found["collapse/effective_rank"] == [(24, 12.5), (49, 20), (99, 30)]
    assert found["train/loss"] == [(24, 0.9), (99, 0.7)]


def test_two_panels_within_the_drawing(run, tmp_path, capsys):
    main([str(run), "--out", str(tmp_path / "docs")])
    path = tmp_path / "docs" / "curves_smell.svg"
    assert capsys.readouterr().out.strip() == str(path)
    svg = ET.fromstring(path.read_text())
    width, height = float(svg.get("width")), float(svg.get("height"))
    words = "".join(svg.itertext())
    for name in ("smell.yaml", "linear probe, accuracy", "kNN, accuracy", "effective rank", "dashed: untrained"):
        assert name in words
    circles = [(float(c.get("cx")), float(c.get("cy"))) for c in svg.iter("{http://www.w3.org/2000/svg}circle")]
    assert len(circles) == 3 + 3 + 3  # each probe also begins with its untrained figure
    assert all(0 < x < width and 0 < y < height for x, y in circles)
    assert len(re.findall("dash", path.read_text().replace("dashed: untrained", ""))) >= 2


def test_a_run_without_labels_has_its_rank_alone():
    words = draw({"collapse/effective_rank": [(0.0, 3.0), (10.0, 5.0)]}, title="x")
    assert "optimiser step" in words
    assert "accuracy" not in words


def test_what_is_no_run_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert "expected a run's folder with a metrics.csv" in capsys.readouterr().err
    (tmp_path / "metrics.csv").write_text("step,other\n1,2\n")
    with pytest.raises(ValueError, match="got step, other"):
        read(tmp_path / "metrics.csv")
