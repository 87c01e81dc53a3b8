"""`jepa-import`: the folder of a run, on which the commands work."""

from dataclasses import replace

import layouts as lay
import pytest
import torch
import yaml

import jepa_lightning
from jepa_lightning.cli.import_weights import import_weights as command
from jepa_lightning.weights.importing import from_source, import_weights


def save(folder, family, **more):
    torch.manual_seed(0)
    content = {"target_encoder": lay.wrapped(lay.encoder(family)), "encoder": lay.wrapped(lay.encoder(family)), **more}
    torch.save(content, folder / f"{family}.pt")
    return str(folder / f"{family}.pt"), content["target_encoder"]


def test_a_run_of_official_images(tmp_path, capsys):
    file, state = save(tmp_path, "ijepa", predictor=lay.predictor("ijepa"))
    run = tmp_path / "run"
    command([file, str(run), "--heads", "2"])
    said = capsys.readouterr().out
    assert said.startswith("weights: I-JEPA, target_encoder of ijepa.pt: 28 wide, 2 layers")
    assert said.endswith(f"run: {run}\n")
    assert (run / "config.yaml").read_text().startswith("# weights: I-JEPA")
    encoder = jepa_lightning.load(run)
    images = torch.randn(2, 3, 16, 16)
    plain = {key.removeprefix("module."): value for key, value in state.items()}
    expected = torch.stack([lay.encode(plain, x.double()).mean(0) for x in images]).float()
    torch.testing.assert_close(encoder.embed({"image": images}), expected, rtol=1e-4, atol=1e-5)
    jepa = jepa_lightning.load_jepa(run)
    assert torch.equal(jepa.encoder.embed.weight, jepa.target.encoder.embed.weight)
    assert len(jepa.predictor.layers) == 1
    data = {"samples": 16, "batch_size": 8, "num_workers": 0}
    shapes = jepa_lightning.embed(run, tmp_path / "features.npz", split="val", data=data)
    assert shapes["features"][1] == lay.W
    stored = (run / "checkpoints" / "last.ckpt").stat().st_size
    assert stored < 1.5 * sum(value.numel() * 4 for value in jepa.encoder.state_dict().values())  # once, not twice
    with pytest.raises(ValueError, match="holds a run: name another one as out"):
        import_weights(file, str(run), heads=2)
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["class_path"] == "modalities.image.ImageData"


@pytest.mark.parametrize("family", ["vjepa2", "vjepa2.1"])
def test_models_of_clips_without_stored_positions_get_their_sizes(tmp_path, family):
    file, state = save(tmp_path, family, predictor=lay.predictor("vjepa2", tokens=10) if family == "vjepa2" else {})
    module, config, line = from_source(file, heads=2, image_size=16, frames=4)
    assert config["model"]["modality"]["init_args"]["tubelet"] == 2
    assert ("the predictor is random" in line) == (family == "vjepa2.1")
    clip = torch.randn(1, 3, 4, 16, 16, dtype=torch.float64)
    tokens = module.double().eval().tokenizer({"video": clip})
    form, scale = ("released", (1, 1, 1)) if family == "vjepa2" else ("interleaved", (1, 5, 5))
    plain = {key.removeprefix("module."): value for key, value in state.items()}
    found = module.encoder(replace(tokens, positions=tokens.positions.double()))[0]
    torch.testing.assert_close(found, lay.encode(plain, clip[0], form, scale), rtol=0, atol=1e-6)


def test_released_weights_to_a_vector_in_a_line(tmp_path):
    from PIL import Image as Picture

    sizes = {"width": 192, "heads": 3}
    model = official_file(tmp_path / "jepa.pth.tar", **sizes)
    encoder = jepa_lightning.load(tmp_path / "jepa.pth.tar")
    assert encoder.encoder.transformer.layers[0].attn.num_heads == 3
    vector = encoder(Picture.new("RGB", (40, 30), "teal"))
    assert vector.shape == (192,)
    batch = encoder.preprocess(Picture.new("RGB", (40, 30), "teal"))
    expected = lay.encode(model, batch["image"][0].double(), heads=3).mean(0).float()
    torch.testing.assert_close(vector, expected, rtol=1e-3, atol=1e-4)


def official_file(file, *, width, heads):
    """An official file of a released width, whose heads are known."""
    torch.manual_seed(0)
    state = {**lay.patch(width=width), **lay.layers("blocks.", width, 1, width), **lay.norm("norm", width)}
    state["pos_embed"] = lay.published((4, 4), width)[None]
    torch.save({"target_encoder": lay.wrapped(state), "epoch": 1}, file)
    return state


def test_what_a_file_does_not_say_is_asked_for(tmp_path):
    file, _ = save(tmp_path, "vjepa")
    with pytest.raises(ValueError, match="may be V-JEPA's or V-JEPA 2's: give family vjepa or vjepa2"):
        from_source(file)
    with pytest.raises(ValueError, match=r"expected a released size, got 28 wide in vjepa\.pt: give heads"):
        from_source(file, family="vjepa")
    _, config, line = from_source(file, family="vjepa", heads=2)
    assert config["model"]["modality"]["init_args"]["frames"] == 4
    assert "positions of 2 x 4 x 4 tokens (ceil(D/6)*2 an axis)" in line


def test_a_vit_with_timms_names(tmp_path):
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    options = {"embed_dim": 28, "num_heads": 2, "depth": 2, "class_token": False, "global_pool": "avg"}
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=5, fc_norm=False, **options).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    module, _, line = from_source(tmp_path / "model.safetensors", heads=2)
    assert line.startswith("weights: a ViT with timm's names")
    assert "head.weight" in line.rpartition("left out: ")[2]
    images = torch.randn(2, 3, 64, 64)
    found = module.eval().encoder(module.tokenizer({"image": images}))
    torch.testing.assert_close(found, model.forward_features(images), rtol=1e-4, atol=1e-5)
