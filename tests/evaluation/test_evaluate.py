"""`jepa_lightning.evaluate`, `embed` and `view` in Python: what the commands do, on any form of data."""

import json

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule

import jepa_lightning
from jepa_lightning.cli.probe import probe
from jepa_lightning.evaluation.features.files import read_features
from modalities.image import ImageData

KNN = {"probes": ["knn"], "labels": ["shape"], "device": "cpu"}


@pytest.fixture(scope="module")
def run(short_run):
    return short_run("image")[0]


@pytest.mark.usefixtures("no_plots")
def test_the_same_as_the_command(run, tmp_path, capsys):
    words = ["--data.samples", "40", "--data.num_workers", "0", "--probes", "knn", "--labels", "shape"]
    probe([str(run), *words, "--device", "cpu", "--out", str(tmp_path / "shell")])
    found = json.loads((tmp_path / "shell" / "report.json").read_text())
    report = jepa_lightning.evaluate(run, data={"samples": 40, "num_workers": 0}, out=tmp_path / "python", **KNN)
    assert report.table() in capsys.readouterr().out
    assert json.loads((tmp_path / "python" / "report.json").read_text())["scores"] == found["scores"]
    assert [score.encoder for score in report.scores] == ["trained", "untrained", "raw"]
    assert found["settings"]["splits"] == {"train": 40, "val": 5}
    settings = found["settings"]["data"]["settings"]
    assert (settings["samples"], settings["batch_size"]) == (40, 16)  # the run's own, where nothing else is said


@pytest.mark.long
@pytest.mark.usefixtures("no_plots")
def test_data_as_a_module_or_as_a_configuration(run, tmp_path):
    """Its sizes come from the run's model, and its loaders need not fill a batch."""
    data = ImageData(samples=40, num_workers=0, batch_size=64)
    with pytest.raises(ValueError, match="no model to take it from"):
        data.setup()
    first = jepa_lightning.evaluate(run, data=data, out=tmp_path / "a", **KNN)
    assert data.modality.image_size in (32, (32, 32))
    assert first.settings["data"]["settings"]["batch_size"] == 64
    config = {"class_path": "modalities.image.ImageData", "init_args": {"samples": 40, "num_workers": 0}}
    second = jepa_lightning.evaluate([run], data=config, out=tmp_path / "b", energy=True, **KNN)
    assert {name: set(of) for name, of in second.energy.items()} == {
        name: {"shuffled", "half another's"} for name in ("trained", "untrained")
    }
    assert "energy of " in second.table()
    assert "half another" in (tmp_path / "b" / "report.html").read_text()
    assert not first.energy
    assert [score.estimate.mean for score in first.scores] == [score.estimate.mean for score in second.scores]
    with pytest.raises(ValueError, match="expected a JEPADataModule, got LightningDataModule"):
        jepa_lightning.evaluate(run, data=LightningDataModule(), out=tmp_path / "c", **KNN)
    with pytest.raises(ValueError, match="ImageData has no option 'sample'"):
        jepa_lightning.evaluate(run, data={"sample": 40}, out=tmp_path / "c", **KNN)


def test_classes_in_a_configuration_need_trust(run, tmp_path):
    strange = {"class_path": "modalities.image.ImageData", "init_args": {"dataset": {"class_path": "torchvision.datasets.FakeData"}}}  # fmt: skip  # noqa: E501
    with pytest.raises(ValueError, match=r"trust=\['torchvision'\]"):
        jepa_lightning.evaluate(run, data=strange, out=tmp_path, **KNN)


def test_embed_and_view(run, tmp_path, capsys):
    few = {"samples": 24, "num_workers": 0}
    shapes = jepa_lightning.embed(run, tmp_path / "f.npz", data=few, split="val", pooling="max", device="cpu")
    found = read_features(tmp_path / "f.npz")
    assert {name: values.shape for name, values in found.items() if values.dtype.kind != "U"} == {
        name: shape for name, shape in shapes.items() if name not in ("id", "split")
    }
    encoder = jepa_lightning.load(run)
    batch = next(iter(encoder.data(**few).val_dataloader()))
    assert np.allclose(found["features"], encoder.embed(batch, pooling="max"), atol=1e-5)
    files = jepa_lightning.view(run, ["masks", "error"], data=few, samples=2, out=tmp_path / "view", device="cpu")
    assert {path.name for path in files} == {"masks_1.png", "masks_2.png", "masks_3.png", "error.png", "error.json"}
    assert all(path.is_file() for path in files)
    assert str(files[0]) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"k": 0}, "expected k of at least 1, got 0"),
        ({"device": "gpu"}, "expected the device auto, cpu, cuda or cuda:NUMBER, got 'gpu'"),
        *([] if torch.cuda.is_available() else [({"device": "cuda:1"}, "expected a GPU for the device cuda:1")]),
        ({"checkpoint": []}, "expected the folder of a run, or several, got none"),
        ({"which": "first"}, "expected which to be last or best"),
        ({"encoder": "teacher"}, "expected the encoder target or context"),
        ({"pooling": "sum"}, "expected the pooling mean, max, mean"),
    ],
)
def test_mistakes(run, tmp_path, settings, says):
    with pytest.raises(ValueError, match=says):
        jepa_lightning.evaluate(**{"checkpoint": run, "out": tmp_path, "data": {"num_workers": 0}, **KNN, **settings})
