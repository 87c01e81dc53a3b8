"""`jepa-fit` listens to signals from its first moment on, while it is still being imported."""

import os
import signal
import subprocess
import sys
from importlib import import_module

import pytest

from jepa_lightning.cli import lightning_cli
from jepa_lightning.cli.fit import fit
from jepa_lightning.run.signals import exits_before_training

# In the place of what is imported first of the command, which takes seconds to import, a module that takes longer.
SLOW = """
import importlib.abc, importlib.machinery, sys, time

class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == "jepa_lightning.cli.postponed" else None
    def exec_module(self, module):
        assert "torch" not in sys.modules
        print("importing", flush=True)
        try:
            time.sleep(120)
        except BaseException:
            pass

sys.meta_path.insert(0, Finder())
from jepa_lightning.cli.fit import fit
fit()
"""


@pytest.mark.parametrize(
    ("number", "words", "queued"),
    [
        (signal.SIGTERM, ["--auto_resume", "true"], False),
        (signal.SIGUSR1, ["--auto_resume=true"], True),
        (signal.SIGUSR1, ["--auto_resume", "false"], False),
    ],
)
def test_a_signal_during_the_imports(tmp_path, number, words, queued):
    program = tmp_path / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    program.chmod(0o700)
    places = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_PROCID": "0"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, "image.yaml", *words], env={**kept, **places}, **pipes
    ) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(number)
        said = process.communicate()[1]
    assert process.returncode == 75
    assert said == f"jepa-fit: stopped by {number.name}: training had not begun; start it again\n"
    asked = tmp_path / "asked"
    assert (asked.read_text() if asked.exists() else None) == ("requeue 7\n" if queued else None)


def test_it_runs_the_command(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    seen = []
    monkeypatch.setattr(lightning_cli, "run", lambda args: seen.append((args, signal.getsignal(signal.SIGTERM))))
    fit(["image.yaml"])
    assert seen == [(["image.yaml"], before)]


def test_handlers_are_given_back():
    before = signal.getsignal(signal.SIGTERM)
    with exits_before_training("jepa-fit"):
        assert signal.getsignal(signal.SIGTERM) is not before
    with pytest.raises(ModuleNotFoundError), exits_before_training("jepa-fit"):
        import_module("jepa_lightning.nowhere")
    assert signal.getsignal(signal.SIGTERM) is before
