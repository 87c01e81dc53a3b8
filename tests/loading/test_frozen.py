"""From one input to a vector; gradients where they are asked for; folders of safetensors."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image as Pictures

import jepa_lightning
from jepa_lightning import Frozen, load
from jepa_lightning.config.rebuild import build_data
from jepa_lightning.data import DataError
from jepa_lightning.loading import hub
from jepa_lightning.multimodal import Multimodal
from modalities.image import Image
from modalities.text import Text

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def encoder(short_run):
    return load(short_run("image")[0])


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    Pictures.fromarray(PIXELS).save(path)
    return path


def test_one_image_in_any_form(encoder, photo):
    expected = encoder.embed(encoder.preprocess(photo))
    tensor = torch.from_numpy(PIXELS).permute(2, 0, 1)
    forms = [photo, str(photo), Pictures.fromarray(PIXELS), PIXELS, tensor, {"image": tensor}]
    found = encoder(forms)
    assert found.shape == (6, encoder.dim)
    for row in found:
        torch.testing.assert_close(row, expected[0])
    pale = tensor // 2 + 64  # so that resizing leaves the range nowhere, where bytes would be cut off
    fractions = encoder.preprocess(pale / 255)["image"]  # which are not rounded after they are resized
    assert (fractions - encoder.preprocess(pale)["image"]).abs().mean() < 0.02
    assert encoder(photo).shape == (encoder.dim,)
    assert encoder(photo, pooling="mean+max").shape == (2 * encoder.dim,)
    state = torch.get_rng_state()
    batch = encoder.preprocess(photo)
    assert batch["image"].shape == (1, 3, 32, 32)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_file_is_read_as_the_evaluation_reads_it(encoder, tmp_path, photo):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "photo.png").write_bytes(photo.read_bytes())
    data = encoder.data(root=str(tmp_path), val_fraction=0.0, batch_size=1, num_workers=0)
    batch = next(iter(data.probe_dataloader()))
    assert torch.equal(encoder.preprocess(photo)["image"], batch["image"])


def test_more_inputs_than_are_encoded_at_once(encoder, monkeypatch):
    monkeypatch.setattr("jepa_lightning.loading.frozen._AT_ONCE", 2)
    assert encoder([PIXELS] * 5).shape == (5, encoder.dim)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such.png", r"cannot use no_such\.png: .*No such file"),
        (torch.zeros(2, 3, 32, 32), "expected an image as Pillow image"),
        (torch.full((3, 32, 32), -1.0), "fractions from 0 to 1, got numbers from -1 to -1"),
        (torch.full((3, 32, 32), 255.0), "scale them"),
        (torch.zeros(1, 32, 32), "expected images with 3 channels, got 1"),
        ([PIXELS, 3], "cannot use input 1: expected an image"),
        ([], "at least one input"),
    ],
)
def test_what_is_no_image(encoder, value, message):
    with pytest.raises(DataError, match=message):
        encoder(value)


def clip(encoder):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 30, 40, encoder.modality.channels), dtype=np.uint8)
    return [pixels, torch.from_numpy(pixels).permute(3, 0, 1, 2)]


def wave(encoder):
    sound = (0.1 * np.random.default_rng(0).standard_normal(9000)).astype(np.float32)
    rate = encoder.modality.sample_rate
    return [sound, torch.from_numpy(sound), np.stack([sound, sound]), (sound, rate)]


def cloud(encoder):
    points = np.random.default_rng(0).standard_normal((2000, 3)).astype(np.float32)
    return [points, torch.from_numpy(points)]


def graph(encoder):
    from torch_geometric.data import Data

    ring = torch.stack([torch.arange(6), torch.arange(1, 7) % 6])
    edges = torch.cat([ring, ring.flip(0)], dim=1)
    return [Data(x=torch.ones(6, encoder.modality.features), edge_index=edges)] * 2


@pytest.mark.parametrize(
    ("name", "inputs", "file"),
    [("video", clip, None), ("audio", wave, "wav"), ("pointcloud", cloud, "xyz"), ("graph", graph, None)],
)
def test_one_input_of_each_modality(name, inputs, file, short_run, tmp_path):
    encoder = load(short_run(name)[0])
    forms = inputs(encoder)
    found = encoder(forms)
    for row in found[1:]:
        torch.testing.assert_close(row, found[0])
    torch.testing.assert_close(encoder(forms[0]), found[0])
    path = tmp_path / f"input.{file}"
    if file == "wav":
        import soundfile

        soundfile.write(path, forms[0], encoder.modality.sample_rate, subtype="FLOAT")
    elif file == "xyz":
        np.savetxt(path, forms[0])
    if file:
        torch.testing.assert_close(encoder(path), found[0], atol=1e-4, rtol=1e-4)
    elif name == "graph":
        with pytest.raises(DataError, match=r"as torch_geometric\.data\.Data, got the path ring\.pt"):
            encoder("ring.pt")
    if encoder.modality.spec.grid is not None:
        assert encoder.feature_maps(forms[0]).shape == (1, encoder.dim, *encoder.modality.grid)
    else:
        with pytest.raises(ValueError, match="expected tokens on a grid"):
            encoder.feature_maps(forms[0])


def test_several_clips_of_a_video_are_one_vector(short_run):
    encoder = load(short_run("video")[0])
    encoder.config["data"]["init_args"]["eval_clips"] = 3
    pixels = clip(encoder)[0]
    batch = encoder.preprocess([pixels, pixels])
    assert len(batch["video"]) == 6
    torch.testing.assert_close(encoder([pixels, pixels])[1], encoder.embed(batch)[3:].mean(0))


def test_statistics_of_the_data_travel_with_the_run(short_run, tmp_path, monkeypatch):
    """A mean of "auto", and the range of 16-bit images, are known without the data."""
    images = (np.random.default_rng(0).random((48, 32, 32, 3)) * 4000).astype(np.uint16)
    np.savez(tmp_path / "images.npz", images=images)
    auto = ("--data.root", str(tmp_path / "images.npz"), "--data.mean", "auto", "--data.std", "auto")
    folder, run = short_run("image", "image16", *auto)
    encoder = load(folder)
    expected = run.datamodule.val_dataloader().dataset
    (tmp_path / "images.npz").unlink()
    found = encoder.preprocess([images[int(expected.indices[0])]])
    assert torch.allclose(found["image"][0], run.datamodule.collate([expected[0]])["image"][0], atol=1e-6)
    assert encoder.config["estimated"]["value_range"] == [0, 4095]
    again = load(encoder.save_pretrained(tmp_path / "saved"))
    assert torch.equal(again(images[0]), encoder(images[0]))


def test_no_configuration_of_the_data(make_jepa):
    with pytest.raises(ValueError, match=r"found none with a data section.*batch dicts"):
        Frozen(make_jepa())(PIXELS)


def test_maps_of_several_layers(make_jepa):
    frozen = Frozen(make_jepa())
    batch = {"image": torch.rand(2, 3, 32, 32)}
    first, last = frozen.feature_maps(batch, layers=[0, -1])
    tokens, _ = frozen.tokens(batch, layers=2)
    assert first.shape == last.shape == (2, 32, 4, 4)
    assert torch.equal(torch.cat([first, last], dim=1).flatten(2).mT, tokens)
    assert torch.equal(frozen.feature_maps(batch), last)
    assert torch.equal(last[:, :, 1, 2], frozen.tokens(batch)[0][:, 6])
    with pytest.raises(ValueError, match="layers from 0 to 1"):
        frozen.feature_maps(batch, layers=2)


# Gradients.


def test_unfrozen_parameters_get_gradients(make_jepa):
    """They got none, silently."""
    frozen = Frozen(make_jepa()).requires_grad_(True)
    batch = {"image": torch.rand(2, 3, 32, 32)}
    for use in (frozen, frozen.embed, lambda x: frozen.tokens(x)[0], frozen.feature_maps):
        frozen.zero_grad()
        use(batch).square().mean().backward()
        assert all(p.grad is not None and p.grad.any() for p in frozen.encoder.parameters())
    with torch.no_grad():
        assert not frozen.embed(batch).requires_grad


def test_frozen_layers_stay_as_they_are(make_jepa):
    frozen = Frozen(make_jepa(encoder=partial(jepa_lightning.encoders.ViT, width=32, depth=2, heads=2, drop_path=0.5)))
    first, last = frozen.encoder.layers
    assert not any(part.training for part in frozen.train().modules())
    last.requires_grad_(True)
    frozen.train()
    assert last.training
    assert last.drop_path1.training
    assert not any(part.training for part in first.modules())
    frozen.embed({"image": torch.rand(2, 3, 32, 32)}).sum().backward()
    assert last.attn.qkv.weight.grad is not None
    assert first.attn.qkv.weight.grad is None
    assert not any(part.training for part in frozen.eval().modules())


# Folders of safetensors.


def test_saved_and_loaded(encoder, tmp_path):
    encoder.config["data"]["init_args"]["csv"] = "/home/me/private.csv"
    folder = encoder.save_pretrained(tmp_path / "saved")
    encoder.config["data"]["init_args"]["csv"] = None
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert "private" not in (folder / "config.json").read_text()
    for again in (load(folder), Frozen.from_pretrained(str(folder))):
        assert torch.equal(again(PIXELS), encoder(PIXELS))
        assert torch.equal(again.untrained()(PIXELS), encoder.untrained()(PIXELS))
    with pytest.raises(ValueError, match="holds one encoder"):
        load(folder, encoder="context")
    (folder / "README.md").write_text("mine")
    encoder.save_pretrained(folder)
    assert (folder / "README.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c | {"library_name": "timm"}, "or one of timm, in .* got another"),
        (lambda c: c | {"model": {**c["model"], "objective": {"class_path": "os.system"}}}, "os.system"),
        (lambda c: c | {"model": {**c["model"], "objective": {"class_path": "mine.Loss"}}}, "trust that package"),
        (lambda c: c | {"encoder": "student"}, "target or context"),
    ],
)
def test_what_is_not_loaded(encoder, tmp_path, change, message):
    folder = encoder.save_pretrained(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(change(config)))
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_damaged_weights(encoder, tmp_path):
    folder = encoder.save_pretrained(tmp_path)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:100])
    with pytest.raises(ValueError, match="cannot read"):
        load(folder)
    with pytest.raises(ValueError, match=r"expected a folder with config\.json"):
        Frozen.from_pretrained(tmp_path / "nothing" / "here" / "at all")


def test_the_hub(encoder, tmp_path, monkeypatch):
    """What is asked of huggingface_hub, without the network."""
    import huggingface_hub

    class Hub:
        def __init__(self, token):
            assert token == "secret"

        def create_repo(self, name, *, private, exist_ok):
            assert (name, private, exist_ok) == ("me/model", True, True)
            return huggingface_hub.RepoUrl("https://huggingface.co/me/model")

        def upload_folder(self, *, folder_path, repo_id, commit_message):
            for path in folder_path.iterdir():
                (tmp_path / path.name).write_bytes(path.read_bytes())

    def download(name, **how):
        assert name == "me/model"
        assert how["allow_patterns"] == [hub.CONFIG, hub.WEIGHTS]
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert "me/model" in encoder.push_to_hub("me/model", private=True, token="secret")
    assert torch.equal(Frozen.from_pretrained("me/model")(PIXELS), encoder(PIXELS))


def test_where_the_data_lay_is_left_out_of_pairs_too():
    """Each modality's own files, and those that only texts and audio have; what is left can be built."""
    image = {"class_path": "ImageData", "init_args": {"root": "/home/me/images", "flip": True}}
    text = {"class_path": "TextData", "init_args": {"csv": "/home/me/a.csv", "val_csv": "/home/me/b.csv", "seed": 1}}
    pairs = {"class_path": "PairedData", "init_args": {"modalities": {"image": image, "text": text}, "seed": 2}}
    found = hub.public(pairs)
    assert "/home" not in json.dumps(found)
    parts = found["init_args"]["modalities"]
    assert parts["image"]["init_args"] == {"flip": True, "root": "data"}
    assert parts["text"]["init_args"] == {"seed": 1, "root": "data"}
    assert found["init_args"]["seed"] == 2
    plain = {"image": "ImageData", "text": {"class_path": "TextData"}}
    table = {"class_path": "PairedData", "init_args": {"modalities": plain, "csv": "/home/me/c.csv", "root": "/home"}}
    assert hub.public(table)["init_args"] == {
        "csv": "data.csv",
        "modalities": {
            name: {"class_path": path, "init_args": {}} for name, path in (("image", "ImageData"), ("text", "TextData"))
        },
    }
    text["init_args"] |= {"unlabelled": ["/home/me/c.txt"]}
    assert "/home" not in json.dumps(hub.public(text))


def test_building_data_leaves_the_configuration_as_it_is():
    config = {
        "class_path": "PairedData",
        "init_args": {"modalities": {n: {"class_path": f"{n}Data"} for n in ("Image", "Text")}},
    }
    before = json.dumps(config)
    parts = {"Image": Image(image_size=32, patch_size=8), "Text": Text(vocabulary=256)}
    build_data(config, {}, Multimodal(modalities=parts))
    assert json.dumps(config) == before
