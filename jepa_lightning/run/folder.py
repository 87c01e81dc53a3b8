"""The folder of a run: what is written there, and what happens to an earlier run's files."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from jepa_lightning.run.interruption import Fault
from jepa_lightning.run.writing import named, replacing

RESULTS = ("metrics.csv", "summary.json", "checkpoints")  # a folder with one of them holds a run
LOCK = ".lock"  # while a run is under way
OUTPUTS = (*RESULTS, "config.yaml", "config_*.yaml", "pictures", "hparams.yaml", "events.out.tfevents.*")
REPORTS = ("probe", "view", "plan.json", "finetune")  # of other commands, about a run


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
                "still is, give it its name back; --auto_resume true resumes from its last checkpoint."
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


class Metrics:
    """`metrics.csv`: a row each time that something is logged, behind those that are there; a kill leaves it whole.

    Columns are in the order of their names, and a new one makes the file anew.

    Args:
        folder: where it lies.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / "metrics.csv"
        self._place = Place(folder)
        self._columns, rows, whole = self._read()
        if not whole:
            self._replace(rows)

    def add(self, row: Mapping[str, Any]) -> None:
        """Write a row.

        Raises:
            Fault: the folder is not the one that the run began in.
            OSError: it cannot be written; the error names the file.
        """
        self._place.check()
        with named(self.path):
            is_new = not self.path.is_file()
            if not row.keys() <= set(self._columns):
                rows = self._read()[1]
                self._columns = sorted({*self._columns, *row})
                if not is_new:
                    self._replace(rows)
            with open(self.path, "a", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=self._columns)
                if is_new:
                    writer.writeheader()
                writer.writerow(row)

    def forget_from(self, step: int, *, validation: bool = False) -> None:
        """Drop the rows of this step and later ones; with `validation` also those of the validation just before it."""
        self._place.check()
        self._columns, rows, _ = self._read()
        kept = [row for row in rows if not row["step"].isdigit() or int(row["step"]) < step]
        if validation:
            kept = [row for row in kept if row["step"] != str(step - 1) or _is_of_training(row)]
        if len(kept) < len(rows):
            self._replace(kept)

    def _read(self) -> tuple[list[str], list[dict[str, str]], bool]:
        """Header, rows, and whether there was nothing else: no line that a kill cut short."""
        try:
            text = self.path.read_text() if self.path.is_file() else ""
        except UnicodeDecodeError:
            raise ValueError(
                f"expected the metrics of a run in {self.path}, got something else: move it away"
            ) from None
        lines = list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))
        if not lines or "step" not in lines[0]:
            return [], [], not text
        header = lines[0]
        rows = [dict(zip(header, line, strict=True)) for line in lines[1:] if len(line) == len(header)]
        return header, rows, text.endswith("\n") and len(rows) == len(lines) - 1

    def _replace(self, rows: list[dict[str, str]]) -> None:
        if not self._columns:
            self.path.unlink(missing_ok=True)
            return
        with replacing(self.path) as beside, open(beside, "w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=self._columns)
            writer.writeheader()
            writer.writerows(rows)


class AppendingCSVLogger(Logger):
    """Writes each row of metrics to `metrics.csv` in `save_dir` at once, after those that are there.

    Lightning's own logger deletes an earlier run's. Hyperparameters are in the run's config.yaml.

    Args:
        save_dir: the folder.
    """

    def __init__(self, save_dir: str | Path) -> None:
        super().__init__()
        self._folder = Path(save_dir)
        self._metrics: Metrics | None = None

    @property
    def name(self) -> str:
        """None: nothing lies in a folder of that name."""
        return ""

    @property
    def version(self) -> str:
        """None, as `name`."""
        return ""

    @property
    def save_dir(self) -> str:
        """The folder."""
        return str(self._folder)

    @property
    def log_dir(self) -> str:
        """The folder."""
        return str(self._folder)

    @property
    @rank_zero_experiment
    def experiment(self) -> Metrics:
        """The file, on the first process; Lightning asks for it when a run begins."""
        if self._metrics is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._metrics = Metrics(self._folder)
        return self._metrics

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: see the class."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write a row."""
        values = {name: value.item() if isinstance(value, Tensor) else value for name, value in metrics.items()}
        self.experiment.add({**values, "step": 0 if step is None else step})

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
    found = [path for pattern in (*OUTPUTS, *REPORTS) for path in folder.glob(pattern)]
    number = 1
    while (folder / "previous" / str(number)).exists():
        number += 1
    target = folder / "previous" / str(number)
    target.mkdir(parents=True)
    for path in found:
        shutil.move(path, target / path.name)
    return target


def outputs(folder: str | Path) -> set[Path]:
    """List what a run has written into its folder, or whatever has such names."""
    return {path for pattern in OUTPUTS for path in Path(folder).glob(pattern)}


def put_back(folder: str | Path, moved: Path | None = None, *, before: Collection[Path] = ()) -> bool:
    """Delete what a new run wrote that has ended before its first step, and undo `set_aside`.

    Args:
        folder: of the run, and of the earlier one.
        moved: where the earlier run's files went; None: there was none.
        before: `outputs` that were there when the new run began, which stay.

    Returns:
        Whether it was done: a new run that has saved a checkpoint keeps the folder.
    """
    folder = Path(folder)
    if next((folder / "checkpoints").glob("*"), None) is not None:
        return False
    for path in outputs(folder) - set(before):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    if moved is None:
        return True
    for path in moved.iterdir():
        shutil.move(path, folder / path.name)
    moved.rmdir()
    if not any(moved.parent.iterdir()):
        moved.parent.rmdir()
    return True
