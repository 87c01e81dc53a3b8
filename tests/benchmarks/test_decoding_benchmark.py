import json

import pytest

pytest.importorskip("av")

from benchmarks import decoding


def test_decoding_writes_its_figures(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(decoding, "SIZE", (48, 64))
    file = tmp_path / "f.json"
    decoding.main(["--seconds", "1", "3", "--repeats", "2", "--json", str(file)])
    results = json.loads(file.read_text())["results"]
    assert results["pyav, stride 4, 3 s, clip"]["ms"] > 0
    assert "stride 1: a random clip of the 3 s file takes" in capsys.readouterr().out
    decoding.write_video(tmp_path / "own.mp4", seconds=1)
    decoding.main(["--root", str(tmp_path), "--repeats", "1", "--json", str(file)])
    assert "pyav, stride 1, files, whole" in json.loads(file.read_text())["results"]
