"""The commands on a run of images with captions: fit, resume, load, probe, embed, view."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from short_runs import PAIRS, Run

import jepa_lightning
from jepa_lightning.callbacks import OnlineProbe
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.config.rebuild import build_model
from jepa_lightning.evaluation.prompts import embed_prompts
from jepa_lightning.loading import part_of


def fit(folder, *words):
    load_plugins()
    Run(["fit", "--config", "textimage.yaml", *PAIRS, "--trainer.default_root_dir", str(folder), *words])
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def emoji(tmp_path_factory):
    """Pictures with captions and no labels."""
    folder = tmp_path_factory.mktemp("emoji")
    rows = [["path", "caption", "split"]]
    for i in range(40):
        Picture.new("RGB", (48, 48), (6 * i, 0, 255 - 6 * i)).save(folder / f"{i}.png")
        rows.append([f"{i}.png", f"colour number {i}", "train" if i < 28 else "test"])
    with (folder / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return str(folder / "captions.csv")


def test_load_embeds_pairs(run):
    encoder = jepa_lightning.load(run)
    pair = {"image": Picture.new("RGB", (60, 60)), "text": "a small disc on stripes at 45 degrees"}
    [vector] = encoder([pair])
    assert vector.shape == (192,)
    assert set(encoder.modality.apart(vector[None])) == {"image", "text"}
    [other] = encoder([{**pair, "text": "two bars"}])
    assert torch.equal(vector[:96], other[:96])
    assert not torch.equal(vector[96:], other[96:])
    with pytest.raises(ValueError, match="expected a dict with image and text, got str"):
        encoder("photo.jpg")


class Killed(BaseException):
    pass


def stop(self, trainer, *others):
    """End the run before its second step, as a kill would."""
    if trainer.global_step == 1:
        raise Killed


@pytest.mark.long
def test_resuming_changes_nothing(run, tmp_path, monkeypatch):
    written = ["--checkpoint.every_n_train_steps", "1"]
    with monkeypatch.context() as patched:
        patched.setattr(OnlineProbe, "on_train_batch_start", stop, raising=False)
        with pytest.raises(Killed):
            fit(tmp_path, *written)
    fit(tmp_path, *written, "--auto_resume", "true")
    whole, resumed = (torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in (run, tmp_path))
    assert whole["global_step"] == resumed["global_step"] == 2
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][name]), name


def test_embed_writes_the_vectors_of_each(run, emoji, tmp_path):
    shapes = jepa_lightning.embed(run, tmp_path / "f.npz", data={"csv": emoji})
    assert shapes["features"] == (40, 192)
    assert shapes["features.image"] == shapes["features.text"] == (40, 96)
    found = np.load(tmp_path / "f.npz")
    assert np.array_equal(found["features"], np.concatenate([found["features.image"], found["features.text"]], axis=1))


def test_probe_reports_retrieval_without_labels(run, emoji, tmp_path, no_plots):
    report = jepa_lightning.evaluate(run, data={"csv": emoji}, out=tmp_path)
    assert set(report.retrieval) == {"trained", "untrained"}
    [first, *_] = report.retrieval["trained"]
    assert (first.query, first.gallery, first.k, first.candidates) == ("image", "text", 1, 12)
    assert "image to text, recall among 12" in report.table()
    stored = json.loads((tmp_path / "report.json").read_text())
    assert [recall["k"] for recall in stored["retrieval"]["trained"]] == [1, 5, 10] * 2
    assert "<h2>Retrieval</h2>" in (tmp_path / "report.html").read_text()


@pytest.mark.long
def test_probe_with_labels_has_both(run, tmp_path, no_plots):
    report = jepa_lightning.evaluate(run, data={"samples": 128}, out=tmp_path, probes=["knn"], labels=["stripes"])
    assert report.score("trained", "stripes", "knn").chance > 0
    assert set(report.retrieval) == {"trained", "untrained"}


@pytest.mark.long
def test_probe_classifies_by_prompts(run, tmp_path, no_plots):
    classes = jepa_lightning.load(run).data(samples=64).classes or []
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({name: [f"stripes at {name}", f"a disc on stripes at {name}"] for name in classes}))
    settings = {"data": {"samples": 128}, "out": tmp_path / "p", "probes": ["knn"], "prompts": prompts}
    report = jepa_lightning.evaluate(run, labels=["stripes"], **settings)
    [found] = report.zero_shot["trained"]
    assert (found.label, found.query, found.classes, found.samples) == ("stripes", "image", 8, 16)
    assert "stripes by prompts, zero-shot (8 classes, accuracy; 16 samples)" in report.table()
    assert set(json.loads((tmp_path / "p" / "report.json").read_text())["zero_shot"]) == {"trained", "untrained"}
    assert "<h2>Zero-shot classification</h2>" in (tmp_path / "p" / "report.html").read_text()
    encoder = jepa_lightning.load(run)
    pair = {"image": Picture.new("RGB", (48, 48)), "text": "stripes at 45 degrees"}
    alone = embed_prompts(encoder, [pair["text"]])[0]
    torch.testing.assert_close(alone, encoder([pair])[0, 96:], rtol=0, atol=1e-5)


@pytest.mark.long
def test_view_draws_pairs(run, tmp_path):
    jepa_lightning.view(run, ["masks", "features", "neighbours", "error"], out=tmp_path, samples=2)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"masks_1.png", "features.png", "neighbours.png", "error.png"} <= names
    both = jepa_lightning.load(run).modality
    assert all(part.masks_legend in both.masks_legend for part in both.modalities.values())


@pytest.mark.parametrize(("part", "to"), [("image", "timm"), ("text", "safetensors")])
def test_export_of_one_modality(run, tmp_path, part, to):
    assert jepa_lightning.export(str(run), to, str(tmp_path / "out"), part=part) <= 1e-4
    whole = jepa_lightning.load(run)
    pair = {"image": Picture.new("RGB", (48, 48), (9, 200, 3)), "text": "stripes at 45 degrees"}
    alone = part_of(whole, part)([pair[part]])
    torch.testing.assert_close(alone, whole.modality.apart(whole([pair]))[part], rtol=0, atol=1e-5)


def test_export_says_which_modality(run, tmp_path):
    with pytest.raises(ValueError, match="expected the modality to export, image or text: set part"):
        jepa_lightning.export(str(run), "safetensors", str(tmp_path / "out"))
    with pytest.raises(ValueError, match="expected one of the modalities image, text, got part 'sound'"):
        jepa_lightning.export(str(run), "safetensors", str(tmp_path / "out"), part="sound")


def test_loading_reads_no_weights_that_encoders_began_with(run):
    """They are in the checkpoint, and the file may be gone."""
    config = jepa_lightning.load(run).config["model"]
    config["modality"]["init_args"]["modalities"]["image"]["init_args"]["encoder"]["init_args"]["weights"] = "gone.pth"
    build_model(config, pretrained=False)
    with pytest.raises(ValueError, match=r"gone\.pth"):
        build_model(config, pretrained=True)


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    """Pictures whose caption and colour say the class."""
    folder = tmp_path_factory.mktemp("coloured")
    rows = [["path", "caption", "split", "label"]]
    for i in range(36):
        name = ("red", "blue")[i % 2]
        Picture.new("RGB", (48, 48), (200 - i, 0, i) if i % 2 == 0 else (i, 0, 200 - i)).save(folder / f"{i}.png")
        rows.append([f"{i}.png", f"a {name} square", "train" if i < 24 else "test", name])
    with (folder / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


@pytest.mark.parametrize(("part", "dim"), [(None, 192), ("image", 96), ("text", 96)])
def test_finetune_both_or_one(run, coloured, tmp_path, part, dim):
    settings = {"epochs": 1, "accelerator": "cpu", "baselines": False, "part": part}
    data = {"csv": str(coloured / "captions.csv"), "batch_size": 8}
    report = jepa_lightning.finetune(run, data=data, out=tmp_path, **settings)
    scores = {score.encoder: score.estimate.mean for score in report.scores}
    assert scores["frozen"] == 1.0  # the colour, and its name, are there in any network's features
    model = jepa_lightning.load_finetuned(tmp_path)
    assert model.head.mean.shape == (dim,)
    pairs = [{"image": str(coloured / f"{i}.png"), "text": f"a {c} square"} for i, c in enumerate(("red", "blue"))]
    inputs = pairs if part is None else [pair[part] for pair in pairs]
    assert model.predict(inputs) == ["red", "blue"]
    assert model.predict(inputs[1]) == "blue"
    model.encoder.requires_grad_(True)
    model(inputs)[:, 0].sum().backward()
    whole = model.encoder.encoder
    for name in ("image", "text") if part is None else (part,):
        own = whole.part(name) if part is None else whole
        assert all(p.grad is not None and p.grad.any() for p in own.layers[0].attn.parameters()), name


def test_finetune_says_what_fits(run, coloured, tmp_path):
    data = {"csv": str(coloured / "captions.csv")}
    with pytest.raises(
        ValueError, match="expected the head linear for image and text together, got attentive: set part"
    ):
        jepa_lightning.finetune(run, data=data, out=tmp_path / "a", head="attentive", accelerator="cpu")
    with pytest.raises(ValueError, match="expected one of the modalities image, text, got part 'sound'"):
        jepa_lightning.finetune(run, data=data, out=tmp_path / "b", part="sound", accelerator="cpu")


def test_the_data_of_a_part_are_those_of_the_pairs(run):
    """The table's settings, and the part's own."""
    whole = jepa_lightning.load(run)
    whole.config["data"]["init_args"] |= {"csv": "captions.csv", "batch_size": 7}
    found = part_of(whole, "image").config["data"]
    assert found["class_path"].endswith("ImageData")
    settings = found["init_args"]
    assert (settings["csv"], settings["batch_size"], settings["crop_scale"]) == ("captions.csv", 7, [0.8, 1.0])
    assert "modalities" not in settings
