"""The online probe: its numbers, its untrained row, and that it leaves nothing behind."""

import copy

import pytest
import torch
from lightning.pytorch import Callback
from torch.utils.data import Dataset

from jepa_lightning.callbacks import BestCheckpoint, LastCheckpoint, OnlineProbe
from jepa_lightning.evaluation import Features, probe
from jepa_lightning.tokens import Tokens
from modalities.image import ImageData


class Images(Dataset):
    """Squares whose brightness tells the class; `labels(index)` gives what each sample is labelled with."""

    def __init__(self, count=48, labels=lambda index: index % 3):
        self.images = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(count))
        self.images += torch.arange(count).view(-1, 1, 1, 1) % 3
        self.label = labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        labels = self.label(index)
        return {"image": self.images[index], "labels": {} if labels is None else labels}


class Log(Callback):
    """What is logged at each validation."""

    def __init__(self):
        self.rows = []

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.rows.append({k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("probe/")})


def direct(encoder, data, k=20, c=1.0):
    """The probe done by hand, without trainer or callback."""
    sets = []
    for loader in (data.probe_dataloader(), data.val_dataloader()):
        batches = list(loader)
        patches = [b["image"].unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5) for b in batches]
        positions = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0))[None]
        with torch.no_grad():
            values = [
                encoder(Tokens(values=p.reshape(len(p), 16, 3, 8, 8), positions=positions)).mean(1) for p in patches
            ]
        labels = {name: torch.cat([b["labels"][name] for b in batches]) for name in batches[0]["labels"]}
        sets.append(Features(values=torch.cat(values), labels=labels))
    return probe(*sets, k=k, c=c)


def rows(*names):
    """What is logged under these names, with the untrained twins."""
    return {f"probe/{name}{twin}" for name in names for twin in ("", "_untrained")}


NAMES = rows("knn", "linear", "r2_position", "r2_size")  # of the generated images


def test_rows_are_those_of_a_direct_evaluation(make_trainer, make_jepa, make_data):
    jepa, data, log = make_jepa(), make_data(), Log()
    before = copy.deepcopy(jepa.evaluated_encoder)
    trainer = make_trainer(OnlineProbe(k=7, c=0.1), log, max_epochs=2)
    trainer.fit(jepa, datamodule=data)
    assert len(log.rows) == 2
    assert all(set(row) == NAMES for row in log.rows)
    untrained, trained = direct(before, data, k=7, c=0.1), direct(jepa.evaluated_encoder, data, k=7, c=0.1)
    for name in ("knn", "linear", "r2_position", "r2_size"):
        assert all(row[f"probe/{name}_untrained"] == pytest.approx(untrained[name], abs=1e-6) for row in log.rows)
        assert log.rows[-1][f"probe/{name}"] == pytest.approx(trained[name], abs=1e-6)


def test_the_target_is_what_is_probed(make_trainer, make_jepa, make_data):
    jepa, data, log = make_jepa(), make_data(), Log()
    untrained = direct(jepa.evaluated_encoder, data, c=None)
    with torch.no_grad():
        for parameter in jepa.encoder.parameters():
            parameter.zero_()
    trainer = make_trainer(OnlineProbe(), log, max_epochs=1, limit_train_batches=1)
    trainer.fit(jepa, datamodule=data)
    assert log.rows[0]["probe/linear_untrained"] == untrained["linear"]


def test_a_resumed_run_shows_the_same_untrained_row(make_trainer, make_jepa, make_data):
    log = Log()
    make_trainer(OnlineProbe(c=1.0), LastCheckpoint(), log, max_epochs=1).fit(make_jepa(), datamodule=make_data())
    resumed = Log()
    jepa = make_jepa()
    trainer = make_trainer(OnlineProbe(c=1.0), LastCheckpoint(), resumed, max_epochs=2)
    with torch.random.fork_rng():
        last = trainer.default_root_dir + "/checkpoints/last.ckpt"
        trainer.fit(jepa, datamodule=make_data(), ckpt_path=last)
    assert trainer.global_step == 12
    assert len(resumed.rows) == 1
    for name in ("probe/knn_untrained", "probe/linear_untrained"):
        assert resumed.rows[0][name] == log.rows[0][name]
    trained = direct(jepa.evaluated_encoder, make_data())
    assert resumed.rows[0]["probe/linear"] == trained["linear"]


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_the_untrained_row_of_a_resumed_run_is_not_that_of_the_checkpoint(
    make_trainer, make_jepa, make_data, precision
):
    """With a target whose weights the checkpoint changes beyond doubt."""
    jepa = make_jepa()
    make_trainer(LastCheckpoint(), max_epochs=1, limit_val_batches=0).fit(jepa, datamodule=make_data())
    path = make_trainer().default_root_dir + "/checkpoints/last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    for name, value in checkpoint["state_dict"].items():
        if name.startswith("target."):
            value.zero_()
    torch.save(checkpoint, path)
    log, jepa = Log(), make_jepa()
    expected = direct(jepa.evaluated_encoder, make_data())
    probe = OnlineProbe(c=1.0)
    trainer = make_trainer(probe, log, max_epochs=2, limit_train_batches=1, precision=precision)
    trainer.fit(jepa, datamodule=make_data(), ckpt_path=path)
    assert set(log.rows[0]) == NAMES
    if precision == "32-true":
        assert log.rows[0]["probe/linear_untrained"] == expected["linear"]
        assert log.rows[0]["probe/knn_untrained"] == expected["knn"]
    assert probe._before is None  # nor is the copy kept


