"""Views: values against a plain loop, gradients, teacher-free training from data with views."""

import json
from functools import partial

import pytest
import torch

from jepa_lightning import load
from jepa_lightning.cli.fit import fit
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.objectives import MSE
from jepa_lightning.pretexts import Views
from jepa_lightning.regularizers import SIGReg, VICReg
from jepa_lightning.schedules import Constant
from jepa_lightning.targets import EMA, Online

FLOWING = partial(Online, stop_gradient=False)


def batch(views=3, size=4):
    images = torch.rand(views, size, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = [{"image": image} for image in images]
    return {**found[0], "views": found}


def test_values_are_those_of_a_plain_loop(make_jepa):
    jepa = make_jepa(pretext=Views(projector=(8, 6), global_views=2), target=FLOWING, objective=MSE())
    outcome = jepa.step(batch(), torch.Generator())
    projections = []
    for view in batch()["views"]:
        encoded = jepa.encoder(jepa.tokenizer(view))  # (B, N, D)
        projections.append(
            jepa.pretext.projector(sum(encoded[:, n] for n in range(encoded.shape[1])) / encoded.shape[1])
        )
    centre = (projections[0] + projections[1]) / 2
    total = 0.0
    for z in projections:
        for b in range(4):
            total += float(sum((z[b, d] - centre[b, d]) ** 2 for d in range(6))) / 6
    assert float(jepa.losses(outcome)["prediction"]) == pytest.approx(total / 12, rel=1e-5)
    assert [latents.values.shape for latents in outcome.context] == [(4, 1, 6)] * 3
    assert not list(jepa.predictor.parameters())


def test_segments_lie_side_by_side_before_the_projector(make_jepa):
    """Each view's projection from the means of its four columns of patches; padding has no say."""
    jepa = make_jepa(pretext=Views(projector=(8, 6), pooling="segments"), target=FLOWING, objective=MSE())
    outcome = jepa.step(batch(), torch.Generator())
    for view, latents in zip(batch()["views"], outcome.context, strict=True):
        tokens = jepa.tokenizer(view)
        assert tokens.grid == (4, 4)
        encoded = jepa.encoder(tokens)  # tokens in raster order
        columns = [sum(encoded[:, 4 * row + column] for row in range(4)) / 4 for column in range(4)]
        expected = jepa.pretext.projector(torch.cat(columns, 1))
        torch.testing.assert_close(latents.values[:, 0], expected, atol=1e-5, rtol=1e-4)
    none = make_jepa(pretext=Views(projector=(), pooling="segments"), target=FLOWING, objective=MSE())
    assert none.step(batch(), torch.Generator()).context[0].values.shape == (4, 1, 4 * jepa.encoder.dim)


def test_the_gradient_flows_through_both_sides_or_is_stopped(make_jepa):
    for target, head in ((FLOWING, None), (Online, 5)):
        jepa = make_jepa(pretext=Views(projector=(8, 6), head=head), target=target, objective=MSE())
        outcome = jepa.step(batch(), torch.Generator())
        assert outcome.target[0].values.requires_grad == (target is FLOWING)
        jepa.losses(outcome)["prediction"].backward()
        assert all(p.grad is not None for p in jepa.encoder.parameters())
        assert all(p.grad is not None for p in jepa.pretext.parameters())


def test_settings_and_data_that_make_no_sense(make_jepa):
    with pytest.raises(ValueError, match=r"got the target EMA: set model\.target to Online"):
        make_jepa(pretext=Views(), target=EMA)
    with pytest.raises(ValueError, match="widths must be at least 1"):
        Views(projector=(0,))
    with pytest.raises(ValueError, match="expected the pooling mean or segments, got 'max'"):
        Views(pooling="max")
    jepa = make_jepa(pretext=Views(projector=()), target=FLOWING)
    with pytest.raises(ValueError, match=r"at least 2 views of each sample: set data\.views to 2 or more"):
        jepa.step({"image": torch.rand(4, 3, 32, 32)}, torch.Generator())
    jepa.eval()
    outcome = jepa.step({"image": torch.rand(4, 3, 32, 32)}, torch.Generator())
    assert outcome.context[0].values.shape == (4, 1, 32)
    assert jepa.losses(outcome) == {}


@pytest.mark.long
@pytest.mark.parametrize("regularizer", [SIGReg, VICReg])
def test_training_brings_views_together_without_collapse(make_jepa, make_data, make_trainer, regularizer):
    module = make_jepa(
        pretext=Views(projector=(32, 16)),
        target=FLOWING,
        objective=MSE(),
        regularizers=[regularizer],
        learning_rate=Constant(1e-3),
    )
    trainer = make_trainer(max_epochs=3)
    trainer.fit(module, datamodule=make_data(views=2))
    found = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert found["train/loss"] == pytest.approx(
        found["train/loss_prediction"] + found[f"train/loss_{regularizer.name}"], rel=1e-5
    )
    assert found["val/loss"] > 0  # the regularizer's: validation batches have no views
    assert not [key for key in module.state_dict() if key.startswith(("target.", "predictor."))]


CONFIG = """
model:
  modality:
    class_path: Image
    init_args:
      image_size: 32
      patch_size: 8
      any_size: true
      encoder: {class_path: ViT, init_args: {width: 32, depth: 1, heads: 2}}
  pretext: {class_path: Views, init_args: {projector: [32, 16], global_views: 2}}
  target: {class_path: Online, init_args: {stop_gradient: false}}
  objective: MSE
  prediction_weight: 0.95
  regularizers: [{class_path: SIGReg, init_args: {weight: 0.05, directions: 64}}]
data:
  class_path: ImageData
  init_args:
    samples: 64
    batch_size: 16
    num_workers: 0
    views: 4
    view_transform: {class_path: ImageViews, init_args: {local_views: 2, local_size: 16}}
trainer: {max_steps: 3, accelerator: cpu, logger: false, enable_progress_bar: false, num_sanity_val_steps: 0}
"""


def test_from_yaml_and_back(tmp_path):
    """LeJEPA as a config, loaded again with one encoder in memory."""
    load_plugins()
    config = tmp_path / "lejepa.yaml"
    config.write_text(CONFIG)
    fit(["--config", str(config), "--collapse.every_n_steps", "2", "--trainer.default_root_dir", str(tmp_path / "run")])
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["effective_rank"] is not None
    encoder = load(tmp_path / "run")
    assert encoder.modality.encoder is encoder.encoder
    assert encoder.embed({"image": torch.rand(2, 3, 32, 32)}).shape == (2, 32)
