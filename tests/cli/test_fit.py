"""`jepa-fit` as a user meets it: a run, its files, and mistakes that end in one line."""

import csv
import io
import json
import os
import pickle
import shutil
import signal
from contextlib import redirect_stdout
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image as PILImage
from processes import holding
from short_runs import IMAGE, SHORT, Built

from jepa_lightning.cli.fit import fit
from jepa_lightning.cli.lightning_cli import JEPACLI
from jepa_lightning.run.resume import find_resumable, read_resumable

TINY = [
    *("--config", "image.yaml", "--trainer.accelerator", "cpu", "--trainer.devices", "1"),
    *("--model.modality.image_size", "32", "--model.modality.patch_size", "8"),
    *("--model.modality.masker.min_context", "2"),
    *("--model.modality.encoder.width", "16", "--model.modality.encoder.depth", "1"),
    *("--model.modality.encoder.heads", "2", "--model.predictor.width", "8", "--model.predictor.depth", "1"),
    *("--model.predictor.heads", "2", "--data.samples", "160", "--data.batch_size", "16"),
    *("--trainer.max_epochs", "2", "--trainer.check_val_every_n_epoch", "1", "--trainer.log_every_n_steps", "3"),
    *("--probe.c", "1"),
]


def run(tmp_path, *words):
    fit([*TINY, "--trainer.default_root_dir", str(tmp_path), *words])
    return json.loads((tmp_path / "summary.json").read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two epochs: its folder, its summary and what it printed."""
    folder = tmp_path_factory.mktemp("trained")
    with redirect_stdout(io.StringIO()) as shown:
        summary = run(folder)
    return folder, summary, shown.getvalue()


def refused(capsys, *words) -> str:
    with pytest.raises(SystemExit) as stop:
        fit(words)
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message[message.index("jepa-fit: error:") :]


def test_a_run_writes_what_the_readme_says(trained):
    folder, summary, shown = trained
    documented = [
        *("modality", "steps", "seconds", "samples_per_second", "train_loss", "effective_rank", "feature_std"),
        *("knn", "knn_untrained", "linear", "linear_untrained", "checkpoint"),
    ]
    assert list(summary)[: len(documented)] == documented
    continuous = {f"r2_{name}{twin}" for name in ("position", "size") for twin in ("", "_untrained")}
    assert set(list(summary)[len(documented) :]) == continuous
    assert summary["modality"] == "image"
    assert summary["steps"] == 20
    assert all(0 <= summary[k] <= 1 for k in ("knn", "knn_untrained", "linear", "linear_untrained"))
    assert Path(summary["checkpoint"]) == folder / "checkpoints" / "last.ckpt"
    state = torch.load(summary["checkpoint"], weights_only=True)
    assert state["global_step"] == 20
    assert state["hyper_parameters"]["modality"]["class_path"].endswith("Image")
    assert not any("probe" in key for key in state["state_dict"])
    assert (folder / "checkpoints" / "best.ckpt").is_file()
    assert (folder / "pictures" / "masks.png").is_file()
    assert len(list((folder / "pictures").glob("features_*.png"))) == 3
    assert list(folder.glob("events.out.tfevents.*"))
    assert yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["max_epochs"] == 2
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    for name in ("train/loss", "train/loss_prediction", "train/momentum", "train/lr", "train/weight_decay"):
        assert [row for row in rows if row[name]], name
    for name in ("collapse/effective_rank", "collapse/std", "probe/knn", "probe/linear_untrained", "val/loss"):
        assert [row for row in rows if row[name]], name
    assert "untrained" in shown
    assert "summary.json" in shown


def test_second_run_sets_the_first_aside_and_resume_does_not(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    first = (tmp_path / "metrics.csv").read_text()
    rows = len(first.splitlines())
    run(tmp_path, "--ckpt_path", "last", "--trainer.max_epochs", "3")
    assert not (tmp_path / "previous").exists()
    assert (tmp_path / "metrics.csv").read_text().startswith(first.splitlines()[0])
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) > rows
    assert json.loads((tmp_path / "summary.json").read_text())["steps"] == 30
    run(tmp_path)
    assert (tmp_path / "previous" / "1" / "summary.json").is_file()
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == rows


def test_jepa_loads_from_its_checkpoint_alone(trained):
    from jepa_lightning import JEPA

    model = JEPA.load_from_checkpoint(trained[1]["checkpoint"], weights_only=True)
    assert model.modality.image_size == (32, 32)
    assert model.embed({"image": torch.zeros(2, 3, 32, 32)}).shape == (2, 16)


def test_validate_judges_a_run_and_changes_nothing_of_it(trained, capsys):
    folder, *_ = trained

    def files():
        return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}

    before = files()
    fit(["validate", *TINY, "--trainer.default_root_dir", str(folder), "--ckpt_path", "last"])
    assert files() == before
    shown = capsys.readouterr().out
    assert "val/loss" in shown
    assert "probe/linear" in shown


def test_timm_encoder_is_one_line(tmp_path):
    words = [w for w in TINY if not w.startswith("--model.modality.encoder")]
    kept = [w for i, w in enumerate(TINY) if w in words and not TINY[i - 1].startswith("--model.modality.encoder")]
    options = ["--model.modality.encoder", "TimmEncoder", "--model.modality.encoder.name", "vit_tiny_patch16_224"]
    options += ["--model.modality.encoder.options", '{"depth": 1, "embed_dim": 16, "num_heads": 2}']
    fit([*kept, *options, "--trainer.max_steps", "2", "--trainer.default_root_dir", str(tmp_path)])
    assert json.loads((tmp_path / "summary.json").read_text())["steps"] == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--config", "imag.yaml"], "did you mean image.yaml?"),
        (["--model.modality.encoder", "TimEncoder"], "no class 'TimEncoder'; did you mean TimmEncoder?"),
        (["--model.modality", "Imag"], "no class 'Imag'; did you mean Image?"),
        (["--model.modality.encoder.widht", "3"], "no option 'widht'; did you mean width?"),
        (["--model.modality.encoder.name", "x", "--model.modality.encoder", "TimmEncoder"], ""),
        (["--model.modality.masker", "MultiBlok"], "no class 'MultiBlok'; did you mean MultiBlock?"),
        (["--data.batchsize", "16"], "ImageData has no option 'batchsize'; did you mean batch_size?"),
        (["--model.modality.masker", "my_package.Own"], "cannot import my_package.Own: No module named 'my_package'"),
        (["--trainer.max_epocs", "3"], "no option --trainer.max_epocs; did you mean --trainer.max_epochs?"),
        (["--model.modality.image_size", "big"], "expected int or tuple, got big"),
        (["--model.modality.image_size", "4"], "smaller than a patch of"),
        (["--model.modality.image_size", "50", "--model.modality.patch_size", "7"], "whole number of patches"),
        (["--data.root", "no/such/folder"], "no folder"),
    ],
)
def test_mistakes_end_in_a_short_message(tmp_path, capsys, words, says):
    config = [] if "--config" in words else ["--config", "image.yaml"]
    message = refused(capsys, *config, *words, "--trainer.default_root_dir", str(tmp_path))
    assert says in message
    assert len(message.splitlines()) <= 8


def test_grid_that_masks_do_not_fit(tmp_path, capsys):
    words = [*TINY, "--model.modality.patch_size", "16", "--model.modality.masker.min_context", "10"]
    message = refused(capsys, *words, "--trainer.default_root_dir", str(tmp_path))
    assert "(2, 2)" in message or "2x2" in message or "2 x 2" in message


def folder_of_images(root: Path, count: int, broken: int) -> Path:
    for i in range(count):
        path = root / ("a" if i % 2 else "b") / f"{i:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        PILImage.new("RGB", (40, 40), (i, 90, 200 - i)).save(path)
        if i < broken:
            path.write_bytes(path.read_bytes()[:200])
    return root


def test_empty_folder(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    message = refused(capsys, *TINY, "--data.root", str(tmp_path / "images"))
    assert "images" in message


@pytest.mark.long
@pytest.mark.parametrize("workers", ["0", "1"])
def test_broken_jpeg_is_skipped_counted_and_named(tmp_path, caplog, workers):
    root = folder_of_images(tmp_path / "images", 120, broken=1)
    words = [
        "--data.root",
        str(root),
        "--data.num_workers",
        workers,
        "--data.cache",
        "false",
        "--trainer.max_epochs",
        "1",
    ]
    assert run(tmp_path / "run", *words)["steps"] > 0
    assert "000.jpg" in caplog.text


def test_many_broken_jpegs_end_the_run_with_the_list(tmp_path, capsys):
    root = folder_of_images(tmp_path / "images", 120, broken=9)
    message = refused(capsys, *TINY, "--data.root", str(root), "--trainer.default_root_dir", str(tmp_path / "run"))
    assert "000.jpg" in message


def test_unlabelled_folder_has_no_probe(tmp_path):
    root = tmp_path / "flat"
    root.mkdir()
    for path in folder_of_images(tmp_path / "images", 100, broken=0).rglob("*.jpg"):
        path.rename(root / path.name)
    summary = run(tmp_path / "run", "--data.root", str(root), "--trainer.max_epochs", "1")
    assert summary["knn"] is None
    assert summary["linear_untrained"] is None


def test_print_config_of_the_words_in_the_shell(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["jepa-fit", "--config", "image.yaml", "--print_config"])
    with pytest.raises(SystemExit) as stop:
        fit()
    assert stop.value.code in (0, None)
    assert yaml.safe_load(capsys.readouterr().out)["model"]["modality"]["class_path"].endswith("Image")


# Trainer options and other subcommands -----------------------------------------------------------------------------


def test_without_checkpoints(tmp_path, capsys):
    shortly = ("--trainer.max_steps", "2", "--trainer.enable_checkpointing", "false")
    assert run(tmp_path, *shortly)["checkpoint"] is None
    assert not list(tmp_path.rglob("*.ckpt"))
    assert (tmp_path / "metrics.csv").is_file()
    assert "jepa-probe" not in capsys.readouterr().out  # which would find nothing


@pytest.mark.parametrize("name", ["image", "graph"])
def test_bare_steps_write_nothing(tmp_path, name):
    words = [*TINY, "--trainer.max_steps", "2"] if name == "image" else ["--config", "graph.yaml", *BARE_GRAPH]
    fit([*words, "--trainer.barebones", "true", "--trainer.default_root_dir", str(tmp_path)])
    assert not list(tmp_path.iterdir())


BARE_GRAPH = [
    "--trainer.max_steps",
    "2",
    "--trainer.accelerator",
    "cpu",
    "--trainer.devices",
    "1",
    "--data.samples",
    "64",
]


@pytest.mark.parametrize(("word", "instead"), [("predict", "jepa-embed"), ("test", "jepa-probe")])
def test_other_commands_stand_in_for_some_subcommands(capsys, word, instead):
    assert instead in refused(capsys, word, *TINY)
    fit(["--help"])
    assert f"jepa-fit {word}" not in capsys.readouterr().out


# Checkpoints and folders that are none ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of three steps."""
    folder = tmp_path_factory.mktemp("finished")
    fit([*SHORTLY, "--trainer.default_root_dir", str(folder)])
    return folder


def test_a_mistake_leaves_a_finished_run_as_it_is(tmp_path, finished, capsys):
    folder = shutil.copytree(finished, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit):
        fit([*SHORTLY, "--trainer.default_root_dir", str(folder), "--data.root", str(tmp_path / "photoes")])
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert {path for path in after if path.name != ".lock"} == {path for path in before if path.name != ".lock"}
    assert all(after[path] == before[path] for path in before if path.name != ".lock")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--trainer.accumulate_grad_batches", "0"], "trainer.accumulate_grad_batches of at least 1, got 0"),
        (["--trainer.check_val_every_n_epoch", "0"], "trainer.check_val_every_n_epoch of at least 1, got 0"),
        (["--trainer.gradient_clip_val", "-1"], "trainer.gradient_clip_val of at least 0"),
        (["--model.learning_rate", "-1"], "expected a learning rate and a weight decay of at least 0 at every step"),
        (["--probe.k", "0"], "expected k of at least 1"),
        (["--data.seed", "-1"], "a seed from 0, got 2000 and -1"),
        (["--data.num_workers", "1000"], "expected num_workers from 0 to 512"),
        (["--trainer.accelerator", "tpu"], "torch_xla"),
    ],
)
def test_numbers_that_lightning_or_torch_would_fail_by(tmp_path, capsys, words, says):
    assert says in refused(capsys, *SHORTLY, "--trainer.default_root_dir", str(tmp_path / "run"), *words)


