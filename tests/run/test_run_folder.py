"""A run's folder: nothing of an earlier run is lost or mixed in."""

import csv
import shutil
from pathlib import Path

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from jepa_lightning.run.folder import AppendingCSVLogger, default_loggers, keep_config, outputs, put_back, set_aside
from jepa_lightning.run.interruption import Fault


def fill(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def everything(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


RUN = [
    *("metrics.csv", "summary.json", "config.yaml", "hparams.yaml", "events.out.tfevents.1.host.1.0"),
    *("checkpoints/last.ckpt", "checkpoints/best.ckpt", "pictures/masks.png"),
]


def test_an_earlier_run_is_moved_whole(tmp_path):
    fill(tmp_path, *RUN)
    moved = set_aside(tmp_path)
    assert moved == tmp_path / "previous" / "1"
    assert everything(tmp_path) == {f"previous/1/{name}" for name in RUN}
    for name in RUN:
        assert (moved / name).read_text() == name


def test_earlier_runs_are_counted(tmp_path):
    for number in (1, 2, 3):
        fill(tmp_path, "metrics.csv", "checkpoints/last.ckpt")
        assert set_aside(tmp_path) == tmp_path / "previous" / str(number)
    expected = {f"previous/{n}/{name}" for n in (1, 2, 3) for name in ("metrics.csv", "checkpoints/last.ckpt")}
    assert everything(tmp_path) == expected


@pytest.mark.parametrize("result", ["metrics.csv", "summary.json", "checkpoints/last.ckpt"])
def test_any_result_makes_it_a_run(tmp_path, result):
    fill(tmp_path, result, "config.yaml")
    assert set_aside(tmp_path) is not None
    assert everything(tmp_path) == {f"previous/1/{result}", "previous/1/config.yaml"}


def test_a_failed_start_is_not_a_run(tmp_path):
    """It wrote its settings and died: the next start writes over them."""
    fill(tmp_path, "config.yaml", "hparams.yaml", "events.out.tfevents.1.host.1.0")
    assert set_aside(tmp_path) is None
    assert everything(tmp_path) == {"config.yaml", "hparams.yaml", "events.out.tfevents.1.host.1.0"}


def test_a_users_own_files_stay(tmp_path):
    own = {"notes.txt", "my.yaml", "plots/loss.png", "metrics_of_mine.csv"}
    fill(tmp_path, *RUN, *own)
    set_aside(tmp_path)
    assert own <= everything(tmp_path)


def test_a_new_folder(tmp_path):
    assert set_aside(tmp_path) is None
    assert set_aside(str(tmp_path / "not" / "there")) is None
    assert not (tmp_path / "not").exists()


def rows(folder):
    with open(Path(folder) / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def write(folder, *records):
    logger = AppendingCSVLogger(folder)
    for step, metrics in records:
        logger.log_metrics(metrics, step=step)
        logger.save()
    logger.finalize("success")


def test_metrics_lie_in_the_folder_itself(tmp_path):
    write(tmp_path, (0, {"loss": 1.5}))
    assert everything(tmp_path) == {"metrics.csv"}
    assert rows(tmp_path) == [{"step": "0", "loss": "1.5"}]


def test_a_resumed_run_adds_its_rows(tmp_path):
    write(tmp_path, (0, {"loss": 1.5}), (1, {"loss": 1.25}))
    write(tmp_path, (2, {"loss": 1.0}))
    write(tmp_path, (3, {"loss": 0.5}))
    assert [(row["step"], row["loss"]) for row in rows(tmp_path)] == [
        *(("0", "1.5"), ("1", "1.25"), ("2", "1.0"), ("3", "0.5"))
    ]


def test_a_resumed_run_may_have_new_columns_and_lack_old_ones(tmp_path):
    write(tmp_path, (0, {"loss": 1.5, "old": 3.0}), (1, {"loss": 1.25}))
    write(tmp_path, (2, {"loss": 1.0}), (3, {"loss": 0.5, "aaa": 7.0, "zzz": 8.0}))
    found = rows(tmp_path)
    assert set(found[0]) == {"step", "loss", "old", "aaa", "zzz"}
    assert [row["loss"] for row in found] == ["1.5", "1.25", "1.0", "0.5"]
    assert [row["old"] for row in found] == ["3.0", "", "", ""]
    assert [row["aaa"] for row in found] == ["", "", "", "7.0"]
    assert [row["zzz"] for row in found] == ["", "", "", "8.0"]


def test_a_run_that_logged_nothing_yet(tmp_path):
    (tmp_path / "metrics.csv").write_text("")
    write(tmp_path, (0, {"loss": 1.5}))
    assert rows(tmp_path) == [{"step": "0", "loss": "1.5"}]


def test_lightning_would_have_deleted_them(tmp_path):
    """What is mended here; should Lightning mend it, this class can go."""
    write(tmp_path, (0, {"loss": 1.5}))
    plain = CSVLogger(tmp_path, name="", version="")
    plain.log_metrics({"loss": 1.0}, step=1)
    plain.save()
    assert len(rows(tmp_path)) == 1


def test_a_file_of_something_else(tmp_path):
    (tmp_path / "metrics.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"the metrics of a run in .*metrics\.csv, got something else: move it away"):
        AppendingCSVLogger(tmp_path).experiment  # noqa: B018


def test_default_loggers_write_into_the_folder(tmp_path):
    loggers = default_loggers(tmp_path)
    assert [type(logger) for logger in loggers] == [AppendingCSVLogger, TensorBoardLogger]
    for logger in loggers:
        assert Path(logger.log_dir).resolve() == tmp_path.resolve()


def test_a_resumed_fit_keeps_its_rows(make_trainer, make_jepa, make_data, tmp_path):
    from jepa_lightning.callbacks import LastCheckpoint

    for epochs, path in ((1, None), (2, tmp_path / "checkpoints" / "last.ckpt")):
        trainer = make_trainer(LastCheckpoint(), logger=default_loggers(tmp_path), max_epochs=epochs)
        trainer.fit(make_jepa(), datamodule=make_data(), ckpt_path=path)
    found = rows(tmp_path)
    losses = [int(row["step"]) for row in found if row["train/loss"]]
    assert losses == [1, 3, 5, 7, 9, 11]
    assert len([row for row in found if row["val/loss"]]) == 2
    assert any(path.name.startswith("events.out.tfevents") for path in tmp_path.iterdir())


def test_an_earlier_configuration_is_kept_under_the_next_free_name(tmp_path):
    assert keep_config(tmp_path) is None
    for number in (1, 2, 3):
        fill(tmp_path, "config.yaml")
        (tmp_path / "config.yaml").write_text(str(number))
        assert keep_config(tmp_path) == tmp_path / f"config_{number}.yaml"
    assert [(tmp_path / f"config_{number}.yaml").read_text() for number in (1, 2, 3)] == ["1", "2", "3"]
    fill(tmp_path, "metrics.csv")
    set_aside(tmp_path)
    assert (tmp_path / "previous" / "1" / "config_2.yaml").read_text() == "2"


@pytest.mark.parametrize("what", ["renamed", "deleted", "replaced", "emptied"])
@pytest.mark.parametrize("writes", ["metrics", "checkpoints"])
def test_a_folder_that_goes_ends_the_run(make_trainer, make_jepa, make_data, tmp_path, what, writes):
    from jepa_lightning.callbacks import LastCheckpoint

    run = tmp_path / "run"
    fill(run, ".lock")

    class Goes(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 2 and what == "emptied":
                (run / ".lock").unlink()  # as a deletion while it is written into
            elif trainer.global_step == 2 and run.exists():
                run.rename(tmp_path / "elsewhere")
                if what == "replaced":
                    run.mkdir()
                if what == "deleted":
                    shutil.rmtree(tmp_path / "elsewhere")

    settings = {"logger": default_loggers(run)[0], "log_every_n_steps": 1} if writes == "metrics" else {}
    last = LastCheckpoint(every_n_train_steps=1 if writes == "checkpoints" else None)
    trainer = make_trainer(last, Goes(), max_steps=5, default_root_dir=run, limit_val_batches=0, **settings)
    with pytest.raises(Fault, match="was renamed or deleted while it ran"):
        trainer.fit(make_jepa(), datamodule=make_data())
    assert trainer.global_step in (2, 3, 4)
    assert what == "emptied" or not run.exists() or not list(run.rglob("*.c*"))


def test_what_is_put_back_is_as_it_was(tmp_path):
    for name in ("metrics.csv", "checkpoints/last.ckpt", "config.yaml", "probe/report.html", "view/masks.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("earlier")
    (tmp_path / "notes.txt").write_text("mine")
    before = everything(tmp_path)
    moved = set_aside(tmp_path)
    assert everything(tmp_path) == {"notes.txt", *(f"previous/1/{name}" for name in before - {"notes.txt"})}
    for name in ("metrics.csv", "config.yaml", "events.out.tfevents.1"):
        (tmp_path / name).write_text("new")
    assert put_back(tmp_path, moved)
    assert everything(tmp_path) == before
    assert (tmp_path / "config.yaml").read_text() == "earlier"


def test_without_an_earlier_run_what_was_there_stays(tmp_path):
    for name in ("config.yaml", "notes.txt"):
        (tmp_path / name).write_text("mine")
    before = outputs(tmp_path)
    for name in ("metrics.csv", "pictures/masks.png", "events.out.tfevents.1", "hparams.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("new")
    assert put_back(tmp_path, before=before)
    assert everything(tmp_path) == {"config.yaml", "notes.txt"}


def test_a_new_run_that_has_saved_something_keeps_the_folder(tmp_path):
    (tmp_path / "metrics.csv").write_text("earlier")
    moved = set_aside(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_text("new")
    assert not put_back(tmp_path, moved)
    assert everything(tmp_path) == {"checkpoints/last.ckpt", "previous/1/metrics.csv"}
