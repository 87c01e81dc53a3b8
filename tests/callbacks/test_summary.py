"""The end of a run: summary.json and the table."""

import ast
import json
import sys
import time
import types
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import RichProgressBar
from torch.utils.data import Dataset

import jepa_lightning
import modalities
from jepa_lightning.callbacks import CollapseMonitor, OnlineProbe, RunSummary, default_callbacks
from jepa_lightning.callbacks.summary import table
from jepa_lightning.encoders import ViT

KEYS = [
    *("modality", "steps", "seconds", "samples_per_second", "train_loss", "effective_rank", "feature_std"),
    *("knn", "knn_untrained", "linear", "linear_untrained", "checkpoint"),
]


class Unlabelled(Dataset):
    def __len__(self):
        return 48

    def __getitem__(self, index):
        return torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(index))


def fit(make_trainer, jepa, data, *callbacks, **settings):
    trainer = make_trainer(*default_callbacks(), *callbacks, **{"max_epochs": 2, **settings})
    start = time.perf_counter()
    trainer.fit(jepa, datamodule=data)
    return trainer, time.perf_counter() - start


def read(tmp_path):
    def refuse(name):
        raise ValueError(f"{name} is no JSON")

    return json.loads((tmp_path / "summary.json").read_text(), parse_constant=refuse)


def test_the_summary_has_the_documented_keys(make_trainer, make_jepa, make_data, tmp_path, capsys):
    trainer, took = fit(make_trainer, make_jepa(), make_data())
    summary = read(tmp_path)
    continuous = {f"r2_{name}{twin}" for name in ("position", "size") for twin in ("", "_untrained")}
    assert set(summary) == set(KEYS) | continuous  # of the generated images
    assert all(summary[key] == pytest.approx(float(trainer.callback_metrics[f"probe/{key}"])) for key in continuous)
    assert summary["modality"] == "image"
    assert summary["steps"] == 12
    assert 0 < summary["seconds"] <= took
    assert summary["samples_per_second"] > 0
    assert summary["checkpoint"] == str(tmp_path / "checkpoints" / "last.ckpt")
    metrics = trainer.callback_metrics
    for key, name in (
        ("train_loss", "train/loss"),
        ("effective_rank", "collapse/effective_rank"),
        ("feature_std", "collapse/std"),
        ("knn", "probe/knn"),
        ("knn_untrained", "probe/knn_untrained"),
        ("linear", "probe/linear"),
        ("linear_untrained", "probe/linear_untrained"),
    ):
        assert summary[key] == pytest.approx(float(metrics[name])), key
    printed = capsys.readouterr().out
    for key in KEYS:
        assert key.removesuffix("_untrained") in printed
    assert "untrained" in printed


def test_numbers_that_a_run_cannot_have_are_null(make_trainer, make_jepa, make_data, tmp_path, capsys):
    fit(make_trainer, make_jepa(), make_data(dataset=Unlabelled()))
    summary = read(tmp_path)
    assert sorted(summary) == sorted(KEYS)
    assert {key for key in KEYS if summary[key] is None} == {"knn", "knn_untrained", "linear", "linear_untrained"}
    assert "-" in capsys.readouterr().out


def test_a_run_alone_with_its_summary(make_trainer, make_jepa, make_data, tmp_path):
    trainer = make_trainer(RunSummary(), max_steps=2)
    trainer.fit(make_jepa(), datamodule=make_data())
    summary = read(tmp_path)
    assert {key for key in KEYS if summary[key] is not None} == {
        *("modality", "steps", "seconds", "samples_per_second", "train_loss")
    }


def test_a_diverged_run_still_writes_json(make_trainer, make_jepa, make_data, tmp_path):
    class Diverged(ViT):
        def forward(self, tokens, keep=None, keep_valid=None):
            return super().forward(tokens, keep, keep_valid) * float("nan")

    jepa = make_jepa(encoder=lambda spec: Diverged(spec, width=32, depth=1, heads=2))
    trainer = make_trainer(CollapseMonitor(), OnlineProbe(), RunSummary(), max_epochs=2)  # without what would stop it
    trainer.fit(jepa, datamodule=make_data())
    summary = read(tmp_path)
    assert summary["steps"] == 12
    assert {summary[key] for key in ("train_loss", "effective_rank", "knn", "linear")} == {None}