def test_how_long_processes_wait_for_each_other(tmp_path, capsys):
    words = [*SHORTLY, "--trainer.default_root_dir", str(tmp_path), "--trainer.strategy", "ddp", "--process_timeout"]
    assert Built([*words, "2"]).trainer.strategy._timeout == timedelta(minutes=2)
    assert "expected a process_timeout of more than 0 minutes, got 0" in refused(capsys, *words, "0")


@pytest.mark.parametrize("there", [False, True])
def test_a_mistake_in_a_new_run_leaves_nothing(tmp_path, capsys, there):
    folder = tmp_path / "runs" / "image"
    if there:
        folder.mkdir(parents=True)
        (folder / "notes.txt").write_text("mine")
    words = ["--trainer.default_root_dir", str(folder), "--data.root", str(tmp_path / "photoes")]
    assert "there is no folder" in refused(capsys, *SHORTLY, *words, "--trainer.logger", "true")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")] == ["runs/image/notes.txt"] * there
    assert (tmp_path / "runs").exists() == there


@pytest.mark.parametrize("words", [["--trainer.max_steps", "0"], ["--trainer.limit_train_batches", "0"]])
def test_a_run_of_no_step_leaves_nothing(tmp_path, finished, caplog, words):
    folder = shutil.copytree(finished, tmp_path / "run")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with caplog.at_level("INFO"):
        fit([*SHORTLY, "--trainer.default_root_dir", str(folder), *words])
    assert f"No step was made: {folder} is as it was before" in caplog.text
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


