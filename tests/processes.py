"""Processes of a test's own, that begin with torch and Lightning imported: a start takes a second, not ten."""

import multiprocessing
import multiprocessing.connection
import os
import subprocess
import sys
import time
import traceback
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT = 240  # seconds: far more than any of them takes, so that what hangs ends


def forkserver():
    """The context that starts them; all tests share one server, which imports nothing of ours: see `fresh`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lightning.pytorch.cli", "torchmetrics", "torchvision"])
    return context


def fresh(code, folder):
    """What `code` prints in a process with Lightning and what it needs imported, and neither pytest nor ours."""
    out, err = folder / "fresh.out", folder / "fresh.err"
    process = forkserver().Process(target=_run, args=(code, str(out), str(err)))
    process.start()
    process.join(LIMIT)
    process.kill()
    process.join()
    assert process.exitcode == 0, err.read_text()
    return out.read_text()


def _run(code, *files):
    import torch

    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), number)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("pytest", "_pytest")]:
        del sys.modules[name]  # of a program's main file
    assert not [name for name in sys.modules if name.partition(".")[0] in ("jepa_lightning", "modalities")]
    os.chdir(ROOT)
    torch.set_num_threads(1)
    exec(compile(code, "fresh", "exec"), {"__name__": "fresh"})


def in_two(folder, function, *args, limit=LIMIT):
    """Call `function` in two processes of one gloo group, as torchrun starts them; what they print goes into files."""
    both = [forkserver().Process(target=_as_rank, args=(rank, str(folder), function, args)) for rank in (0, 1)]
    for process in both:
        process.start()
    waited = time.monotonic() + limit
    while any(process.is_alive() for process in both) and time.monotonic() < waited:
        if any(process.exitcode for process in both):  # the other may wait for it
            break
        multiprocessing.connection.wait([process.sentinel for process in both if process.is_alive()], timeout=1)
    for process in both:
        process.kill()
        process.join()
    said = [(folder / f"rank-{rank}.log").read_text() for rank in (0, 1)]
    assert [process.exitcode for process in both] == [0, 0], "\n".join(text[-6000:] for text in said)
    return said


def _as_rank(rank, folder, function, args):
    import torch

    out = os.open(f"{folder}/rank-{rank}.log", os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(out, 1)
    os.dup2(out, 2)
    alone = {"GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "tests", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", **alone)
    os.chdir(folder)
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        function(*args)
        torch.distributed.destroy_process_group()
    except BaseException:  # at once: a destructor may wait for the other process
        traceback.print_exc()
        sys.stdout.flush()
        os._exit(1)


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
