"""The target by the trained encoder itself."""

import copy
from functools import partial

import pytest
import torch

from jepa_lightning import Frozen, load
from jepa_lightning.callbacks import CollapseMonitor, LastCheckpoint, OnlineProbe, Pictures
from jepa_lightning.regularizers import VICReg
from jepa_lightning.targets import Online

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
FLOWING = partial(Online, stop_gradient=False)


def distance(jepa, images=IMAGES):
    """The mean squared error of a step, in the module's own precision."""
    outcome = jepa.step({"image": images}, torch.Generator().manual_seed(1))
    return torch.stack([(p.predicted - p.target).square().mean() for p in outcome.predictions]).mean()


def grads(module):
    found = {name: p.grad for name, p in module.named_parameters()}
    module.zero_grad()
    return found


def test_is_the_context_encoder_and_holds_nothing(make_jepa):
    jepa = make_jepa(target=Online)
    target = jepa.target
    assert target.encoder is jepa.encoder is jepa.modality.encoder is jepa.evaluated_encoder
    assert target.dim == 32
    assert not list(target.parameters())
    assert not target.state_dict()
    assert not target.schedules
    assert not [name for name in jepa.state_dict() if name.startswith("target.")]
    assert {p.data_ptr() for p in jepa.encoder.parameters()} < {p.data_ptr() for p in jepa.parameters()}
    before = copy.deepcopy(jepa.state_dict())
    target.update(jepa.encoder, 3, 10)
    assert all(torch.equal(before[name], value) for name, value in jepa.state_dict().items())
    jepa.double()
    assert {p.dtype for p in target.encoder.parameters()} == {torch.float64}


@pytest.mark.parametrize("target", [Online, FLOWING])
def test_gradients_are_those_of_finite_differences(make_jepa, target):
    """Along random directions of the encoder's weights: with the target held fixed, or moving with them."""
    jepa = make_jepa(target=target).double()
    images = IMAGES.double()
    step = jepa.step({"image": images}, torch.Generator().manual_seed(1))
    assert step.predictions[0].target.requires_grad != jepa.target.stop_gradient
    fixed = step.predictions[0].target.detach()
    distance(jepa, images).backward()
    gradients = grads(jepa.encoder)

    def moved(direction, size):
        with torch.no_grad():
            for (_, p), d in zip(jepa.encoder.named_parameters(), direction, strict=True):
                p += size * d
            prediction = jepa.step({"image": images}, torch.Generator().manual_seed(1)).predictions[0]
            seen = fixed if jepa.target.stop_gradient else prediction.target
            value = float((prediction.predicted - seen).square().mean())
            for (_, p), d in zip(jepa.encoder.named_parameters(), direction, strict=True):
                p -= size * d
        return value

    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        direction = [torch.randn(g.shape, generator=generator, dtype=g.dtype) for g in gradients.values()]
        slope = (moved(direction, 1e-5) - moved(direction, -1e-5)) / 2e-5
        expected = float(sum((g * d).sum() for g, d in zip(gradients.values(), direction, strict=True)))
        assert slope == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_the_gradient_through_the_target_is_what_is_stopped(make_jepa):
    stopped, flowing = make_jepa(target=Online), make_jepa(target=FLOWING)
    found = []
    for jepa in (stopped, flowing):
        distance(jepa).backward()
        found.append(grads(jepa))
    outcome = flowing.step({"image": IMAGES}, torch.Generator().manual_seed(1))
    prediction = outcome.predictions[0]
    (prediction.predicted.detach() - prediction.target).square().mean().backward()
    through = grads(flowing)
    for name in found[0]:
        if name.startswith("encoder."):
            assert through[name].abs().sum() > 0
            torch.testing.assert_close(found[1][name], found[0][name] + through[name], rtol=1e-4, atol=1e-7)
        else:
            assert through[name] is None
            torch.testing.assert_close(found[1][name], found[0][name])


def test_a_deep_copy_points_to_the_copy(make_jepa):
    jepa = make_jepa(target=FLOWING)
    clone = copy.deepcopy(jepa)
    assert clone.target.encoder is clone.encoder is clone.modality.encoder
    assert clone.encoder is not jepa.encoder
    assert not clone.target.stop_gradient
    distance(clone).backward()
    assert all(p.grad is not None for p in clone.encoder.parameters())
    assert all(p.grad is None for p in jepa.parameters())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("online")


def test_a_run_and_its_checkpoint_hold_one_encoder(make_jepa, make_data, make_trainer, folder):
    settings = {"target": FLOWING, "regularizers": [VICReg]}
    jepa = make_jepa(**settings)
    before = copy.deepcopy(jepa.state_dict())
    callbacks = (LastCheckpoint(), CollapseMonitor(every_n_steps=2), OnlineProbe(), Pictures(samples=2))
    trainer = make_trainer(*callbacks, max_epochs=1, default_root_dir=folder)
    trainer.fit(jepa, datamodule=make_data())
    metrics = trainer.callback_metrics
    for name in ("train/loss_vicreg", "collapse/effective_rank", "probe/linear", "probe/linear_untrained", "val/loss"):
        assert metrics[name].isfinite(), name
    assert "train/momentum" not in metrics
    assert (folder / "pictures" / "features_000006.png").is_file()
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert {name.split(".")[0] for name in state} == {"encoder", "predictor"}
    assert all(not torch.equal(value, before[name]) for name, value in state.items() if name.endswith("weight"))
    loaded = [
        load(folder, module=make_jepa(seed=5, **settings), encoder=which) for which in (None, "target", "context")
    ]
    expected = Frozen(jepa).embed({"image": IMAGES})
    assert all(torch.equal(encoder.embed({"image": IMAGES}), expected) for encoder in loaded)
    with pytest.raises(ValueError, match="missing: target"):
        load(folder, module=make_jepa())