SHORTLY = ["fit", "--config", "image.yaml", *SHORT, *IMAGE, "--trainer.max_steps", "3", "--trainer.max_epochs", "100"]


def spoilt(folder, how, original):
    """What somebody may give as a checkpoint."""
    path = folder / "strange" / "last.ckpt"
    path.parent.mkdir()
    content = original.read_bytes()
    if how == "folder":
        path.mkdir()
    elif how in ("weights", "state"):
        state = torch.load(original, weights_only=True)
        torch.save({"state_dict": state["state_dict"]} if how == "weights" else state["state_dict"], path)
    elif how == "npz":
        np.savez(path.with_suffix(".npz"), features=np.zeros(3))
        return path.with_suffix(".npz")
    elif how == "code":
        path.write_bytes(pickle.dumps({"state_dict": os.system}))
    else:
        kinds = {"empty": b"", "cut": content[:-200], "garbage": b"abcdefgh" * 100, "text": b"model: {}\n"}
        path.write_bytes(kinds[how])
    return path


KINDS = ["empty", "cut", "garbage", "text", "folder", "npz", "code", "weights", "state"]


@pytest.mark.parametrize("how", [*KINDS, "/dev/null", "/not/there"])
def test_what_is_no_checkpoint_to_resume_from(tmp_path, finished, how):
    given = how if how.startswith("/") else spoilt(tmp_path, how, finished / "checkpoints" / "last.ckpt")
    with pytest.raises(ValueError, match=r"^expected ") as error:
        read_resumable(find_resumable(tmp_path, given, tidied=False))
    assert str(given) in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert "weights_only" not in str(error.value)


