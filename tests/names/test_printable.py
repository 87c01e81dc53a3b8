"""Names with control codes steer neither a terminal nor a drawing."""

import logging
import os
import re
import xml.dom.minidom

import numpy as np
import pytest
from PIL import Image
from short_runs import IMAGE, SHORT

from jepa_lightning.cli.fit import fit
from jepa_lightning.cli.probe import probe
from jepa_lightning.cli.view import view
from jepa_lightning.data import DataError, find_files
from jepa_lightning.evaluation.report.metrics import Metrics
from jepa_lightning.evaluation.report.plots import plot_run
from jepa_lightning.evaluation.report.table import table
from jepa_lightning.names.printable import printable
from modalities.image import ImageData

NASTY = "\x1b]0;OWNED\x07\x1b[31mred\nnewline | \u202e<script>\x9b2J"
FAKE = "\x1b[2Jbroken\r\nFAKE: all is well.png"
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.mark.parametrize("code", [*range(32), *range(0x7F, 0xA0), 0x2028, 0x2029, 0x202E, 0x2066, 0xDCE9, 0xFFFF])
def test_each_code(code):
    shown = printable(f"a{chr(code)}b")
    assert shown.isascii()
    assert shown.isprintable()
    assert shown.startswith("a\\")
    assert shown.endswith("b")
    xml.dom.minidom.parseString(f"<text>{shown}</text>")


def test_what_is_kept():
    for words in ("Übung 3", "猫.png", "a\\b", "naïve 🐈", ""):
        assert printable(words) == words
    assert printable("one\n\ttwo\r", lines=True) == "one\n\ttwo\\r"


def test_tables_and_drawings():
    assert len(table([NASTY, "b"], [["c", NASTY]]).splitlines()) == 2
    metrics: Metrics = {f"probe/r2_{NASTY}": ([0.0, 1.0], [0.5, 0.6])}
    drawing = plot_run(metrics, title=NASTY, titled=True).svg
    xml.dom.minidom.parseString(drawing)
    assert not STEERING.search(drawing)


@pytest.fixture
def root(tmp_path):
    """Two class folders, one of a nasty name, with a broken file of another, and a name that is not UTF-8."""
    for name in (NASTY, "b"):
        (tmp_path / "root" / name).mkdir(parents=True)
        for number in range(16):
            picture = np.random.default_rng(number).integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / "root" / name / f"{number}.png")
    (tmp_path / "root" / "b" / FAKE).write_bytes(b"xx")
    os.rename(tmp_path / "root" / "b" / "0.png", os.fsencode(tmp_path) + b"/root/b/caf\xe9.png")
    return tmp_path / "root"


@pytest.mark.long
def test_what_the_commands_print(root, tmp_path, capsys, caplog):
    words = [word for word in SHORT if word not in ("--data.samples", "48")]
    run = tmp_path / "run"
    with caplog.at_level(logging.INFO):
        fit(["fit", "--config", "image.yaml", *words, *IMAGE, "--data.root", str(root), "--data.max_unreadable", "0.5",
             "--data.num_workers", "0", "--data.batch_size", "8", "--trainer.default_root_dir", str(run)])  # fmt: skip
        common = ["--checkpoint", str(run), "--device", "cpu", "--data.num_workers", "0"]
        probe([*common, "--out", str(tmp_path / "probe"), "--probes", "knn"])
        view(["neighbours", *common, "--out", str(tmp_path / "view")])
    printed = capsys.readouterr()
    said = "\n".join([printed.out, printed.err, *(record.getMessage() for record in caplog.records)])
    assert "skipped an unreadable sample" in said
    assert not STEERING.search(said.replace("\r", "\n"))
    assert not [line for line in said.splitlines() if line.startswith(("FAKE", "newline"))]
    for name in ("report.md", "report.html"):
        report = (tmp_path / "probe" / name).read_text()
        assert not STEERING.search(report)
        assert not [line for line in report.splitlines() if line.startswith("newline")]
    assert "<script" not in report
    assert "newline | \\u202e&lt;script&gt;" in report


def test_errors_about_folders_and_samples(root, caplog):
    data = ImageData(root=str(root), image_size=16, channels=3, num_workers=0, max_unreadable=0.0)
    with pytest.raises(DataError) as caught:
        data.setup()
    assert "FAKE" in str(caught.value)
    assert not STEERING.search(str(caught.value))
    assert not [line for line in str(caught.value).splitlines() if line.startswith("FAKE")]
    (root / f"{NASTY}2").mkdir()
    caplog.clear()
    find_files(str(root), kind="image", extensions=(".png",))
    said = [record.getMessage().replace(str(root), "") for record in caplog.records]
    assert any("without a readable image" in line for line in said)
    assert not any(STEERING.search(line) for line in said)


def test_columns_and_arrays(tmp_path):
    (tmp_path / "list.csv").write_text('path,"la\x1b[31mbel\nx"\na.png,1\n')
    (tmp_path / "a.png").write_bytes(b"xx")
    labels = ["la\\x1b[31mbel\\nx"]
    found = find_files(str(tmp_path / "list.csv"), kind="image", extensions=(".png",), labels=labels)
    assert list(found["train"].labels) == labels
