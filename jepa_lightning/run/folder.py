"""The folder of a run: what is written there, and what happens to an earlier run's files."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from jepa_lightning.run.interruption import Fault
from jepa_lightning.run.writing import named, replacing

RESULTS = ("metrics.csv", "summary.json", "checkpoints")  # a folder with one of them holds a run
LOCK = ".lock"  # while a run is under way
OUTPUTS = (*RESULTS, "config.yaml", "config_*.yaml", "pictures", "hparams.yaml", "events.out.tfevents.*")


def default_loggers(folder: str | Path) -> list[Logger]:
    """`metrics.csv` and TensorBoard events, both directly in the run's folder."""
    return [AppendingCSVLogger(save_dir=folder), TensorBoardLogger(save_dir=folder, name="", version="")]


class Place:
    """A folder as it is now, so that one of the same name is not taken for it.

    Args:
        folder: its path.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._was = self._identity()

    def check(self) -> None:
        """See that the folder is still there.

        Raises:
            Fault: it was renamed or deleted.
        """
        if self._was is not None and self._identity() != self._was:
            raise Fault(
                f"the run's folder {self.folder} was renamed or deleted while it ran, so the run has ended. Where it "
                "still is, give it its name back; --auto_resume true goes on from its last checkpoint."
            )

    def _identity(self) -> tuple[int, ...] | None:
        """Of the folder, and of the run's lock in it, which goes when a folder that is written into is emptied."""
        try:
            found = self.folder.stat()
        except FileNotFoundError:
            return None
        try:
            lock = (self.folder / LOCK).stat()
        except FileNotFoundError:
            return found.st_dev, found.st_ino
        return found.st_dev, found.st_ino, lock.st_ino, lock.st_mtime_ns


class Metrics(ExperimentWriter):
    """Lightning's writer of `metrics.csv`, adding to the file that is there; a kill leaves it whole.

    Args:
        log_dir: the folder.
    """

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        self._place = Place(log_dir)
        header, rows, whole = self._read()
        self.metrics_keys = header
        if not whole:
            self._replace(header, rows)

    def save(self) -> None:
        """Write the rows that wait.

        Raises:
            Fault: the folder is not the one that the run began in.
        """
        self._place.check()
        with named(self.metrics_file_path):
            super().save()

    def forget_from(self, step: int, *, validation: bool = False) -> None:
        """Drop the rows of this step and later ones; with `validation` also those of the validation just before it."""
        self.save()
        header, rows, _ = self._read()
        kept = [row for row in rows if not row["step"].isdigit() or int(row["step"]) < step]
        if validation:
            kept = [row for row in kept if row["step"] != str(step - 1) or _is_of_training(row)]
        if len(kept) < len(rows):
            self._replace(header, kept)

    def _read(self) -> tuple[list[str], list[dict[str, str]], bool]:
        """Header, rows, and whether there was nothing else: no line that a kill cut short."""
        path = Path(self.metrics_file_path)
        text = path.read_text() if path.is_file() else ""
        lines = list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))
        if not lines or "step" not in lines[0]:
            return [], [], not text
        header = lines[0]
        rows = [dict(zip(header, line, strict=True)) for line in lines[1:] if len(line) == len(header)]
        return header, rows, text.endswith("\n") and len(rows) == len(lines) - 1

    def _replace(self, header: list[str], rows: list[dict[str, str]]) -> None:
        path = Path(self.metrics_file_path)
        if not header:
            path.unlink(missing_ok=True)
            return
        with replacing(path) as beside, open(beside, "w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=header)
            writer.writeheader()
            writer.writerows(rows)

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        self._replace(fieldnames, self._read()[1])

    def _check_log_dir_exists(self) -> None:
        """Lightning deletes an earlier run's file here."""


class AppendingCSVLogger(CSVLogger):
    """Lightning's CSV logger, writing each row to `metrics.csv` in `save_dir` at once, after those that are there."""

    def __init__(self, save_dir: str | Path) -> None:
        super().__init__(save_dir=str(save_dir), name="", version="", flush_logs_every_n_steps=1)

    @property
    @rank_zero_experiment
    def experiment(self) -> Metrics:
        """The writer of metrics.csv."""
        if self._experiment is None:
            os.makedirs(self.root_dir, exist_ok=True)
            self._experiment = Metrics(self.log_dir)
        return self._experiment  # type: ignore[return-value]

    @rank_zero_only
    def forget_from(self, step: int, *, validation: bool = False) -> None:
        """Drop the rows of this optimiser step and later ones: a resumed run takes these steps again.

        With `validation` also those of the validation after the step before, which it repeats.
        """
        self.experiment.forget_from(step, validation=validation)


def _is_of_training(row: dict[str, str]) -> bool:
    return any(value for name, value in row.items() if name.startswith("train/"))


def keep_config(folder: str | Path) -> Path | None:
    """Copy the config.yaml of `folder`, about to be written anew, to config_N.yaml; None where there is none."""
    file = Path(folder) / "config.yaml"
    if not file.is_file():
        return None
    number = 1
    while (kept := file.with_name(f"config_{number}.yaml")).exists():
        number += 1
    shutil.copyfile(file, kept)
    return kept


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
