"""The curves of a run, read from its metrics.csv."""

import pytest

from jepa_lightning.evaluation.report.metrics import Line, panels, read_metrics

ROWS = """epoch,step,train/loss,collapse/effective_rank,probe/knn,probe/knn_untrained,probe/r2_size
0,10,0.9,,,,
0,20,0.5,7.5,0.4,0.2,0.3
0,40,nan,9,inf,,x
"""


def test_metrics_are_read_where_they_have_numbers(tmp_path):
    (tmp_path / "metrics.csv").write_text(ROWS)
    found = read_metrics(tmp_path / "metrics.csv")
    assert found["train/loss"] == ([10, 20], [0.9, 0.5])
    assert found["collapse/effective_rank"] == ([20, 40], [7.5, 9])
    loss, accuracy, r2, rank = panels(found)
    assert [panel.label for panel in (loss, accuracy, r2, rank)] == [
        *("loss", "accuracy of probes", "R2 of ridge probes", "effective rank")
    ]  # fmt: skip
    assert accuracy.lines == [Line("kNN, accuracy", [0, 20], [0.2, 0.4], 0.2)]  # begins untrained
    assert r2.lines == [Line("size", [20], [0.3])]
    assert panels(found, loss=False) == [accuracy, r2, rank]


@pytest.mark.parametrize("text", ["", "step,other\n1,2\n", "step,train/loss\n1,nan\n", "train/loss\n1\n"])
def test_files_without_curves_are_refused(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(ValueError, match="expected numbers in one of the columns train/loss"):
        read_metrics(tmp_path / "metrics.csv")
