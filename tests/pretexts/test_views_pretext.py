"""Views: values against a plain loop, gradients, teacher-free training from data with views."""

import copy
import json
import math
from functools import partial
from operator import mul

import pytest
import torch

from jepa_lightning import load
from jepa_lightning.cli.fit import fit
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.objectives import MSE, Cosine, CrossEntropy
from jepa_lightning.pretexts import Views
from jepa_lightning.pretexts.view_heads import Centering
from jepa_lightning.regularizers import SIGReg, VICReg
from jepa_lightning.schedules import Constant, DelayedRamp
from jepa_lightning.targets import EMA, Online, RawTokens

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


def test_batch_norm_between_the_layers_is_that_of_a_plain_loop(make_jepa):
    """Hidden channels are normalised over the samples of a view, then cut at zero."""
    jepa = make_jepa(pretext=Views(projector=(8, 6), norm="batch"), target=FLOWING, objective=MSE())
    (first, bias), (last, end) = (
        (layer.weight.detach().double(), layer.bias.detach().double())
        for layer in jepa.pretext.projector
        if isinstance(layer, torch.nn.Linear)
    )
    outcome = jepa.step(batch(), torch.Generator())
    for view, latents in zip(batch()["views"], outcome.context, strict=True):
        pooled_view = jepa.encoder(jepa.tokenizer(view)).mean(1).detach().double()
        hidden = [[float(first[c] @ row + bias[c]) for c in range(8)] for row in pooled_view]
        for c in range(8):
            column = [row[c] for row in hidden]
            mean = sum(column) / 4
            spread = (sum((x - mean) ** 2 for x in column) / 4 + 1e-5) ** 0.5
            for row in hidden:
                row[c] = max((row[c] - mean) / spread, 0.0)
        expected = torch.stack([last @ torch.tensor(row, dtype=torch.float64) + end for row in hidden])
        torch.testing.assert_close(latents.values[:, 0].double(), expected, atol=1e-4, rtol=1e-3)
    with pytest.raises(ValueError, match="expected the norm layer or batch, got 'group'"):
        Views(norm="group")


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_a_teacher_follows_batch_norm_with_its_running_statistics(make_jepa, momentum):
    jepa = make_jepa(pretext=Views(projector=(8, 6), norm="batch", head=5), target=EMA, objective=Cosine())
    jepa.train()
    jepa.step(batch(), torch.Generator())
    norm, copied = jepa.pretext.projector[1], jepa.target.head_0[1]
    assert norm.running_mean.abs().sum() > 0
    assert not copied.training
    jepa.target.average(jepa.encoder, momentum)
    assert torch.equal(copied.running_mean, norm.running_mean)
    assert torch.equal(copied.running_var, norm.running_var)


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
    with pytest.raises(ValueError, match=r"got the target RawTokens: set model\.target to Online, or to EMA"):
        make_jepa(pretext=Views(), target=RawTokens)
    with pytest.raises(ValueError, match="Online has no teacher: set it to null"):
        make_jepa(pretext=Views(centering=0.9), target=Online)
    for settings in ({"prototypes": 1}, {"centering": 1.0}, {"global_views": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(settings))}.* null for"):
            Views(**settings)
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


def unit(row):
    size = sum(x * x for x in row) ** 0.5
    return [x / size for x in row]


def softmax(row, temperature):
    powers = [math.exp(x / temperature) for x in row]
    return [power / sum(powers) for power in powers]


def rows(tensor):
    return tensor.detach().double().tolist()


