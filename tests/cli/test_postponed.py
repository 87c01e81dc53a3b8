"""What a command leaves out of torchmetrics at its start is there when it is asked for."""

import subprocess
import sys

import pytest
from processes import fresh

WHOLE = """
import sys
from jepa_lightning.cli.postponed import postpone_metrics
postpone_metrics()
import lightning.pytorch.cli
import jepa_lightning.evaluation.probes.classification, jepa_lightning.evaluation.probes.regression
found = {"transformers", "scipy.signal"} & set(sys.modules)
assert not found, found
import torchmetrics
from lightning.pytorch.core.module import Metric as known
from torchmetrics import MeanMetric, Metric
assert known is Metric and issubclass(MeanMetric, Metric)
assert torchmetrics.functional.accuracy is torchmetrics.functional.classification.accuracy
assert not hasattr(torchmetrics, "Metrik")
"""

OTHER = """
import sys
for name in [name for name in sys.modules if name.partition(".")[0] == "torchmetrics"]:
    del sys.modules[name]
sys.path.insert(0, {folder!r})
from jepa_lightning.cli.postponed import postpone_metrics
postpone_metrics()
import torchmetrics
assert torchmetrics.Metric == "of another version"
"""


@pytest.mark.long
def test_all_metrics_are_there_when_they_are_asked_for():
    done = subprocess.run([sys.executable, "-c", WHOLE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_torchmetrics_of_other_parts_is_imported_as_it_is(tmp_path):
    (tmp_path / "torchmetrics" / "functional").mkdir(parents=True)
    (tmp_path / "torchmetrics" / "__init__.py").write_text('Metric = "of another version"')
    (tmp_path / "torchmetrics" / "functional" / "__init__.py").touch()
    fresh(OTHER.format(folder=str(tmp_path)), tmp_path)
