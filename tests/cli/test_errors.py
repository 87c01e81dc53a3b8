"""What goes wrong with the machine ends a run in a few lines, with the last checkpoint whole."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image as PILImage
from short_runs import IMAGE, SHORT
from torch.utils.data import DataLoader, get_worker_info

from jepa_lightning import JEPA
from jepa_lightning.callbacks import LastCheckpoint
from jepa_lightning.cli.errors import explain, short_errors
from jepa_lightning.cli.fit import fit
from jepa_lightning.cli.output import ClosableOutput
from jepa_lightning.data import Samples
from jepa_lightning.data.errors import DataError
from jepa_lightning.run.signals import Interrupted

WORDS = ["fit", "--config", "image.yaml", *SHORT, *IMAGE, "--trainer.max_steps", "6", "--trainer.max_epochs", "100"]
WORDS += ["--checkpoint.every_n_train_steps", "1"]


def ended(capsys, folder, *words, lines=10):
    with pytest.raises(SystemExit) as stop:
        fit([*WORDS, "--trainer.default_root_dir", str(folder), *words])
    message = capsys.readouterr().err
    message = message[message.rindex("jepa-fit:") :]
    assert "Traceback" not in message
    assert len(message.splitlines()) < lines
    return stop.value.code, message


def last(folder):
    path = Path(folder) / "checkpoints" / "last.ckpt"
    return torch.load(path, weights_only=True)["global_step"] if path.exists() else None


def at_step(monkeypatch, number, act):
    step = JEPA.training_step

    def acting(self, batch, batch_idx):
        if self.global_step == number:
            act()
        return step(self, batch, batch_idx)

    monkeypatch.setattr(JEPA, "training_step", acting)


def test_a_killed_data_worker(tmp_path, monkeypatch, capsys):
    read = Samples.__getitem__

    def dying(self, place):
        self.count = getattr(self, "count", 0) + 1
        if get_worker_info() is not None and isinstance(place, tuple) and self.count > 60:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, place)

    monkeypatch.setattr(Samples, "__getitem__", dying)
    code, message = ended(
        capsys, tmp_path, "--data.num_workers", "1", "--data.samples", "160", "--data.batched", "false"
    )
    assert code == 1
    assert "A data worker died, most likely for want of memory: lower data.num_workers" in message
    assert last(tmp_path) >= 1


@pytest.mark.parametrize("kind", [ConnectionResetError, EOFError])
def test_a_data_worker_that_dies_while_it_passes_a_batch(tmp_path, monkeypatch, capsys, kind):
    def broken(loader):
        raise kind
        yield

    monkeypatch.setattr(DataLoader, "__iter__", broken)
    code, message = ended(capsys, tmp_path, "--data.num_workers", "1", "--data.samples", "160")
    assert code == 1
    assert "A data worker died" in message


@pytest.mark.parametrize(
    ("owner", "name"),
    [(LastCheckpoint, "on_exception"), (SingleDeviceStrategy, "on_exception"), (SingleDeviceStrategy, "teardown")],
)
def test_an_error_while_a_failed_run_ends_leaves_no_signal_handler(tmp_path, monkeypatch, capsys, owner, name):
    """A dead data worker raises its error anew whenever another worker ends, so at any place."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    failed = []

    def fail(*args, **kwargs):
        failed.append(name)
        raise RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed.")

    def act():
        monkeypatch.setattr(owner, name, fail)
        fail()

    at_step(monkeypatch, 2, act)
    assert ended(capsys, tmp_path)[0] == 1
    assert len(failed) == 2
    assert {number: signal.getsignal(number) for number in before} == before


