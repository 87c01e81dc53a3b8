"""`jepa-fit --init` and `weights:`: what a run begins with."""

import shutil
from functools import partial
from pathlib import Path

import layouts as lay
import pytest
import torch
from short_runs import Run

import jepa_lightning
from jepa_lightning import JEPA
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.config.rebuild import build_model
from jepa_lightning.encoders import ConvEncoder, ViT
from jepa_lightning.predictors import TransformerPredictor
from jepa_lightning.weights.start import initialise
from modalities.image import Image

TINY = [
    *("--config", "image.yaml", "--model.modality.image_size", "16", "--model.modality.patch_size", "4"),
    *("--model.modality.masker.min_context", "2"),
    *("--model.modality.encoder.width", str(lay.W), "--model.modality.encoder.depth", str(lay.DEPTH)),
    *("--model.modality.encoder.heads", str(lay.HEADS), "--model.modality.encoder.mlp_ratio", "2.0"),
    *("--model.modality.encoder.positions", "stored"),
    *("--model.predictor.width", "12", "--model.predictor.depth", "1", "--model.predictor.heads", "2"),
    *("--model.predictor.mlp_ratio", "2.0", "--model.predictor.positions", "stored"),
    *("--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.max_steps", "2"),
    *("--trainer.num_sanity_val_steps", "0", "--trainer.logger", "false", "--trainer.enable_progress_bar", "false"),
    *("--trainer.enable_model_summary", "false", "--probe.enabled", "false", "--pictures.enabled", "false"),
    *("--data.samples", "32", "--data.batch_size", "16", "--data.num_workers", "0"),
]


def ours(state, key):
    """An official tensor as our ViT has it."""
    value = state[key].float()
    return value.flatten(1) if value.ndim == 4 else value


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    torch.manual_seed(0)
    content = {name: lay.encoder("ijepa") for name in ("encoder", "target_encoder")}
    content["predictor"] = lay.predictor("ijepa")
    file = tmp_path_factory.mktemp("official") / "jepa.pth.tar"
    torch.save({**content, "epoch": 3}, file)
    return str(file), content


@pytest.fixture(scope="module")
def started(official, tmp_path_factory):
    """A run that was started from the official file, and its folder."""
    load_plugins()
    folder = tmp_path_factory.mktemp("runs") / "started"
    return Run(["fit", *TINY, "--init", official[0], "--trainer.default_root_dir", str(folder)]), folder


def test_a_run_begins_with_the_weights_and_nothing_else_of_the_source(official, started):
    run, _ = started
    target = official[1]["target_encoder"]
    for encoder in (run.before.encoder, run.before.target.encoder):
        assert torch.equal(encoder.embed.weight, ours(target, "patch_embed.proj.weight"))
        assert torch.equal(encoder.transformer.layers[1].mlp.fc1.bias, ours(target, "blocks.1.mlp.fc1.bias"))
        torch.testing.assert_close(encoder.positions.table, target["pos_embed"][0].float())
    assert torch.equal(run.before.predictor.mask_token, official[1]["predictor"]["mask_token"].flatten().float())
    assert run.trainer.global_step == 2
    first = run.model.encoder.embed.weight
    assert not torch.equal(first, ours(target, "patch_embed.proj.weight"))


def test_the_encoder_before_training_is_that_of_the_source(official, started):
    untrained = jepa_lightning.load(started[1]).untrained()
    assert torch.equal(untrained.encoder.embed.weight, ours(official[1]["target_encoder"], "patch_embed.proj.weight"))


def test_a_saved_encoder_does_not_pretend_to_have_begun_at_random(started, tmp_path):
    """The folder names what the run began with, but neither holds it nor says where it lay."""
    encoder = jepa_lightning.load(started[1])
    folder = encoder.save_pretrained(tmp_path / "saved")
    source = Path(encoder.config["init"])
    assert str(source.parent) not in (folder / "config.json").read_text()
    again = jepa_lightning.load(jepa_lightning.load(folder).save_pretrained(tmp_path / "again"))
    with pytest.raises(ValueError, match=f"began with, got their name alone, '{source.name}'"):
        again.untrained()
    random = again.untrained(pretrained=False)
    assert torch.equal(random.encoder.embed.weight, encoder.untrained(pretrained=False).encoder.embed.weight)
    encoder.config["init"] = "hf-hub:owner/name"
    stored = encoder.stored_config()
    assert stored["init"] == "hf-hub:owner/name"
    assert "began_with" not in stored


