"""Whether memory grows over a run: `python -m benchmarks.soak --minutes 5`.

Trains a small image JEPA by `jepa-fit` for some minutes: `image.yaml` on 1,280 generated images, so that a validation
with probe, checkpoint and pictures comes every forty steps, cropped one by one, so that its two loader workers have
work. It reads the resident memory of the main process and of its children once a second. A line is fitted through each
after the warm-up, the first third, in which the workers of validation and probe begin: megabytes an hour, with an
interval of 95%. Readings that follow each other are alike, so the interval is that of the means of twenty equal
stretches of time.

`MB` are of resident pages; those that workers share with the main process count in each. Readings with more child
processes than most, those of the seconds of a probe, are left out.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from scipy import stats

from benchmarks import report
from benchmarks.training import fit_watched
from jepa_lightning.config.plugins import load_plugins

STRETCHES = 20
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident(pid: int) -> int:
    """Bytes of a process's resident memory; 0 where it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def children(pid: int) -> list[int]:
    """The processes that a process started, and theirs."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            own = [int(word) for word in task.read_text().split()]
        except OSError:  # a thread that ended
            continue
        found += [each for child in own for each in (child, *children(child))]
    return found


class Readings:
    """Reads memory on a thread: seconds, bytes of the main process, bytes and number of its children."""

    def __init__(self, every: float) -> None:
        self.every = every
        self.rows: list[tuple[float, int, int, int]] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._begun = time.monotonic()

    def start(self) -> None:
        """Begin."""
        self._begun = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        pid = os.getpid()
        while not self._done.wait(self.every):
            workers = children(pid)
            row = resident(pid), sum(map(resident, workers)), len(workers)
            self.rows.append((time.monotonic() - self._begun, *row))


class Clock(Callback):
    """Starts the readings with the first step, and ends the run after so many seconds of steps.

    Args:
        readings: of memory.
        seconds: of the run.
    """

    def __init__(self, readings: Readings, seconds: float) -> None:
        self.readings = readings
        self.seconds = seconds
        self.steps = 0
        self._end = float("inf")

    def on_train_start(self, *_: Any) -> None:
        """Begin."""
        self._end = time.monotonic() + self.seconds
        self.readings.start()

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Look at the clock."""
        self.steps += 1
        trainer.should_stop = trainer.should_stop or time.monotonic() > self._end

    def on_train_end(self, *_: Any) -> None:
        """The last step is done: what follows is no part of a run's middle."""
        self.readings.stop()


def fit_line(seconds: Sequence[float], megabytes: Sequence[float]) -> dict[str, float]:
    """Fit a line through memory over time, through the means of twenty stretches.

    Args:
        seconds: of the readings, at least forty.
        megabytes: read then.

    Returns:
        `mb_an_hour`, `low` and `high` of its 95% interval, and the `mean` of all readings.

    Raises:
        ValueError: fewer readings.
    """
    if len(seconds) < 2 * STRETCHES:
        raise ValueError(f"expected at least {2 * STRETCHES} readings, got {len(seconds)}: run for longer")
    hours = [float(part.mean()) / 3600 for part in np.array_split(np.asarray(seconds, dtype=float), STRETCHES)]
    means = [float(part.mean()) for part in np.array_split(np.asarray(megabytes, dtype=float), STRETCHES)]
    line = stats.linregress(hours, means)
    half = float(stats.t.ppf(0.975, STRETCHES - 2)) * line.stderr
    slope = float(line.slope)
    return {"mb_an_hour": slope, "low": slope - half, "high": slope + half, "mean": float(np.mean(megabytes))}


def lines(rows: Sequence[tuple[float, int, int, int]]) -> dict[str, dict[str, float]]:
    """Fit lines through the readings after the first third: of the main process and of its workers.

    Only readings with the commonest number of child processes count: others are of the seconds of a probe, whose
    workers come and go.
    """
    late = [row for row in rows if row[0] > rows[-1][0] / 3]
    usual = Counter(row[3] for row in late).most_common(1)
    kept = [row for row in late if row[3] == usual[0][0]]
    seconds = [row[0] for row in kept]
    return {
        "main process": fit_line(seconds, [row[1] / 1e6 for row in kept]),
        "its workers together": fit_line(seconds, [row[2] / 1e6 for row in kept]),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run, fit the lines, print the table and write the figures."""
    parser = report.options(__doc__, "soak")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--workers", type=int, default=2, help="loader processes")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two readings")
    parser.add_argument("--config", default="image.yaml", help="a shipped configuration, or a file")
    parser.add_argument("--set", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="for jepa-fit")
    args = parser.parse_args(argv)
    report.at_least(parser, args, workers=0, threads=1)
    if args.minutes <= 0 or args.every <= 0:
        parser.error(f"--minutes and --every must be above 0, got {args.minutes:g} and {args.every:g}")
    torch.set_num_threads(args.threads)
    load_plugins()
    readings = Readings(args.every)
    clock = Clock(readings, 60 * args.minutes)
    words: dict[str, Any] = {
        "data.num_workers": args.workers,
        "data.samples": 1280,
        "data.batched": "false",
        "trainer.accelerator": "cpu",
        "trainer.devices": 1,
        "trainer.max_epochs": 10_000,
        "trainer.check_val_every_n_epoch": 1,
        "trainer.enable_progress_bar": "false",
    } | dict(args.set)
    with tempfile.TemporaryDirectory() as folder:
        words["trainer.default_root_dir"] = folder
        fit_watched(args.config, words, clock)
    try:
        found = lines(readings.rows)
    except (ValueError, IndexError) as error:
        parser.error(f"too few readings of memory ({error}): more --minutes, or fewer seconds between them (--every)")
    rows = [
        (name, f"{r['mean']:,.1f}", f"{r['mb_an_hour']:+,.1f}", f"{r['low']:+,.1f} to {r['high']:+,.1f}")
        for name, r in found.items()
    ]
    print(f"{clock.steps} steps, {len(readings.rows)} readings, {readings.rows[-1][3]} child processes at the end")
    print(report.table(("memory of", "MB, mean", "MB an hour", "95% interval"), rows))
    settings = {name: value for name, value in vars(args).items() if name != "json"}
    results: dict[str, Any] = {**found, "steps": clock.steps, "readings": readings.rows}
    report.write_json(args.json, {**settings, **report.machine()}, results)


if __name__ == "__main__":
    main()