def test_a_full_disk_while_the_checkpoint_is_written(tmp_path, monkeypatch, capsys):
    """A real limit on the size of files in its place."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    at_step(monkeypatch, 2, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1])))
    try:
        code, message = ended(capsys, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 1
    assert "no room left to write" in message
    assert "--auto_resume true resumes" in message
    assert last(tmp_path) == 2
    assert [path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.startswith(".")] == []


def test_a_full_disk_while_metrics_are_written(tmp_path, monkeypatch, capsys):
    def full():
        from jepa_lightning.run.folder import Metrics

        def add(self, row):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

        monkeypatch.setattr(Metrics, "add", add)

    at_step(monkeypatch, 3, full)
    code, message = ended(capsys, tmp_path, "--trainer.logger", "true", "--trainer.log_every_n_steps", "1")
    assert code == 1
    assert "no room left to write" in message
    assert "metrics.csv" in message
    assert last(tmp_path) in (3, 4)


def test_a_folder_that_may_not_be_written(tmp_path, monkeypatch, capsys):
    make = Path.mkdir

    def refuse(self, *args, **kwargs):
        if self.name == "checkpoints":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        make(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", refuse)
    code, message = ended(capsys, tmp_path)
    assert code == 1
    assert "trainer.default_root_dir" in message
    assert "is complete" not in message  # there is no checkpoint


def test_data_that_vanish(tmp_path, monkeypatch, capsys):
    for index in range(48):
        path = tmp_path / "data" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PILImage.new("RGB", (32, 32), (index, 0, 0)).save(path)
    at_step(monkeypatch, 3, lambda: shutil.rmtree(tmp_path / "data"))
    words = [
        "--data.root",
        str(tmp_path / "data"),
        "--data.cache",
        "false",
        "--data.image_size",
        "32",
        "--trainer.limit_val_batches",
        "0",
    ]
    code, message = ended(capsys, tmp_path / "run", *words, lines=30)  # it lists them
    assert code == 2
    assert "cannot be read" in message
    assert last(tmp_path / "run") == 4


def test_numbers_that_are_not_finite(tmp_path, monkeypatch, capsys):
    step = JEPA.step

    def poisoned(self, batch, generator):
        if self.global_step == 3:
            batch["image"] = batch["image"] * float("nan")
        return step(self, batch, generator)

    monkeypatch.setattr(JEPA, "step", poisoned)
    code, message = ended(capsys, tmp_path)
    assert code == 1
    assert "the loss is not finite at step 3" in message
    assert last(tmp_path) == 3


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (FileExistsError(errno.EEXIST, "File exists", "runs/a"), 2, "File exists: runs/a"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "x.csv"), 2, "Is a directory: x.csv"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), 2, "File name too long"),
        (ValueError("expected a, got b"), 2, "expected a, got b"),
        (MisconfigurationException("no logger"), 2, "no logger"),
        (DataError("\n".join(map(str, range(30)))), 2, "28\n29"),
        (RuntimeError("Early stopping conditioned on metric `a` which is not available."), 2, "no metric 'a'"),
        (OSError(errno.EROFS, "Read-only file system", "out/x"), 1, "Set --out to a folder that may be written"),
        (RuntimeError("[../gloo/transport/tcp/pair.cc:538] Connection closed by peer [1.2.3.4]:1"), 1,
         "another process has ended or does not answer (Connection closed by peer"),
        (torch.distributed.DistError("wait timeout after 1800000ms"), 1, "wait timeout after 1800000ms"),
        (KeyboardInterrupt(), 130, "stopped"),
        (Interrupted(signal.SIGUSR1), 75, "stopped"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("program", ["jepa-embed", "jepa-probe", "jepa-view"])
def test_what_ends_any_command(capsys, program, error, code, said):
    error.add_note("What is done is kept.")
    with pytest.raises(SystemExit) as stop, short_errors(program):
        raise error
    assert stop.value.code == code
    message = capsys.readouterr().err
    assert message.startswith(f"{program}: ")
    assert said in message
    assert "kept" in message or code in (75, 130)


def test_a_mistake_of_ours_is_not_hidden():
    for error in (KeyError("momentum"), RuntimeError("shapes do not match"), OSError(errno.EIO, "broken", "a")):
        with pytest.raises(type(error)), short_errors("jepa-fit"):
            raise error


def test_whoever_reads_the_output_may_leave():
    """`jepa-fit | head -1`: neither an error nor a complaint at the exit."""
    before = sys.stdout
    with short_errors("x"):
        assert isinstance(sys.stdout, ClosableOutput)
    assert sys.stdout is before
    words = "from jepa_lightning.cli.output import readers_may_leave\nwith readers_may_leave():\n"
    words += "    for line in range(100000): print(line)\nimport sys\nsys.exit(7)"
    process = subprocess.Popen([sys.executable, "-c", words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "0\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 7


def test_what_is_not_known_is_not_explained():
    assert explain(RuntimeError("shapes do not match")) is None
    assert explain(OSError(errno.ECONNRESET, "reset")) is None
    assert "batch_size" in explain(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"))
    assert "batch_size" in explain(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert explain(RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. ")) is not None
    assert explain(RuntimeError("DataLoader worker (pid(s) 12, 13) exited unexpectedly")) is not None


def test_codes():
    assert Interrupted(signal.SIGTERM, "last.ckpt").code == 75
    assert Interrupted(signal.SIGINT).code == 130
    assert "saved last.ckpt" in str(Interrupted(signal.SIGUSR1, "last.ckpt"))