def test_a_run_in_the_folder_of_its_source(started, tmp_path):
    """Whose files are set aside once they are read."""
    folder = shutil.copytree(started[1], tmp_path / "run")
    run = Run(["fit", *TINY, "--init", str(folder), "--trainer.default_root_dir", str(folder)])
    assert equal(run.before.encoder, started[0].model.target.encoder)
    assert (folder / "previous" / "1" / "checkpoints" / "last.ckpt").is_file()


def test_a_resumed_run_has_its_own_weights(started, tmp_path):
    words = ["--init", "/nowhere", "--trainer.max_steps", "3", "--ckpt_path", str(started[1])]
    run = Run(["fit", *TINY, *words, "--trainer.default_root_dir", str(tmp_path)])
    assert run.trainer.global_step == 3


def make(predictor_depth=1, **settings):
    """A JEPA as that run's."""
    torch.manual_seed(1)
    sizes = {"width": lay.W, "depth": lay.DEPTH, "heads": lay.HEADS, "mlp_ratio": 2.0, "positions": "stored"}
    image = Image(image_size=16, patch_size=4, encoder=partial(ViT, **sizes, **settings))
    asked = {"width": 12, "depth": predictor_depth, "heads": 2, "mlp_ratio": 2.0, "positions": "stored"}
    return JEPA(image, predictor=partial(TransformerPredictor, **asked))


def equal(one, two):
    assert one.state_dict().keys() == two.state_dict().keys()
    return all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("which", ["target", "context"])
def test_a_run_of_ours_and_the_choice_of_encoder(started, which):
    run, folder = started
    module = make()
    line = initialise(module, str(folder), encoder=which)
    assert line.startswith(f"weights: a run of ours (Image), {which} encoder of {folder}: 28 wide, 2 layers")
    taken = {"target": run.model.target.encoder, "context": run.model.encoder}[which]
    assert equal(module.encoder, taken)
    assert equal(module.target.encoder, taken)
    assert equal(module.predictor, run.model.predictor)
    assert not equal(run.model.target.encoder, run.model.encoder)


def test_settings_that_tensors_do_not_show_are_those_of_the_run(started):
    with pytest.raises(ValueError, match="trained with norm_eps: 1e-06, the model has 1e-05: set norm_eps"):
        initialise(make(norm_eps=1e-5), str(started[1]))


def test_a_predictor_that_does_not_fit(official):
    with pytest.raises(ValueError, match=r"missing: transformer.layers.1.*or leave the predictor out \(init_predictor"):
        initialise(make(predictor_depth=2), official[0])
    module = make(predictor_depth=2)
    line = initialise(module, official[0], predictor=False)
    assert line.endswith("left out: encoder, epoch, the predictor")
    assert equal(module.predictor, make(predictor_depth=2).predictor)
    with pytest.raises(ValueError, match=r"expected a predictor in .*, which has none"):
        initialise(make(), save_encoder(official), predictor=True)


def save_encoder(official):
    file = f"{official[0]}.encoder"
    torch.save({"encoder": official[1]["encoder"]}, file)
    return file


def test_another_class_takes_its_own_weights_only(official, make_jepa):
    jepa = make_jepa(encoder=ConvEncoder)
    with pytest.raises(ValueError, match="expected a ViT or TimmEncoder on patches for released weights"):
        initialise(jepa, official[0])


def test_weights_of_a_part_are_not_read_again_with_a_checkpoint(official):
    """A run that began with `weights` loads where the source is gone."""
    encoder = {"class_path": "jepa_lightning.encoders.ViT", "init_args": {"width": 16, "depth": 1, "heads": 2}}
    predictor = {"class_path": "jepa_lightning.predictors.TransformerPredictor", "init_args": {"width": 8, "heads": 2}}
    encoder["init_args"]["weights"] = predictor["init_args"]["weights"] = "/nowhere"
    image = {"class_path": "modalities.image.Image", "init_args": {"image_size": 32, "encoder": encoder}}
    config = {"modality": image, "predictor": predictor}
    assert build_model(config, pretrained=False).encoder.dim == 16
    with pytest.raises(ValueError, match="/nowhere, which does not exist: name a run"):
        build_model(config, pretrained=True)


def test_parts_with_weights(official):
    module = make(weights=official[0])
    assert torch.equal(module.encoder.embed.bias, ours(official[1]["target_encoder"], "patch_embed.proj.bias"))
    assert torch.equal(module.target.encoder.embed.bias, module.encoder.embed.bias)
