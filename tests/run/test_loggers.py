"""Whatever the logger: settings lie in the run's folder, nothing in the working directory; what loggers get."""

from pathlib import Path

import pytest
import yaml
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from short_runs import fit_shortly

from jepa_lightning import load
from jepa_lightning.run.folder import AppendingCSVLogger
from jepa_lightning.run.loggers import keep_in_folder, with_metrics

LOGGERS = {
    "none": ["--trainer.logger", "false"],
    "default": ["--trainer.logger", "true"],
    "csv": ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "runs/csv"],
    "tensorboard": ["--trainer.logger", "TensorBoardLogger", "--trainer.logger.save_dir", "runs/events"],
    "like W&B": ["--trainer.logger", "trackers.Tracker"],
    "like MLflow": ["--trainer.logger", "trackers.Server"],
}


@pytest.mark.long
@pytest.mark.parametrize("name", LOGGERS)
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_settings_are_in_the_runs_folder_and_nowhere_else(name, tmp_path, monkeypatch, recwarn):
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "config.yaml"
    mine.write_text("mine")
    more = ["--pictures.enabled", "true", "--trainer.log_every_n_steps", "1"]
    cli = fit_shortly("image", Path("runs/image"), *LOGGERS[name], *more)
    assert mine.read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml", "runs"}
    stored = yaml.safe_load(Path("runs/image/config.yaml").read_text())
    assert stored["model"]["modality"]["init_args"]["image_size"] == 32
    assert not [path for path in Path("runs").rglob("config.yaml") if path.parent.name != "image"]
    assert load("runs/image").data().name == "image"  # all that probing needs
    assert Path("runs/image/metrics.csv").is_file() == (name != "none")
    first = next(iter(cli.trainer.loggers), None)
    if name == "like W&B":
        assert first.settings["trainer"]["max_steps"] == 2
        keys = [key for key, _ in first.pictures]
        assert keys == ["pictures/masks", *["pictures/features"] * (len(keys) - 1)]
        assert first.metrics["summary/steps"] == 2
        assert "train/loss" in first.metrics
    if name == "like MLflow":
        assert first.metrics["summary/steps"] == 2
        warned = [str(warning.message) for warning in recwarn if "Server" in str(warning.message)]
        assert warned == ["Server did not take settings of the run: OSError: the server is gone"]
    if name == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(first.log_dir)
        events.Reload()
        assert {"pictures/masks", "pictures/features"} <= set(events.Tags()["images"])
        assert "config/text_summary" in events.Tags()["tensors"]
        assert "summary/steps" in events.Tags()["scalars"]


def test_where_the_files_of_loggers_go(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    base = "lightning.pytorch.loggers."
    named = [
        {"class_path": f"{base}WandbLogger", "init_args": {"save_dir": ".", "offline": True}},
        {"class_path": f"{base}WandbLogger", "init_args": {"save_dir": "elsewhere"}},
        {"class_path": f"{base}MLFlowLogger", "init_args": {"tracking_uri": None, "artifact_location": None}},
        {"class_path": f"{base}MLFlowLogger", "init_args": {"tracking_uri": "https://mlflow.example"}},
        {"class_path": f"{base}CSVLogger", "init_args": {"save_dir": "logs"}},
    ]
    keep_in_folder(named, tmp_path / "run")
    settings = [logger["init_args"] for logger in named]
    assert settings[0]["save_dir"] == str(tmp_path / "run")
    assert settings[1]["save_dir"] == "elsewhere"
    assert settings[2]["tracking_uri"] == f"sqlite:///{tmp_path}/run/mlflow.db"
    assert settings[2]["artifact_location"] == (tmp_path / "run" / "mlruns").as_uri()
    assert settings[3] == {"tracking_uri": "https://mlflow.example"}
    assert settings[4] == {"save_dir": "logs"}
    for nothing in (None, True, False, "text", [], [None]):
        keep_in_folder(nothing, tmp_path)


def test_metrics_are_always_in_the_folder(tmp_path):
    own = AppendingCSVLogger(tmp_path)
    assert with_metrics([own], tmp_path) == [own]
    same = CSVLogger(tmp_path, name="", version="")
    assert with_metrics(same, tmp_path) == [same]
    found = with_metrics(TensorBoardLogger(tmp_path / "events"), tmp_path)
    assert [type(logger) for logger in found] == [TensorBoardLogger, AppendingCSVLogger]
