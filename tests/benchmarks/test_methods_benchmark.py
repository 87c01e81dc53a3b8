"""`benchmarks.methods`: every method's configuration can be built, and a small run gives the table."""

import json

import numpy as np
import pytest
from PIL import Image

from benchmarks import methods
from benchmarks.methods import METHODS, rows_of
from jepa_lightning.cli.fit import fit


@pytest.mark.parametrize("name", METHODS)
def test_configurations_parse(name, capsys):
    config, words = METHODS[name]
    with pytest.raises(SystemExit) as stop:
        fit(["--config", config, *words, "--print_config"])
    assert stop.value.code in (0, None)
    printed = capsys.readouterr().out
    for changed in ("RawTokens", "Online", "SIGReg", "VISReg", "Random"):
        assert (changed in printed) >= any(changed in word for word in words)


def test_a_small_run(tmp_path, capsys):
    generator = np.random.default_rng(0)
    for split, count in (("train", 60), ("test", 20)):
        for number in range(count):
            path = tmp_path / "cifar10_jpg" / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 128, (32, 32, 3), dtype=np.uint8)
            pixels[:, 16 * (number % 2) :][:, :16] += 128
            Image.fromarray(pixels).save(path)
    words = ["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--json", str(tmp_path / "methods.json")]
    words += ["--minutes", "0.001", "--methods", "views_vicreg", "--split", "test", "--data.batch_size", "16"]
    (found,) = methods.main(words)
    assert found["steps"] >= 1
    assert found["samples"] == 16 * found["steps"]
    assert all(0 <= found[column] <= 1 for column in methods.COLUMNS)
    assert "views_vicreg" in capsys.readouterr().out
    assert methods.main(words) == [found]  # nothing was trained again
    assert json.loads((tmp_path / "methods.json").read_text())

    both = ["views_vicreg", "raw", "--split"]
    words[words.index("views_vicreg") : words.index("--split") + 1] = both
    trained, raw = methods.main(words)
    assert trained == found
    assert set(raw) & set(methods.COLUMNS) == {"trained knn", "trained logistic"}
    assert raw["trained knn"] == raw["trained logistic"] == 1.0  # each class is bright in a half of its own
    row = capsys.readouterr().out.splitlines()[-1].split()
    assert (row[0], row.count("-")) == ("raw", len(methods.COLUMNS) - 2)  # no encoder, no quarters


def test_rows_are_means_over_seeds():
    same = {"method": "a", "steps": 3, "samples": 6, "cpu_seconds": 90.0, **dict.fromkeys(methods.COLUMNS, 0.5)}
    other = {**same, "trained knn": 0.7}
    (row,) = rows_of([same, other])
    assert row[:5] == ["a", "2", "1.5", "3", "6"]
    expected = dict.fromkeys(methods.COLUMNS, "0.500 ± 0.000") | {"trained knn": "0.600 ± 0.141"}
    assert row[5:] == list(expected.values())
