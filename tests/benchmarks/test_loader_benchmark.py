import json

import pytest

from benchmarks import loader


@pytest.mark.long
def test_batches_gathered_on_the_device(tmp_path, capsys):
    file = tmp_path / "f.json"
    words = ["--only", "audio", "pointcloud", "--samples", "512", "--repeats", "1", "--on-device", "--json", str(file)]
    loader.main(words)
    results = json.loads(file.read_text())["results"]
    assert len(results) == 16
    assert sum(loader.HELD in name and found["ms_a_sample"] > 0 for name, found in results.items()) == 4


def test_loader_writes_its_figures(tmp_path, capsys):
    file = tmp_path / "f.json"
    loader.main(["--only", "image", "jpeg", "--samples", "64", "--files", "4", "--repeats", "1", "--json", str(file)])
    results = json.loads(file.read_text())["results"]
    assert len(results) == 6
    assert all(found["ms_a_sample"] > 0 for found in results.values())
    said = capsys.readouterr().out
    assert "JPEG 500x375 to 224 px, torchvision" in said
    assert "JPEG 500x375 to 224 px, decoded before" in said