def move_away(jepa):
    """As after some steps: the trained parts are other than their averages."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for part in (jepa.encoder, jepa.pretext):
            for parameter in part.parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


def pooled(jepa, encoder, projector, view):
    return projector(encoder(jepa.tokenizer(view)).mean(1))


@pytest.mark.parametrize("global_views", [None, 2, 1])
def test_byol_is_that_of_a_plain_loop(make_jepa, global_views):
    """One minus the cosine of each view's prediction with each other global view's projection by the teacher."""
    views = Views(projector=(8, 6), head=5, global_views=global_views)
    jepa = make_jepa(pretext=views, target=EMA, objective=Cosine())
    move_away(jepa)
    predicted = [rows(views.head(pooled(jepa, jepa.encoder, views.projector, v))) for v in batch()["views"]]
    taught = [rows(pooled(jepa, jepa.target.encoder, jepa.target.head_0, v)) for v in batch()["views"]]
    found = []
    for i in range(3):
        for j in range(global_views or 3):
            for b in range(4 if i != j else 0):
                p, t = unit(predicted[i][b]), unit(taught[j][b])
                found.append(1 - sum(x * y for x, y in zip(p, t, strict=True)))
    outcome = jepa.step(batch(), torch.Generator())
    assert len(outcome.predictions) == len(found) / 4
    loss = jepa.losses(outcome)["prediction"]
    assert float(loss) == pytest.approx(sum(found) / len(found), rel=1e-5)
    loss.backward()
    for part in (jepa.encoder, views.projector, views.head):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
    assert not any(p.requires_grad for p in jepa.target.parameters())


def test_dino_is_that_of_a_plain_loop(make_jepa):
    """Cross-entropy with the centred and sharpened teacher, which sees global views only; then the centre moves."""
    views = Views(projector=(8, 6), prototypes=7, global_views=2, centering=0.8)
    warming = DelayedRamp(start=0.04, end=0.07, begin=0.0, stop=0.5)
    jepa = make_jepa(pretext=views, target=EMA, objective=CrossEntropy(temperature=0.2, target_temperature=warming))
    move_away(jepa)
    jepa.total_steps = 100
    centre = [0.0] * 7
    for step in (0, 25):
        logits, taught = [], []
        for found, part, encoder in (
            (logits, views.projector, jepa.encoder),
            (taught, jepa.target.head_0, jepa.target.encoder),
        ):
            prototypes = [unit(row) for row in rows(part[1].weight)]
            for view in batch()["views"]:
                projected = [unit(row) for row in rows(pooled(jepa, encoder, part[0], view))]
                found.append([[sum(map(mul, z, p)) for p in prototypes] for z in projected])
        losses = []
        for i in range(3):
            for j in range(2):
                for b in range(4 if i != j else 0):
                    sharp = [x - c for x, c in zip(taught[j][b], centre, strict=True)]
                    target = softmax(sharp, 0.04 if step == 0 else 0.055)
                    guess = softmax(logits[i][b], 0.2)
                    losses.append(-sum(t * math.log(q) for t, q in zip(target, guess, strict=True)))
        outcome = jepa.step(batch(), torch.Generator())
        found = jepa.losses(outcome, step)["prediction"]
        assert float(found) == pytest.approx(sum(losses) / len(losses), rel=1e-4)
        seen = [row for j in range(2) for row in taught[j]]
        centre = [0.8 * c + 0.2 * sum(row[k] for row in seen) / len(seen) for k, c in enumerate(centre)]
        torch.testing.assert_close(views.centering.mean.double(), torch.tensor(centre).double(), rtol=1e-5, atol=1e-6)
    found.backward()
    assert all(p.grad is not None for p in [*jepa.encoder.parameters(), *views.parameters()])


def test_the_centre_stays_where_nothing_is_to_be_learned_from(make_jepa):
    centering = Centering(3, momentum=0.5)
    centering(torch.full((2, 4, 3), float("nan")))
    assert centering.mean.tolist() == [0.0] * 3
    centering.eval()(torch.ones(2, 4, 3))
    assert centering.mean.tolist() == [0.0] * 3
    assert centering.to(torch.bfloat16).mean.dtype == torch.float32
    jepa = make_jepa(pretext=Views(projector=(6,), centering=0.9), target=EMA)
    jepa.eval().step(batch(), torch.Generator())
    assert not jepa.pretext.centering.mean.any()


def test_the_projector_is_averaged_as_the_encoder_is(make_jepa, make_data, make_trainer):
    jepa = make_jepa(
        pretext=Views(projector=(8, 6), head=5),
        target=partial(EMA, momentum=Constant(0.9)),
        objective=Cosine(),
        learning_rate=Constant(1e-2),
    )
    before = {name: value.clone() for name, value in jepa.state_dict().items()}
    make_trainer(max_steps=1).fit(jepa, datamodule=make_data(views=2))
    after = jepa.state_dict()
    names = [name for name in after if name.startswith("target.head_0.")]
    assert len(names) == len(list(jepa.pretext.projector.parameters())) == 6
    for name in names:
        trained = name.replace("target.head_0", "pretext.projector")
        average = 0.9 * before[name].double() + 0.1 * after[trained].double()
        torch.testing.assert_close(after[name].double(), average, rtol=1e-6, atol=1e-8)
        assert not torch.equal(after[trained], before[trained])


def test_a_copy_has_its_own_averages(make_jepa):
    jepa = make_jepa(pretext=Views(projector=(8, 6)), target=EMA)
    other = copy.deepcopy(jepa)
    with torch.no_grad():
        for parameter in other.pretext.parameters():
            parameter.fill_(0.5)
    other.target.average(other.encoder, 0.0)
    for name, value in other.pretext.projector.state_dict().items():
        assert torch.equal(other.target.head_0.state_dict()[name], value)
        assert torch.equal(jepa.target.head_0.state_dict()[name], jepa.pretext.projector.state_dict()[name])
        assert torch.equal(value, torch.full_like(value, 0.5))
    views = batch()
    kept = jepa.step(views, torch.Generator()).target[0].values
    assert torch.equal(kept, jepa.step(views, torch.Generator()).target[0].values)
    assert not other.step(views, torch.Generator()).target[0].values.any()  # layer-normed, of the same in all channels
    assert kept.any()


def test_other_pretexts_have_nothing_new_to_save(make_jepa):
    """So checkpoints from before the teacher had a projector load, and those of a views run without a teacher."""
    jepa = make_jepa()
    own = {f"target.{name}" for name in jepa.state_dict() if name.startswith("encoder.")}
    assert {name for name in jepa.state_dict() if name.startswith("target.")} == own
    jepa = make_jepa(pretext=Views(projector=(8, 6)), target=Online)
    kinds = {name.split(".")[0] for name in jepa.state_dict()}
    assert kinds == {"encoder", "pretext"}
    assert not [name for name in jepa.state_dict() if "head" in name or "centering" in name]


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
