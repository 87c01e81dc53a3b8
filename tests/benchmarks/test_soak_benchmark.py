import json
import mmap
import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import soak


def test_a_line_through_memory_that_grows():
    rng = np.random.default_rng(0)
    seconds = np.arange(600.0)
    for slope in (0.0, 90.0):
        found = soak.fit_line(seconds, 500 + slope * seconds / 3600 + rng.normal(0, 0.5, 600))
        assert found["low"] < slope < found["high"]
        assert found["high"] - found["low"] < 10
        assert (found["low"] > 0) == (slope > 0)
    with pytest.raises(ValueError, match="expected at least 40 readings, got 5"):
        soak.fit_line(seconds[:5], seconds[:5])


def test_readings_with_other_child_processes_are_left_out():
    """Two workers that come and go for a probe, the longer the run the more memory they hold, are no growth."""
    rows = []
    for second in range(900):
        probing = second % 30 < 5
        rows.append((float(second), 1_000_000_000, 4_000_000_000 + probing * 1_000_000 * second, 8 if probing else 6))
    found = soak.lines(rows)
    assert found["its workers together"]["mb_an_hour"] == pytest.approx(0, abs=1e-6)
    assert found["its workers together"]["mean"] == 4000


def test_an_interval_holds_the_slope_as_often_as_it_says():
    """Also where readings that follow each other are alike."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        noise = np.convolve(rng.normal(size=2009), np.ones(10), "valid")
        found = soak.fit_line(np.arange(2000.0), noise)
        held += found["low"] < 0 < found["high"]
    assert held > 178


def test_resident_memory_of_a_process_and_its_children():
    before = soak.resident(os.getpid())
    assert before > 1e7
    grown = np.frombuffer(mmap.mmap(-1, 40_000_000), dtype=np.uint8)  # new pages; an array may get ones that were freed
    grown[:] = 1
    assert soak.resident(os.getpid()) - before > 3e7
    assert grown.all()
    code = "import sys; held = bytearray(50_000_000); print(flush=True); sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    assert child.pid in soak.children(os.getpid())
    assert soak.resident(child.pid) > 4.5e7
    child.communicate()
    assert child.pid not in soak.children(os.getpid())
    assert soak.resident(child.pid) == 0


@pytest.mark.long
def test_soak_writes_its_figures(tmp_path, capsys):
    file = tmp_path / "f.json"
    words = ["--minutes", "0.1", "--every", "0.05", "--workers", "1", "--json", str(file)]
    settings = {"data.samples": 64, "data.batch_size": 16, "probe.enabled": "false", "pictures.enabled": "false"}
    settings |= {"trainer.limit_val_batches": 0, "trainer.num_sanity_val_steps": 0}
    soak.main([*words, *(w for name, value in settings.items() for w in ("--set", name, str(value)))])
    found = json.loads(file.read_text())
    assert found["results"]["main process"]["mean"] > 100
    assert found["results"]["its workers together"]["mean"] > 50
    assert found["results"]["steps"] > 1
    assert "MB an hour" in capsys.readouterr().out
