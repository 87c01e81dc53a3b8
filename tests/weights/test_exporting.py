"""`jepa-export`: the same numbers in other libraries, and back where there is a way back."""

import json
from functools import partial

import pytest
import torch
from torch import nn

import jepa_lightning
from jepa_lightning import JEPA, Frozen
from jepa_lightning.cli.export import export as command
from jepa_lightning.encoders import TimmEncoder, ViT
from jepa_lightning.loading import load
from jepa_lightning.predictors import TransformerPredictor
from jepa_lightning.weights.exporting import export as exporting
from jepa_lightning.weights.exporting.whole import images
from jepa_lightning.weights.importing import from_source
from modalities.image import Image
from modalities.video import Video

VIT = partial(ViT, width=24, depth=1, heads=2)


def disturb(module):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return module.eval()


def made(modality, config=None, **predictor):
    jepa = disturb(JEPA(modality, predictor=partial(TransformerPredictor, width=12, depth=1, heads=2, **predictor)))
    return jepa, Frozen(jepa, config=config)


def write(modality, to, folder, config=None, **predictor):
    """The largest difference, and the frozen encoder, of an export of a JEPA that is no run."""
    jepa, frozen = made(modality, config, **predictor)
    batches = [exporting._example(frozen, count) for count in (2, 3)]
    difference, inputs = exporting._written(frozen, jepa, to, folder, batches, mean=None, std=None, trust=())
    return difference, inputs, frozen


@pytest.fixture(scope="module")
def run(short_run):
    return short_run("image")[0]


def test_timm_and_back(run, tmp_path, capsys):
    import timm

    out = tmp_path / "timm"
    command(["--checkpoint", str(run), "--to", "timm", "--out", str(out)])
    assert "largest difference" in capsys.readouterr().out
    frozen = load(run)
    pixels = torch.randn(2, 3, 32, 32)
    model = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(pixels), frozen.embed({"image": pixels}), rtol=0, atol=1e-5)
    assert list(model.pretrained_cfg["mean"]) == [0.485, 0.456, 0.406]
    card = (out / "README.md").read_text()
    assert 'timm.create_model("local-dir:FOLDER", pretrained=True)' in card
    assert "- steps: 2" in card
    module, _, line = from_source(out, heads=2)
    back = Frozen(module)
    torch.testing.assert_close(back.embed({"image": pixels}), frozen.embed({"image": pixels}), rtol=0, atol=1e-5)
    assert "positions of 4 x 4 tokens (rows first)" in line
    with pytest.raises(ValueError, match="expected a new folder as out"):
        jepa_lightning.export(str(run), "timm", str(out))


def test_safetensors_and_back(run, tmp_path):
    assert jepa_lightning.export(str(run), "safetensors", str(tmp_path / "out")) == 0
    stored = (tmp_path / "out" / "config.json").read_text()
    assert str(tmp_path.parent) not in stored
    module, config, line = from_source(tmp_path / "out")
    assert line.startswith("weights: a run of ours (Image), encoder of")
    first = load(run)
    for name, value in first.encoder.state_dict().items():
        assert torch.equal(module.target.encoder.state_dict()[name], value)
    assert config["data"]["class_path"] == "modalities.image.ImageData"
    assert 'encoder = jepa_lightning.load("FOLDER")' in (tmp_path / "out" / "README.md").read_text()


def test_what_differs_is_not_written(run, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "LIMIT", 1e-12)
    with pytest.raises(ValueError, match=r"got a difference of .* \(the limit is 1e-12\): nothing was written"):
        jepa_lightning.export(str(run), "timm", str(tmp_path / "out"))
    assert not list(tmp_path.iterdir())


def test_a_timm_model_goes_back_to_timm(tmp_path):
    settings = {"name": "vit_tiny_patch16_224", "options": {"depth": 1}}
    encoder = {"class_path": "TimmEncoder", "init_args": settings}
    config = {"model": {"modality": {"init_args": {"encoder": encoder}}}}
    modality = Image(image_size=32, encoder=partial(TimmEncoder, **settings))
    assert write(modality, "timm", tmp_path, config)[0] < 1e-5


def test_pixels_are_put_together_again():
    clips = torch.randn(2, 3, 4, 32, 48)
    video = Video(frames=4, image_size=(32, 48), patch_size=8, encoder=VIT)
    assert torch.equal(images(video.tokenizer({"video": clips})), clips)
    pictures = torch.randn(2, 3, 32, 48)
    image = Image(image_size=(32, 48), patch_size=8, encoder=VIT)
    assert torch.equal(images(image.tokenizer({"image": pictures})), pictures)


