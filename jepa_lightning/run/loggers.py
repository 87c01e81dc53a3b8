"""What loggers get beside metrics: the settings, pictures and the summary of a run; and where their own files go."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image

from jepa_lightning.config.bounded_yaml import load_yaml
from jepa_lightning.run.folder import AppendingCSVLogger

_LOCAL = ("sqlite:", "file:", "/", ".")  # how an address begins that needs no server


class SaveConfig(SaveConfigCallback):
    """Write config.yaml into the run's folder, whatever the loggers, and hand the settings to them.

    Lightning's own goes by the first logger's folder, which may be the working directory, or none.

    Args:
        text: of config.yaml.
    """

    def __init__(self, *args: Any, text: str, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "save_to_log_dir": False})
        self._text = text

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write and log the settings; Lightning calls this on the first process."""
        path = Path(trainer.default_root_dir) / self.config_filename
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._text)
        log_settings(trainer.loggers, self._text)


def log_settings(loggers: Iterable[Logger], text: str) -> None:
    """Hand the text of a config.yaml to loggers: as hyperparameters, to TensorBoard as text.

    `metrics.csv` has it beside it.
    """
    settings = load_yaml(text)
    for logger in _others(loggers):
        if isinstance(logger, TensorBoardLogger):
            _try(logger, "settings", lambda to=logger: to.experiment.add_text("config", f"```yaml\n{text}\n```"))  # type: ignore[misc]
        elif not isinstance(logger, CSVLogger):  # which would write a second file of them
            _try(logger, "settings", lambda to=logger: to.log_hyperparams(settings))  # type: ignore[misc]


def log_pictures(loggers: Iterable[Logger], files: Sequence[Path], *, name: str, step: int) -> None:
    """Hand PNG files to the loggers that take pictures: TensorBoard, W&B and others with `log_image`, and MLflow.

    Args:
        loggers: of a trainer.
        files: of one picture; those that move are left out.
        name: of the picture, the same at each step.
        step: of the optimiser.
    """
    still = [path for path in files if path.suffix == ".png"]
    for logger in _others(loggers) if still else ():
        if isinstance(logger, TensorBoardLogger):
            for path in still:
                with Image.open(path) as image:
                    pixels = np.asarray(image)
                _try(
                    logger,
                    "pictures",
                    lambda to=logger, x=pixels: to.experiment.add_image(name, x, step, dataformats="HWC"),  # type: ignore[misc]
                )
        elif hasattr(logger, "log_image"):
            _try(logger, "pictures", lambda to=logger: to.log_image(name, [str(path) for path in still], step))  # type: ignore[misc]
        elif type(logger).__name__ == "MLFlowLogger":
            for path in still:
                _try(
                    logger,
                    "pictures",
                    lambda to=logger, at=path: to.experiment.log_artifact(to.run_id, str(at), "pictures"),  # type: ignore[misc]
                )


def log_summary(loggers: Iterable[Logger], summary: Mapping[str, Any], *, step: int) -> None:
    """Hand the numbers of a run's summary to loggers, as `summary/NAME`."""
    numbers = {f"summary/{k}": v for k, v in summary.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    for logger in _others(loggers):
        _try(logger, "the summary", lambda to=logger: to.log_metrics(numbers, step))  # type: ignore[misc]


def keep_in_folder(named: Any, folder: str | Path) -> None:
    """Have the files of the loggers that a configuration names lie in the run's folder, where it does not say where.

    W&B's would lie in the working directory. MLflow gets a database there, unless an address is given here or in
    MLFLOW_TRACKING_URI, and its artifacts lie beside it if the address is local.

    Args:
        named: a logger as `class_path` and `init_args`, a list of them, or anything else; changed in place.
        folder: of the run.
    """
    for logger in named if isinstance(named, list) else [named]:
        class_path, settings = _get(logger, "class_path"), _get(logger, "init_args")
        if not isinstance(class_path, str) or settings is None:
            continue
        kind = class_path.rpartition(".")[2]
        if kind == "WandbLogger" and _get(settings, "save_dir") in (None, ".") and _get(settings, "dir") is None:
            settings["save_dir"] = str(folder)
            Path(folder).mkdir(parents=True, exist_ok=True)  # else it takes the system's temporary one
        if kind == "MLFlowLogger":
            if _get(settings, "tracking_uri") is None and not os.environ.get("MLFLOW_TRACKING_URI"):
                Path(folder).mkdir(parents=True, exist_ok=True)
                settings["tracking_uri"] = f"sqlite:///{Path(folder).resolve()}/mlflow.db"
            address = str(_get(settings, "tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI"))
            if _get(settings, "artifact_location") is None and address.startswith(_LOCAL):
                settings["artifact_location"] = (Path(folder).resolve() / "mlruns").as_uri()


def with_metrics(loggers: Any, folder: str | Path) -> list[Logger]:
    """Add `metrics.csv` in the run's folder, which reports read, to loggers that a user has chosen."""
    chosen = list(loggers) if isinstance(loggers, list | tuple) else [loggers]
    for logger in chosen:
        written = isinstance(logger, CSVLogger) and Path(logger.log_dir).resolve() == Path(folder).resolve()
        if written or isinstance(logger, AppendingCSVLogger):
            return chosen
    return [*chosen, AppendingCSVLogger(save_dir=folder)]


def _others(loggers: Iterable[Logger]) -> list[Logger]:
    return [logger for logger in loggers if not isinstance(logger, AppendingCSVLogger)]


def _get(settings: Any, name: str) -> Any:
    try:
        return settings[name]
    except (KeyError, TypeError, IndexError):
        return None


def _try(logger: Logger, what: str, call: Callable[[], Any]) -> None:
    """Call a logger for what is of use but not needed: its failure is a warning, and the run continues."""
    try:
        call()
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        rank_zero_warn(f"{type(logger).__name__} did not take {what} of the run: {type(error).__name__}: {reason}")