def test_it_leaves_nothing_in_the_checkpoint(make_trainer, make_jepa, make_data, tmp_path):
    saved = {}
    for name, callbacks in (("with", [OnlineProbe(c=1.0), LastCheckpoint()]), ("without", [LastCheckpoint()])):
        trainer = make_trainer(*callbacks, max_epochs=1, default_root_dir=tmp_path / name)
        trainer.fit(make_jepa(), datamodule=make_data())
        saved[name] = torch.load(trainer.default_root_dir + "/checkpoints/last.ckpt", weights_only=True)
    assert saved["with"]["state_dict"].keys() == saved["without"]["state_dict"].keys()
    assert saved["with"]["callbacks"].keys() == saved["without"]["callbacks"].keys()
    assert not any("Probe" in name for name in saved["with"]["callbacks"])
    assert len(saved["with"]["optimizer_states"][0]["state"]) == len(saved["without"]["optimizer_states"][0]["state"])


NO_PROBE = {
    "no labels": {"dataset": Images(labels=lambda index: None)},
    "no validation labels": {"dataset": Images(), "val_dataset": Images(12, labels=lambda index: None)},
    "no validation data": {"dataset": Images(), "val_fraction": 0.0},
    "labels that are vectors": {"dataset": Images(labels=lambda index: {"many": torch.zeros(3, dtype=torch.int64)})},
}


@pytest.mark.parametrize("settings", NO_PROBE.values(), ids=NO_PROBE.keys())
def test_data_without_classes_have_no_probe(make_trainer, make_jepa, make_data, settings):
    settings = {name: _labelled(value) for name, value in settings.items()}
    log, callback = Log(), OnlineProbe(c=1.0)
    trainer = make_trainer(callback, log, max_epochs=1)
    trainer.fit(make_jepa(), datamodule=make_data(**settings))
    assert not any(log.rows)
    assert not callback.applies(trainer)
    assert trainer.global_step > 0


def _labelled(value):
    """`Images` whose labels are given as a dict, so that the data module takes them as they are."""
    if isinstance(value, Images):
        plain = value.label
        value = copy.copy(value)
        value.label = lambda index: {"shape": plain(index)} if isinstance(plain(index), int) else plain(index)
    return value


def test_classes_are_found_among_other_labels(make_trainer, make_jepa, make_data):
    data = make_data(dataset=Images(labels=lambda index: {"size": index / 48, "shape": index % 3}))
    log = Log()
    make_trainer(OnlineProbe(c=1.0), log, max_epochs=1).fit(make_jepa(), datamodule=data)
    assert set(log.rows[0]) == rows("knn", "linear", "r2_size")


def test_continuous_labels_alone(make_trainer, make_jepa, make_data):
    """Brightness, given as a number: read off well, without any class; the best checkpoint goes by it."""
    bright = Images(labels=lambda index: {"none": torch.zeros(3, dtype=torch.int64), "bright": float(index % 3)})
    log, best = Log(), BestCheckpoint()
    trainer = make_trainer(OnlineProbe(c=1.0), best, log, max_epochs=1)
    trainer.fit(make_jepa(), datamodule=make_data(dataset=bright, val_dataset=bright))
    assert set(log.rows[0]) == rows("r2_bright")
    assert log.rows[0]["probe/r2_bright_untrained"] > 0.9
    assert best.monitor == "probe/r2_bright"
    assert float(best.best_model_score) == pytest.approx(log.rows[0]["probe/r2_bright"])


def test_a_label_that_does_not_exist_is_an_error_with_those_that_do(make_trainer, make_jepa, make_data):
    """Before the first step, though the probe's own first turn is at the first validation."""
    trainer = make_trainer(OnlineProbe(label="colour"), max_epochs=1)
    with pytest.raises(ValueError, match=r"no class label 'colour' in the data.*'shape'"):
        trainer.fit(make_jepa(), datamodule=make_data())
    assert trainer.global_step == 0


def test_a_run_of_a_few_steps_reads_nothing_for_the_probe(make_trainer, make_jepa, make_data, monkeypatch):
    """Its work is done at validations: both encoders in one pass over the data, and loaders that are kept."""
    passes, made = [], []
    score, loader = OnlineProbe.score, ImageData.probe_dataloader
    monkeypatch.setattr(OnlineProbe, "score", lambda *a: passes.append(len(a[3])) or score(*a))
    monkeypatch.setattr(ImageData, "probe_dataloader", lambda data: made.append(loader(data)) or made[-1])
    make_trainer(OnlineProbe(c=1.0), max_steps=2).fit(make_jepa(), datamodule=make_data())
    assert passes == []
    made.clear()
    make_trainer(OnlineProbe(c=1.0), max_epochs=3).fit(make_jepa(), datamodule=make_data())
    assert passes == [2, 1, 1]
    assert len(made) == 1


def test_it_can_be_switched_off(make_trainer, make_jepa, make_data):
    log = Log()
    make_trainer(OnlineProbe(enabled=False), log, max_epochs=1).fit(make_jepa(), datamodule=make_data())
    assert log.rows == [{}]


def test_validate_probes_too(make_trainer, make_jepa, make_data):
    """`trainer.validate` runs in inference mode, where no classifier can be fitted without care."""
    jepa, data = make_jepa(), make_data()
    found = make_trainer(OnlineProbe(c=1.0)).validate(jepa, datamodule=data, verbose=False)[0]
    assert found["probe/linear"] == pytest.approx(direct(jepa.evaluated_encoder, data)["linear"])
    assert "probe/linear_untrained" not in found


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_half_precision_runs_are_probed(precision, make_trainer, make_jepa, make_data):
    log = Log()
    trainer = make_trainer(OnlineProbe(c=1.0), log, max_epochs=1, precision=precision)
    trainer.fit(make_jepa(), datamodule=make_data())
    assert set(log.rows[0]) == NAMES
