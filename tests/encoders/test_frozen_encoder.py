"""An encoder whose weights stay, and a world model that is trained on its states."""

from functools import partial

import pytest
import torch

from jepa_lightning import JEPA, load, load_world
from jepa_lightning.cli.fit import fit
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.encoders import ConvEncoder, FrozenEncoder, SinCosPositions, TimmConvNet, TokenSpec, ViT
from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.predictors import ResidualPredictor
from jepa_lightning.pretexts import Rollout
from jepa_lightning.targets import Online
from jepa_lightning.tokens import Tokens
from modalities.image import Image

SPEC = TokenSpec(shape=(3, 8, 8), grid=(4, 4), positions=SinCosPositions)
INNER = partial(ViT, width=24, depth=3, heads=2)


def tokens():
    return Tokens(values=torch.randn(2, 16, 3, 8, 8), positions=grid_positions((4, 4)), grid=(4, 4))


def test_it_is_the_encoder_without_gradient():
    torch.manual_seed(0)
    frozen = FrozenEncoder(SPEC, encoder=INNER)
    seen, keep = tokens(), torch.tensor([[0, 5, 9], [2, 3, 15]])
    assert torch.equal(frozen(seen), frozen.encoder(seen))
    assert torch.equal(frozen(seen, keep), frozen.encoder(seen, keep))
    assert torch.equal(frozen(seen, layers=(0, -1)), frozen.encoder(seen, layers=(0, -1)))
    assert not frozen(seen).requires_grad
    assert frozen.depth == 3
    assert frozen.group_matcher()("encoder.transformer.norm.weight") == 3


def test_norm_by_the_formula():
    frozen = FrozenEncoder(SPEC, encoder=INNER, norm=True).double()
    seen = tokens()
    plain = frozen.encoder(seen)
    for sample, other in zip(frozen(seen).flatten(0, 1), plain.flatten(0, 1), strict=True):
        expected = (other - other.mean()) / (other.var(correction=0) + 1e-5).sqrt()
        torch.testing.assert_close(sample, expected, rtol=1e-9, atol=1e-9)


def test_batch_norms_keep_their_statistics():
    small = {"layers": [1, 1], "channels": [16, 32]}
    frozen = FrozenEncoder(SPEC, encoder=partial(TimmConvNet, name="resnet18", stages=2, options=small)).train()
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    seen = tokens()
    first = frozen(seen)
    assert torch.equal(frozen(seen), first)
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())


def test_the_predictor_alone_is_trained():
    torch.manual_seed(0)
    encoder = partial(FrozenEncoder, encoder=partial(ConvEncoder, dim=16, width=4), norm=True)
    modality = Image(image_size=32, patch_size=32, channels=1, encoder=encoder)
    target = partial(Online, stop_gradient=False)
    jepa = JEPA(modality, pretext=Rollout(action_dim=2, steps=3), target=target, predictor=ResidualPredictor)
    assert {name.split(".")[0] for name, p in jepa.named_parameters() if p.requires_grad} == {"predictor"}
    jepa.total_steps = 30
    optimizer = torch.optim.Adam(jepa.configure_optimizers().param_groups, lr=3e-3)
    batch = {"image": torch.randn(8, 6, 1, 32, 32), "actions": torch.randn(8, 5, 2)}
    losses = []
    for step in range(30):
        loss = sum(jepa.losses(jepa.step(batch, torch.Generator().manual_seed(0)), step).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.7 * losses[0]
    assert not any(module.training for module in jepa.train().encoder.encoder.modules())


FEW = ["--data.episodes", "16", "--data.length", "12", "--data.windows", "1", "--trainer.max_epochs", "1"]
FEW += ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--probe.enabled", "false"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A world model, and a second one on the states of its encoder."""
    load_plugins()
    folder = tmp_path_factory.mktemp("frozen")
    first, second = folder / "first", folder / "second"
    fit(["--config", "world.yaml", *FEW, "--trainer.default_root_dir", str(first)])
    key = "--model.modality.encoder"
    inner = [key, "FrozenEncoder", f"{key}.weights", str(first), f"{key}.encoder", "ConvEncoder"]
    inner += [f"{key}.encoder.dim", "32", f"{key}.encoder.width", "8", "--model.regularizers", "null"]
    fit(["--config", "world.yaml", *FEW, *inner, "--trainer.default_root_dir", str(second)])
    return first, second


def test_a_run_on_the_states_of_another(runs):
    first, second = (load(str(run)) for run in runs)
    kept = second.encoder.encoder.state_dict()
    assert kept.keys() == first.encoder.state_dict().keys()
    assert all(torch.equal(value, kept[name]) for name, value in first.encoder.state_dict().items())


def test_it_needs_nothing_but_its_checkpoint(runs, tmp_path):
    first, second = runs
    first.rename(tmp_path / "away")
    try:
        world = load_world(str(second))
        states = world.encode({"image": torch.zeros(3, 1, 32, 32)})
        assert states.shape[0] == 3
        assert torch.isfinite(states).all()
    finally:
        (tmp_path / "away").rename(first)


def test_weights_that_do_not_fit(runs):
    with pytest.raises(ValueError, match="encoder in"):
        FrozenEncoder(SPEC, encoder=INNER, weights=str(runs[0]))
