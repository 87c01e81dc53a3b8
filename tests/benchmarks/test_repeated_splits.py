"""Repeated splits of a small labelled set: what is trained on, what is scored, and nothing twice."""

import json

import h5py
import numpy as np
import pytest
import torch
import yaml

from benchmarks import repeated_splits
from jepa_lightning.encoders.pooling import pool_tokens
from jepa_lightning.evaluation.probes import protocols


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def write_clouds(path, labels, seed):
    """Clouds of 32 points: flat ones of class 0, long ones of class 1."""
    rng = np.random.default_rng(seed)
    shapes = np.array([[1, 1, 0.1], [0.2, 0.2, 1]])[labels]
    with h5py.File(path, "w") as file:
        file["data"] = (rng.uniform(-1, 1, size=(len(labels), 32, 3)) * shapes[:, None]).astype(np.float32)
        file["label"] = np.array(labels, dtype=np.uint8)


@pytest.fixture
def words(tmp_path, monkeypatch):
    monkeypatch.setattr(protocols, "C_GRID", (0.1, 1.0))  # most of the time
    monkeypatch.setattr(protocols, "_INNER_FOLDS", 2)
    root = tmp_path / "clouds"
    root.mkdir()
    write_clouds(root / "train.h5", [0, 1] * 9, seed=0)
    write_clouds(root / "test.h5", [0, 1] * 3, seed=1)
    encoder = {"class_path": "ViT", "init_args": {"width": 16, "depth": 1, "heads": 2}}
    modality = {"points": 32, "groups": 8, "group_size": 8, "encoder": encoder}
    predictor = {"class_path": "TransformerPredictor", "init_args": {"width": 8, "depth": 1, "heads": 2}}
    recipe = {
        "model": {"modality": {"class_path": "PointCloud", "init_args": modality}, "predictor": predictor},
        "data": {"class_path": "PointCloudData", "init_args": {"batch_size": 6, "val_fraction": 0.0, "num_workers": 0}},
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "devices": 1, "enable_progress_bar": False},
    }
    (tmp_path / "clouds.yaml").write_text(yaml.safe_dump(recipe))
    return [
        *("--recipe", str(tmp_path / "clouds.yaml"), "--root", str(root), "--repeats", "2", "--threads", "1"),
        *("--out", str(tmp_path / "out"), "--trainer.log_every_n_steps", "1"),
    ]


@pytest.fixture
def runs(monkeypatch):
    """The runs that were trained."""
    kept = []
    original = repeated_splits.SplitRun.before_fit

    def watched(self):
        original(self)
        kept.append(self)

    monkeypatch.setattr(repeated_splits.SplitRun, "before_fit", watched)
    return kept


def clouds(samples):
    return {np.asarray(samples[i]["points"]).tobytes() for i in range(len(samples))}


def test_two_repeats_train_on_their_own_parts_and_are_kept(words, runs, tmp_path, capsys):
    results = repeated_splits.main(words)
    assert [result["seed"] for result in results] == [0, 1]
    assert {(result["train_samples"], result["test_samples"], result["steps"]) for result in results} == {(18, 6, 3)}
    for run in runs:
        known, held = (clouds([run.everything[i] for i in part.tolist()]) for part in (run.split.train, run.split.test))
        used = clouds(run.datamodule.part("train").dataset)
        assert used == known
        assert not used & held
        assert np.bincount(run.labels[run.split.test]).tolist() == [3, 3]
    assert set(runs[0].split.test) != set(runs[1].split.test)
    names = {f"{encoder} {how}" for encoder in ("trained", "untrained") for how in repeated_splits.POOLINGS}
    assert results[0]["scores"].keys() == names | {"raw"}
    assert np.mean([result["scores"]["raw"] for result in results]) > 0.9
    assert json.loads((tmp_path / "out" / "clouds_1.json").read_text()) == results[1]
    assert "trained - untrained mean+max" in capsys.readouterr().out
    assert repeated_splits.main(words) == results
    assert len(runs) == 2


def test_extra_inputs_are_trained_on_without_labels(words, runs, tmp_path):
    (tmp_path / "more").mkdir()
    write_clouds(tmp_path / "more" / "train.h5", [0, 1] * 3, seed=2)
    views = ["--data.view_transform", "PointCloudViews", "--data.view_transform.dropout", "0.5"]
    repeated_splits.main([*words, "--repeats", "1", "--extra", str(tmp_path / "more"), *views])
    assert runs[0].datamodule.training_transform.dropout == 0.5
    samples = runs[0].datamodule.part("train").dataset
    assert len(samples) == 18 + 6
    assert all(samples[i]["labels"] is None for i in range(18, 24))
    assert len(runs[0].everything) == 24


def test_features_are_the_encoders_pooled_tokens(words, runs):
    repeated_splits.main([*words, "--repeats", "1"])
    run = runs[0]
    found = repeated_splits.features_of_all(run)
    with torch.no_grad():
        batches = [(run.model.tokenizer(batch)) for batch in run.datamodule.test_dataloader()]
        for name, encoder in {"trained": run.model.target.encoder, "untrained": run.untrained}.items():
            for how in repeated_splits.POOLINGS:
                pooled = torch.cat([pool_tokens(encoder(t), t.valid, how=how) for t in batches]).numpy()
                assert found[f"{name} {how}"] == pytest.approx(pooled, abs=1e-6)
