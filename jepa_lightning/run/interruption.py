"""Signals that end a run after its current step."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.environments import SLURMEnvironment

from jepa_lightning.run.signals import STOPPING, Interrupted, NotBegun, asks_to_requeue, requeue_slurm

_SIGNALS = [*STOPPING, signal.SIGINT]


class Fault(RuntimeError):
    """A run cannot continue, although its settings are right; the message says what to do."""


_begun = False  # whether other handlers were installed since


@contextmanager
def stops_before_training(*, requeue: bool = False) -> Iterator[None]:
    """Let SIGTERM and SIGUSR1 end the program before training (`NotBegun`) as they do in training.

    Args:
        requeue: whether SIGUSR1 requeues a SLURM job.
    """
    global _begun
    _begun = False
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def stop(signum: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a data worker, which was forked
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
            return
        if _begun:
            raise Interrupted(signum)
        if requeue and asks_to_requeue(signum):
            requeue_slurm()
        raise NotBegun(signum)

    before = {signum: signal.getsignal(signum) for signum in _SIGNALS}  # SIGINT as well, which training handles
    for signum in STOPPING:
        signal.signal(signum, stop)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


class StopSignals:
    """Notes SIGTERM, SIGUSR1 and SIGINT while it is installed. A second one ends the program at once.

    It takes the place of Lightning's own handlers, which save in the middle of a step (SIGUSR1 under SLURM) or not at
    all (SIGTERM).

    Attributes:
        received: the signal, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}
        self._group: Any = None
        self._asked: tuple[Any, torch.Tensor] | None = None

    def install(self) -> None:
        """Handle the signals from now on; not from a thread, where Python does not allow it."""
        global _begun
        if threading.current_thread() is not threading.main_thread():
            return
        _begun = True
        for signum in _SIGNALS:
            before = signal.signal(signum, self._note)
            if before != self._note:
                self._before[signum] = before

    def uninstall(self) -> None:
        """Give the handlers back that were there before."""
        while self._before:  # one by one: the handler of a dead data worker may raise between any two lines
            signum = next(iter(self._before))
            if signal.getsignal(signum) == self._note:
                signal.signal(signum, self._before[signum])
            del self._before[signum]
        self._group, self._asked = None, None

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise Interrupted(signum)
        self.received = signum
        if signum == signal.SIGINT:
            sys.stderr.write("\nCtrl-C: saving after this step. Once more stops at once.\n")

    def agreed(self) -> bool:
        """Whether any rank was told to stop; call it on every rank at the same steps.

        With several processes the answer is that of the call before: they ask each other through the CPU while the
        device computes, and none waits for it.
        """
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return self.received is not None
        if self._group is None:
            self._group = dist.new_group(backend="gloo")
        answer = 0
        if self._asked is not None:
            work, asked = self._asked
            work.wait()
            answer = int(asked.numpy()[0])
        asked = torch.tensor([self.received or 0])
        work = dist.all_reduce(asked, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        self._asked = (work, asked)
        if answer:
            self.received = self.received or answer
        return bool(answer)


def requeues(strategy: Any) -> bool:
    """Whether this is a job of SLURM that may be put into the queue again."""
    cluster = getattr(strategy, "cluster_environment", None)  # a strategy of one device has none
    return cluster.auto_requeue if isinstance(cluster, SLURMEnvironment) else SLURMEnvironment.detect()
