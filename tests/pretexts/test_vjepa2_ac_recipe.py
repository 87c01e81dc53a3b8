"""The recipe of V-JEPA 2-AC, small: on a frozen encoder that this test trains, from files of a robot's episodes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import jepa_lightning
from jepa_lightning.cli.fit import fit
from jepa_lightning.config.shipped import find_config
from jepa_lightning.encoders import SinCosPositions, TokenSpec, ViT
from jepa_lightning.predictors import FrameCausalPredictor, PredictorSpec

QUIET = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.enable_progress_bar=false"]
QUIET += ["--trainer.precision=32-true", "--trainer.max_steps=3", "--data.num_workers=0", "--trainer.logger=false"]
SIZES = ["--model.modality.image_size=32", "--model.modality.patch_size=16"]
VIT = {"width": 24, "depth": 2, "heads": 2, "mlp_ratio": 4.0}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A run of V-JEPA 2's recipe on generated clips of two frames, of an encoder of two layers."""
    folder = tmp_path_factory.mktemp("vjepa2")
    sizes = [f"--model.modality.encoder.{name}={value}" for name, value in VIT.items()]
    small = ["--model.modality.frames=2", "--model.predictor.width=12", "--model.predictor.depth=1"]
    small += ["--model.predictor.heads=2", "--model.checkpoint_activations=false", "--model.optimizer.fused=false"]
    small += [
        "--data.fps=null",
        "--data.stride=1",
        "--data.root=null",
        "--data.samples=16",
        "--data.batch_size=4",
        "--model.modality.masker=Tube",
    ]
    rotary = ["--model.modality.encoder.rotary=released", "--pictures.enabled=false", "--probe.enabled=false"]
    words = [*SIZES, *sizes, *small, *rotary, *QUIET, f"--trainer.default_root_dir={folder}"]
    fit(["--config", "recipes/vjepa2_vitl16", *words])
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory, encoder):
    """The recipe on episodes of a robot with seven numbers, whose changes are the actions."""
    folder, robot = tmp_path_factory.mktemp("vjepa2_ac"), tmp_path_factory.mktemp("robot") / "train.npz"
    rng = np.random.default_rng(0)
    state = rng.normal(size=(6, 8, 7)).cumsum(1).astype(np.float32)
    pixels = rng.integers(0, 256, size=(6, 8, 32, 32, 3), dtype=np.uint8)
    np.savez(robot, observations=pixels, actions=np.diff(state, axis=1), state=state)
    sizes = [f"--model.modality.encoder.encoder.{name}={value}" for name, value in VIT.items()]
    small = ["--model.predictor.width=24", "--model.predictor.depth=2", "--model.predictor.heads=2"]
    small += ["--data.window=6", "--data.batch_size=2", "--data.val_fraction=0.3", f"--data.root={robot}"]
    small += [f"--model.modality.encoder.weights={encoder}", f"--trainer.default_root_dir={folder}"]
    fit(["--config", "recipes/vjepa2_ac", *SIZES, *sizes, *small, *QUIET])
    return folder


def parts(name):
    """Settings of the encoder and of the predictor in a recipe."""
    model = yaml.safe_load(Path(find_config(f"recipes/{name}")).read_text())["model"]
    encoder = model["modality"]["init_args"]["encoder"]["init_args"]["encoder"]["init_args"]
    return encoder, model["predictor"]["init_args"]


def millions(part):
    return sum(parameter.numel() for parameter in part.parameters()) / 1e6


def test_sizes_are_the_papers():
    """V-JEPA 2-AC, section 3.1: about 300M parameters, of ViT-g's 1,012M; LeWorldModel, 3.1: about 10M, and 5M."""
    encoder, predictor = parts("vjepa2_ac")
    tubelet = TokenSpec(shape=(3, 2, 16, 16), grid=(1, 16, 16), positions=SinCosPositions)
    with torch.device("meta"):
        spec = PredictorSpec(dim=1408, out=1408, token=tubelet, condition=14, parts=(7, 7), frame=(1, 16, 16))
        assert millions(FrameCausalPredictor(spec, **predictor)) == pytest.approx(305.2, abs=0.1)
        assert millions(ViT(tubelet, **encoder)) == pytest.approx(1012.2, abs=0.1)
    encoder, predictor = parts("lewm_tworoom")
    patch = TokenSpec(shape=(1, 14, 14), grid=(16, 16), positions=SinCosPositions)
    with torch.device("meta"):
        spec = PredictorSpec(dim=192, out=192, token=patch, condition=10)
        found = FrameCausalPredictor(spec, **predictor)
        assert millions(found) == pytest.approx(11.8, abs=0.1)  # 0.8 of them are the projector's
        assert found.layers[0].mlp.fc1.weight.shape == (2048, 192)
        assert millions(ViT(patch, **encoder)) == pytest.approx(5.4, abs=0.1)


def test_the_encoder_stays_and_the_predictor_is_trained(run, encoder):
    world = jepa_lightning.load_world(run)
    frozen = jepa_lightning.load(encoder, encoder="target").encoder.state_dict()
    found = world.encoder.encoder.state_dict()
    assert frozen.keys() == found.keys()
    assert all(torch.equal(found[name], value) for name, value in frozen.items())
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 3
    trained = zip(world.predictor.parameters(), world.untrained().predictor.parameters(), strict=True)
    assert all(after.isfinite().all() and not torch.equal(after, before) for after, before in trained)


def test_the_world_imagines_from_one_frame_and_a_pose(run):
    world = jepa_lightning.load_world(run)
    frames = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    states = world.encode(frames)
    assert states.shape == (2, 4, 24)
    torch.testing.assert_close(states.mean(-1), torch.zeros(2, 4), atol=1e-4, rtol=0)  # layer-normed
    past = replace(world.past(states), proprio=torch.randn(2, 7))
    found = world.imagine(past, torch.randn(2, 3, 4, 7))
    assert found.shape == (2, 3, 4, 4, 24)
    with pytest.raises(ValueError, match="expected the robot's own state"):
        world.imagine(world.past(states), torch.randn(2, 3, 4, 7))
