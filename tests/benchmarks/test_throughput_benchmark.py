import json
import math

import pytest
import torch

from benchmarks import throughput
from jepa_lightning.config.plugins import load_plugins


@pytest.mark.long
def test_throughput_writes_its_figures(tmp_path, capsys, monkeypatch):
    small = throughput.Size(image=48, patch=8, encoder=(32, 1, 1), predictor=(32, 1, 1), batch=4)
    monkeypatch.setitem(throughput.SIZES, "cpu", {"image.yaml": small, "larger one": small})
    file = tmp_path / "f.json"
    throughput.main(["--steps", "4", "--files", "8", "--model", "image.yaml", "--json", str(file)])
    results = json.loads(file.read_text())["results"]
    assert list(results) == ["image.yaml, memory", "image.yaml, decoded before", "image.yaml, JPEG"]
    for found in results.values():
        assert found["steps"] == 4
        assert found["share"] == pytest.approx(found["samples_per_second"] / found["bare_samples_per_second"])
        assert 0.001 < found["share"] < 3
    assert results["image.yaml, JPEG"]["share"] < results["image.yaml, memory"]["share"]  # which decodes nothing
    said = capsys.readouterr().out
    assert "share" in said
    assert "image.yaml, JPEG" in said


def test_both_have_the_same_model(tmp_path):
    """The run's model has the weights' shapes of the bare loop's, and as many steps."""
    load_plugins()
    size = throughput.OF_IMAGE_YAML
    args = type("Args", (), {"workers": 0, "device": "cpu", "steps": 2, "files": 8, "fast": False})
    seen = []
    bare = throughput.Bare(size, 5, device=torch.device("cpu"), bf16=False)
    times = throughput.run(size, "memory", lambda step: seen.append(step), args, root=tmp_path, folder=tmp_path)
    assert seen == [0, 1, 2, 3, 4]
    assert len(times.ours) == len(times.theirs) == 5
    assert all(math.isfinite(each) and each > 0 for each in times.ours[1:])
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    trained = {name: value.shape for name, value in saved.items() if not name.startswith("target")}
    own = {name: value.shape for name, value in bare.model.state_dict().items() if not name.startswith("target")}
    assert trained == own
