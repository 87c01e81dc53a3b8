"""Every test is checked for what it leaves behind; here, that each kind of it is seen."""

import os
import signal
import sys

import pytest
import torch
from process_state import changes, process_state

LEAKS = {
    "variable JEPA_LEFT": (lambda: os.environ.update(JEPA_LEFT="1"), lambda: os.environ.pop("JEPA_LEFT")),
    "sys.path": (lambda: sys.path.append("/left"), lambda: sys.path.remove("/left")),
    "threads": (lambda: torch.set_num_threads(3), lambda: torch.set_num_threads(1)),
    "default dtype": (
        lambda: torch.set_default_dtype(torch.float64),
        lambda: torch.set_default_dtype(torch.float32),
    ),
    "gradients": (lambda: torch.set_grad_enabled(False), lambda: torch.set_grad_enabled(True)),
    "deterministic algorithms": (
        lambda: torch.use_deterministic_algorithms(True),
        lambda: torch.use_deterministic_algorithms(False),
    ),
    "precision of products": (
        lambda: torch.set_float32_matmul_precision("medium"),
        lambda: torch.set_float32_matmul_precision("highest"),
    ),
    "handler of SIGUSR2": (
        lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN),
        lambda: signal.signal(signal.SIGUSR2, signal.SIG_DFL),
    ),
}


@pytest.mark.parametrize("name", LEAKS)
def test_what_is_left_behind_is_seen(name):
    leave, mend = LEAKS[name]
    before = process_state()
    leave()
    try:
        assert list(changes(before, process_state())) == [name]
    finally:
        mend()
    assert not changes(before, process_state())


def test_another_working_directory_is_seen(tmp_path, monkeypatch):
    before = process_state()
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        assert list(changes(before, process_state())) == ["working directory"]
    assert not changes(before, process_state())