def test_the_rate_counts_training_and_not_validation(make_trainer, make_jepa, make_data, tmp_path):
    class Sleep(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            time.sleep(0.05)

        def on_validation_epoch_start(self, trainer, pl_module):
            time.sleep(0.5)

    jepa = make_jepa()
    settings = {"max_epochs": 2, "num_sanity_val_steps": 0, "log_every_n_steps": 50}
    trainer = make_trainer(RunSummary(), Sleep(), **settings)
    trainer.fit(jepa, datamodule=make_data())
    summary = read(tmp_path)
    samples = 2 * 6 * 16
    assert summary["seconds"] >= 2 * 0.5 + 12 * 0.05
    assert summary["samples_per_second"] <= samples / (12 * 0.05)
    assert samples / summary["samples_per_second"] <= summary["seconds"] - 2 * 0.5 + 0.02  # validation is left out


def test_the_rate_is_logged_on_the_way(make_trainer, make_jepa, make_data):
    trainer = make_trainer(RunSummary(), max_steps=4, limit_val_batches=0)
    trainer.fit(make_jepa(), datamodule=make_data())
    assert trainer.callback_metrics["train/samples_per_second"] > 0


def test_a_run_that_was_already_complete_keeps_its_summary(make_trainer, make_jepa, make_data, tmp_path):
    fit(make_trainer, make_jepa(), make_data(), max_epochs=1)
    before = read(tmp_path)
    fitted = make_trainer(*default_callbacks(), max_epochs=1)
    fitted.fit(make_jepa(), datamodule=make_data(), ckpt_path="last")
    assert read(tmp_path) == before


def test_the_table_puts_probes_beside_their_untrained_twins():
    summary = dict.fromkeys(KEYS) | {"knn": 0.5, "knn_untrained": 0.25, "linear": 0.4, "steps": 1234}
    lines = {line.split()[0]: line.split()[1:] for line in table(summary).splitlines() if line}
    assert lines["probe"] == ["trained", "untrained", "difference"]
    assert lines["knn"] == ["0.500", "0.250", "+0.250"]
    assert lines["linear"] == ["0.400", "-", "-"]
    assert lines["steps"] == ["1234"]
    assert lines["train_loss"] == ["-"]
    lines = table(summary | {"r2_size": 0.25, "r2_size_untrained": -0.5}).splitlines()
    assert any(line.split() == ["r2_size", "0.250", "-0.500", "+0.750"] for line in lines)


@pytest.fixture
def notebook(monkeypatch):
    """What rich imports in a notebook: each drawing flushes standard output first, as IPython's kernel does."""
    pytest.importorskip("rich")
    shell, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    display.display = lambda *args, **kwargs: sys.stdout.flush()
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)  # rich says that it would like it


@pytest.mark.parametrize("where", ["force_jupyter", "force_terminal"])
@pytest.mark.filterwarnings("ignore:install")
def test_a_run_ends_well_under_a_rich_progress_bar(make_trainer, make_jepa, make_data, notebook, tmp_path, where):
    """Its live display stands in for sys.stdout until fit has ended, and a print of several lines ended in a
    RecursionError."""
    bar, stdout = RichProgressBar(console_kwargs={where: True}), sys.stdout
    trainer = make_trainer(*default_callbacks(), bar, max_steps=2, enable_progress_bar=True)
    trainer.fit(make_jepa(), datamodule=make_data(samples=32))
    assert trainer.state.finished
    assert sys.stdout is stdout
    assert read(tmp_path)["steps"] == 2


def test_what_callbacks_and_modalities_print_goes_through_say():
    folders = [Path(jepa_lightning.__file__).parent / "callbacks", Path(modalities.__file__).parent]
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert "print" not in [call.id for call in calls if isinstance(call, ast.Name)], path