@pytest.mark.parametrize(
    ("how", "command"), [("cut", "fit"), ("code", "fit"), ("garbage", "auto"), ("folder", "auto"), ("npz", "validate")]
)
def test_what_is_no_checkpoint(tmp_path, finished, capsys, how, command):
    path = spoilt(tmp_path, how, finished / "checkpoints" / "last.ckpt")
    words = [("validate" if command == "validate" else "fit"), *SHORTLY[1:], "--trainer.default_root_dir"]
    if command == "auto":
        (tmp_path / "run").mkdir()
        os.rename(tmp_path / "strange", tmp_path / "run" / "checkpoints")
        words += [str(tmp_path / "run"), "--auto_resume", "true"]
    else:
        words += [str(tmp_path / "run"), "--ckpt_path", str(path)]
    message = refused(capsys, *words)
    assert "expected" in message
    assert len(message.splitlines()) <= 4, message


@pytest.mark.parametrize("form", ["last", "best", "RUN", "RUN/checkpoints/last.ckpt", "elsewhere"])
def test_nothing_is_left_to_train(tmp_path, finished, caplog, form):
    """In whatever form the checkpoint is named, and whatever is asked for that is done."""
    folder = tmp_path / "run" if form == "elsewhere" else finished
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    if form == "best":
        shutil.copytree(finished, folder := tmp_path / "run")
        shutil.copy(folder / "checkpoints" / "last.ckpt", folder / "checkpoints" / "best.ckpt")
    path = str(finished) if form == "elsewhere" else form.replace("RUN", str(finished))
    steps = "2" if form in ("best", "RUN") else "3"
    with pytest.raises(SystemExit) as stop, caplog.at_level("INFO"):
        fit([*SHORTLY, "--trainer.default_root_dir", str(folder), "--ckpt_path", path, "--trainer.max_steps", steps])
    assert stop.value.code == 0
    assert "after 3 steps: nothing is left to train" in caplog.text
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--model.modality.patch_size", "4"], "model.modality.patch_size: 8 -> 4"),
        (["--model.modality.encoder.depth", "2"], "missing: encoder.transformer.layers.1"),
        (["--model.optimizer", "torch.optim.SGD"], "expected the state of an optimiser SGD"),
    ],
)
def test_a_run_of_other_sizes_or_another_optimiser_does_not_resume(tmp_path, finished, capsys, words, says):
    more = ["--trainer.default_root_dir", str(tmp_path), "--ckpt_path", str(finished), "--trainer.max_steps", "4"]
    assert says in refused(capsys, *SHORTLY, *more, *words)


