"""Pairs whose encoders were trained before: frozen, trained further, or as targets; and loaded without those files."""

import json
import shutil

import pytest
import torch
import yaml
from PIL import Image as Picture
from short_runs import PAIRS, Run

import jepa_lightning
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.loading import part_of

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

PAIR = {"image": Picture.new("RGB", (40, 40), (9, 200, 3)), "text": "a small disc on stripes"}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A small BERT with random weights and a tokenizer of letters."""
    folder = tmp_path_factory.mktemp("models") / "bert"
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(**sizes, vocab_size=120, max_position_embeddings=80)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    letters = {"[UNK]": 0, **{letter: number for number, letter in enumerate("abcdefghijklmnopqrstuvwxyz .", 1)}}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(letters, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    made.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def image(short_run, tmp_path_factory):
    """A run on images, to be removed."""
    return shutil.copytree(short_run("image")[0], tmp_path_factory.mktemp("images") / "run")


def fit(folder, bert, image, **modality):
    """Train on generated pairs, both encoders with weights of their own."""
    load_plugins()
    encoder = {"class_path": "ViT", "init_args": {"width": 16, "depth": 1, "heads": 2, "weights": str(image)}}
    picture = {"image_size": 32, "patch_size": 8, "encoder": encoder, "masker": {"class_path": "Random"}}
    words = {
        "tokenizer": str(bert / "tokenizer.json"),
        "vocabulary": None,
        "length": 64,
        "masker": {"class_path": "Random"},
    }
    words["encoder"] = {"class_path": "HFTextEncoder", "init_args": {"name": str(bert)}}
    modalities = {
        "image": {"class_path": "Image", "init_args": picture},
        "text": {"class_path": "Text", "init_args": words},
    }
    target = modality.pop("target", None)
    model = {"modality": {"class_path": "Multimodal", "init_args": {"modalities": modalities, "width": 20, **modality}}}
    if target is not None:
        model["target"] = {"class_path": "Pretrained", "init_args": {"checkpoint": str(target)}}
    folder.mkdir()
    (folder / "pairs.yaml").write_text(yaml.safe_dump({"model": model}))
    sets = ["--config", "textimage.yaml", "--config", str(folder / "pairs.yaml"), *PAIRS]
    return Run(["fit", *sets, "--trainer.default_root_dir", str(folder / "run")]).model


def same(one, other):
    ours, theirs = dict(one.named_parameters()), dict(other.named_parameters())
    assert ours.keys() == theirs.keys()
    return all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_target_of_other_sizes_is_refused(bert, image, short_run, tmp_path):
    with pytest.raises(ValueError, match=r"does not have the expected sizes: .* set target.build"):
        fit(tmp_path / "run", bert, image, target=short_run("image")[0])


@pytest.mark.long
def test_encoders_that_were_trained_before(bert, image, tmp_path):
    began = jepa_lightning.load(image).encoder, transformers.AutoModel.from_pretrained(bert, add_pooling_layer=False)
    first = fit(tmp_path / "first", bert, image, frozen=["text"])
    assert same(first.encoder.part("text").model, began[1])
    assert not same(first.encoder.part("image"), began[0])  # which was trained
    second = fit(tmp_path / "second", bert, image, frozen=["image"], target=tmp_path / "first" / "run")
    assert same(second.encoder.part("image"), began[0])
    assert not same(second.encoder.part("text").model, began[1])
    whole = jepa_lightning.load(tmp_path / "first" / "run")
    assert same(second.target.encoder, whole.encoder)
    expected = {name: jepa_lightning.load(tmp_path / name / "run")(PAIR) for name in ("first", "second")}

    for gone in (bert, image, tmp_path / "first" / "checkpoints"):
        shutil.rmtree(gone, ignore_errors=True)
    for name, vector in expected.items():  # the runs' folders are enough
        assert torch.equal(jepa_lightning.load(tmp_path / name / "run")(PAIR), vector)
    with pytest.raises(ValueError, match="expected a dict with image and text"):
        jepa_lightning.load(tmp_path / "first" / "run")({"image": "photo.jpg"})
    alone = part_of(jepa_lightning.load(tmp_path / "second" / "run"), "text")
    assert same(alone.encoder.model, second.encoder.part("text").model)
    folder = alone.save_pretrained(tmp_path / "saved")
    torch.testing.assert_close(jepa_lightning.load(folder)(PAIR["text"]), alone(PAIR["text"]))
    assert alone.untrained(pretrained=False).dim == 24
    assert json.loads((folder / "config.json").read_text())["model"]["modality"]["class_path"].endswith("Text")
