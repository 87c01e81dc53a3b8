"""Processes of a test's own, that begin with everything imported: a start takes a second, not ten."""

import multiprocessing
import subprocess
import sys
from contextlib import contextmanager


def forkserver():
    """The context that starts them; all tests share one server."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["jepa_lightning.cli.fit", "jepa_lightning.data", "modalities.image", "tensorboard"])
    return context


HOLD = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.lockf(file, fcntl.LOCK_EX)
os.write(file, f"process {os.getpid()} on there".encode())
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def holding(path):
    """Inside, another process, which imports nothing, holds the lock file `path` as `jepa_lightning.run.locks` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], **pipes) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.stdin.close()