def test_what_has_changed_is_said_and_the_earlier_settings_are_kept(tmp_path, finished, caplog):
    shutil.copytree(finished, tmp_path / "run")
    before = (tmp_path / "run" / "config.yaml").read_text()
    changes = [
        *("--model.modality.masker", "Random", "--model.objective", "MSE", "--model.learning_rate.peak", "0.01"),
        *("--model.regularizers", "null", "--seed_everything", "9", "--data.samples", "64"),
        *("--data.crop_scale", "[0.9,1.0]", "--trainer.max_steps", "4"),
    ]
    with caplog.at_level("INFO"):
        fit([*SHORTLY, "--trainer.default_root_dir", str(tmp_path / "run"), "--auto_resume", "true", *changes])
    for line in (
        "model.modality.masker: MultiBlock -> Random",
        "model.objective: null -> MSE",
        "model.learning_rate.peak: 0.004 -> 0.01",
        "model.regularizers: ",
        "seed_everything: 0 -> 9",
        "data.samples: 48 -> 64",
        "data.crop_scale: [0.3, 1.0] -> [0.9, 1.0]",
        "trainer.max_steps: 3 -> 4",
        "kept in config_1.yaml",
    ):
        assert line in caplog.text
    assert (tmp_path / "run" / "config_1.yaml").read_text() == before
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 4


