"""The folder of a run: what is written there, and what happens to an earlier run's files."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment

RESULTS = ("metrics.csv", "summary.json", "checkpoints")  # a folder with one of them holds a run
OUTPUTS = (*RESULTS, "config.yaml", "pictures", "hparams.yaml", "events.out.tfevents.*")


def default_loggers(folder: str | Path) -> list[Logger]:
    """`metrics.csv` and TensorBoard events, both directly in the run's folder."""
    return [AppendingCSVLogger(save_dir=folder), TensorBoardLogger(save_dir=folder, name="", version="")]


class AppendingCSVLogger(CSVLogger):
    """Lightning's CSV logger, writing `metrics.csv` directly in `save_dir` and adding to what a resumed run finds."""

    def __init__(self, save_dir: str | Path) -> None:
        super().__init__(save_dir=str(save_dir), name="", version="")

    @property
    @rank_zero_experiment
    def experiment(self) -> object:
        """The writer of metrics.csv."""
        path = Path(self.save_dir) / "metrics.csv"
        earlier = path.read_text() if self._experiment is None and path.is_file() else None
        with warnings.catch_warnings():  # that metrics.csv will be deleted, which is mended here
            warnings.filterwarnings("ignore", message=".*Experiment logs directory")
            writer = super().experiment
        if earlier:
            path.write_text(earlier)
            writer.metrics_keys = earlier.splitlines()[0].split(",")
        return writer


def set_aside(folder: str | Path) -> Path | None:
    """Move an earlier run's files in `folder` into `folder/previous/N`; a new run there loses nothing.

    Returns:
        Where they went, or None when there were none.
    """
    folder = Path(folder)
    if not any((folder / result).exists() for result in RESULTS):
        return None
    found = [path for pattern in OUTPUTS for path in folder.glob(pattern)]
    number = 1
    while (folder / "previous" / str(number)).exists():
        number += 1
    target = folder / "previous" / str(number)
    target.mkdir(parents=True)
    for path in found:
        shutil.move(path, target / path.name)
    return target