@pytest.mark.parametrize(
    ("modality", "to", "message"),
    [
        (
            lambda: Image(image_size=32, patch_size=8, encoder=partial(VIT, rotary="interleaved")),
            "timm",
            "fixed position",
        ),
        (lambda: Image(image_size=32, patch_size=8, encoder=partial(VIT, norm_eps=1e-5)), "timm", "expected norm_eps"),
        (lambda: Image(image_size=32, patch_size=8, encoder=partial(VIT, final_norm=False)), "timm", "a final norm"),
        (lambda: Video(frames=4, image_size=32, encoder=VIT), "timm", "expected images or spectrograms for timm"),
        (lambda: Video(frames=4, image_size=32, encoder=VIT), "transformers", "expected a ViT with rotary: released"),
        (
            lambda: Video(frames=4, image_size=32, encoder=partial(VIT, rotary="interleaved")),
            "transformers",
            "computes, got interleaved: export to onnx or pt2, or train with rotary: released",
        ),
        (
            lambda: Video(frames=4, image_size=32, encoder=partial(VIT, rotary="released")),
            "transformers",
            "expected a TransformerPredictor with rotary: released",
        ),
    ],
)
def test_what_a_format_cannot_hold(modality, to, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write(modality(), to, tmp_path)


def test_pt2_takes_batches_of_any_size(tmp_path):
    difference, inputs, frozen = write(Image(image_size=32, patch_size=8, encoder=VIT), "pt2", tmp_path)
    assert difference < 1e-6
    assert inputs == {"image": ["B", 3, 32, 32]}
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    pixels = torch.randn(5, 3, 32, 32)
    torch.testing.assert_close(loaded(pixels)[0], frozen.embed({"image": pixels}), rtol=0, atol=1e-5)
    described = json.loads((tmp_path / "preprocessing.json").read_text())
    assert described["mean"] == [0.485, 0.456, 0.406]
    assert described["inputs"] == inputs


def audio():
    from modalities.audio import Audio

    return Audio(sample_rate=8000, seconds=0.5, mels=16, patch_size=(16, 8), mean=-5.0, std=4.0, encoder=VIT)


def cloud():
    from modalities.pointcloud import PointCloud

    return PointCloud(points=16, groups=3, group_size=4, encoder=VIT)


def graph(**settings):
    from modalities.graph import Graph

    return Graph(**{"features": 4, "patches": 6, "walk": 8, "encoder": VIT, **settings})


def measurements():
    modality = graph(standardize=True)
    modality.tokenizer.estimate([modality.example(4, torch.Generator().manual_seed(1))])
    return modality


KINDS = {
    "image": lambda: Image(image_size=16, patch_size=8, encoder=VIT),
    "image, stored, rotary": lambda: Image(
        image_size=16, patch_size=8, encoder=partial(VIT, rotary="interleaved", rotary_grid=(4, 4))
    ),
    "timm": lambda: Image(
        image_size=32, encoder=partial(TimmEncoder, name="vit_tiny_patch16_224", options={"depth": 1})
    ),
    "video": lambda: Video(frames=4, image_size=16, patch_size=8, encoder=VIT),
    "audio": audio,
    "pointcloud": cloud,
    "graph": graph,
    "graph with edge features": partial(graph, edge_features=3),
    "graph around a node": partial(graph, patches=1, hops=0, readout="root"),
    "graph of measurements": measurements,
}


class Call(nn.Module):
    """A function as a module, to be traced."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *given):
        return self.function(*given)


def test_nearest_points_are_traced_without_cdist():
    """Which neither ONNX nor torch.export's core operators have."""
    from modalities.pointcloud.geometry import nearest

    torch.manual_seed(0)
    clouds, centres = torch.randn(2, 16, 3), torch.randn(2, 3, 3)
    free = {0: torch.export.Dim("batch")}
    traced = torch.export.export(Call(partial(nearest, k=4)), (clouds, centres), dynamic_shapes=((free, free),))
    assert "cdist" not in str(traced.graph)
    assert torch.equal(traced.module()(clouds, centres), nearest(clouds, centres, 4))


def test_means_of_groups_are_traced_for_any_number_of_members():
    from modalities.graph.embedding import means

    values, group = torch.randn(7, 3), torch.tensor([0, 0, 1, 1, 1, 3, 3])
    free = {0: torch.export.Dim("members")}
    traced = torch.export.export(Call(partial(means, count=4)), (values, group), dynamic_shapes=((free, free),))
    more, of = torch.randn(9, 3), torch.tensor([0, 1, 1, 1, 2, 2, 2, 2, 3])
    torch.testing.assert_close(traced.module()(more, of), means(more, of, 4))


def test_spectrograms_to_timm(tmp_path):
    difference, inputs, _ = write(audio(), "timm", tmp_path)
    assert difference < 1e-5
    assert inputs == {"pixels": ["B", 1, 16, 48]}
    config = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]
    assert (config["mean"], config["std"]) == ([-5.0], [4.0])


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "pt2"])
@pytest.mark.parametrize("kind", KINDS)
def test_all_modalities(kind, to, tmp_path):
    assert write(KINDS[kind](), to, tmp_path)[0] < 1e-5