def test_a_run_that_is_under_way_is_left_alone(tmp_path, finished, capsys):
    shutil.copytree(finished, tmp_path / "run")
    with holding(tmp_path / "run" / ".lock") as other:
        for words in ([], ["--auto_resume", "true"], ["--ckpt_path", "last"]):
            message = refused(capsys, *SHORTLY, "--trainer.default_root_dir", str(tmp_path / "run"), *words)
            assert f"one is under way there (process {other.pid} on " in message
    assert not (tmp_path / "run" / "previous").exists()
    assert (tmp_path / "run" / "summary.json").read_bytes() == (finished / "summary.json").read_bytes()


@pytest.mark.parametrize("place", ["", "summary.json", "pictures"])
def test_a_file_where_a_folder_should_be_or_the_other_way_round(tmp_path, capsys, place):
    run = tmp_path / "run"
    if place in ("", "pictures"):
        (run / place).parent.mkdir(parents=True, exist_ok=True)
        (run / place).write_text("")
    else:
        (run / place).mkdir(parents=True)
    words = [*SHORTLY, "--trainer.logger", "true", "--pictures.enabled", "true", "--trainer.default_root_dir", str(run)]
    if place in ("", "pictures"):
        assert str(run / place) in refused(capsys, *words)
    else:  # taken for what an earlier run has left
        fit(words)
        assert (run / "previous" / "1" / place).exists()


def test_a_metric_that_is_not_there(tmp_path, capsys):
    config = tmp_path / "early.yaml"
    config.write_text("trainer:\n  callbacks:\n  - class_path: EarlyStopping\n    init_args: {monitor: val_loss}\n")
    words = ["--config", str(config), "--trainer.default_root_dir", str(tmp_path / "run"), "--trainer.max_steps", "-1"]
    message = refused(capsys, *SHORTLY, *words)
    assert "no metric 'val_loss' is logged; did you mean val/loss?" in message
    assert f"{tmp_path / 'run' / 'checkpoints' / 'last.ckpt'} is complete" in message


def test_ctrl_c_before_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(JEPACLI, "instantiate_classes", lambda self: signal.raise_signal(signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(SystemExit) as stop:
            fit([*SHORTLY, "--trainer.default_root_dir", str(tmp_path)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert stop.value.code == 130


PLAIN = """
import torch
from lightning.pytorch import LightningModule


class Classifier(LightningModule):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, width), torch.nn.Linear(width, 8))

    def step(self, batch):
        return torch.nn.functional.cross_entropy(self.net(batch["image"]), next(iter(batch["labels"].values())) % 8)

    def training_step(self, batch, batch_idx):
        loss = self.step(batch)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.step(batch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
"""


@pytest.mark.parametrize("by", ["yaml", "option"])
def test_any_lightning_module_is_trained_where_its_class_is_named(tmp_path, monkeypatch, by):
    """With everything around it: checkpoints, the folder, the summary; what only a JEPA has is left out."""
    (tmp_path / "plainmodule.py").write_text(PLAIN)
    monkeypatch.syspath_prepend(tmp_path)
    words = ["--data", "ImageData", "--data.samples", "48", "--data.batch_size", "16", "--data.image_size", "16"]
    words += [
        "--data.channels",
        "3",
        "--data.num_workers",
        "0",
        "--trainer.max_steps",
        "2",
        "--trainer.accelerator",
        "cpu",
    ]
    if by == "yaml":
        config = tmp_path / "plain.yaml"
        config.write_text("model: {class_path: plainmodule.Classifier, init_args: {width: 5}}\n")
        words = ["--config", str(config), *words]
    else:
        words += ["--model", "plainmodule.Classifier", "--model.width", "5"]
    fit([*words, "--trainer.enable_progress_bar", "false", "--trainer.default_root_dir", str(tmp_path / "run")])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["steps"] == 2
    assert summary["train_loss"] is not None
    assert summary["modality"] is summary["effective_rank"] is summary["linear"] is None
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert state["net.1.weight"].shape == (5, 768)
