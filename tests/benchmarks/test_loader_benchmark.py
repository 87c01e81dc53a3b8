import json

from benchmarks import loader


def test_loader_writes_its_figures(tmp_path, capsys):
    file = tmp_path / "f.json"
    loader.main(["--only", "image", "jpeg", "--samples", "64", "--files", "4", "--repeats", "1", "--json", str(file)])
    results = json.loads(file.read_text())["results"]
    assert len(results) == 5
    assert all(found["ms_a_sample"] > 0 for found in results.values())
    assert "JPEG 500x375 to 224 px, torchvision" in capsys.readouterr().out
