"""Heads, layers that are trained and how fast, and the LightningModule."""

from functools import partial

import pytest
import torch
from timm.layers import DropPath
from torch import nn
from torch.nn import functional as F

from jepa_lightning import Frozen, load
from jepa_lightning.encoders import ConvEncoder, SinCosPositions, TokenSpec, ViT
from jepa_lightning.evaluation.probes.probing import run_probe
from jepa_lightning.evaluation.probes.protocols import Split
from jepa_lightning.finetuning import (
    AttentiveHead,
    FineTuned,
    FineTuning,
    LinearHead,
    layer_groups,
    load_finetuned,
    set_drop_path,
    unfreeze,
)
from jepa_lightning.finetuning.heads import loss_of, loss_of_shares

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.rand(8, 3, 32, 32, generator=GENERATOR)


@pytest.fixture
def frozen(make_jepa):
    return Frozen(make_jepa())


def trained(encoder):
    return {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}


def test_unfreeze(frozen):
    encoder = frozen.encoder
    every = {name for name, _ in encoder.named_parameters()}
    unfreeze(encoder, "all")
    assert trained(encoder) == every
    unfreeze(encoder, 1)
    assert trained(encoder) == {n for n in every if n.startswith(("transformer.layers.1.", "transformer.norm."))}
    unfreeze(encoder, "none")
    assert not trained(encoder)
    for wrong in (0, 3, "some"):
        with pytest.raises(ValueError, match="all, none or a number of layers from 1 to 2"):
            unfreeze(encoder, wrong)


def test_the_learning_rate_decays_from_layer_to_layer(frozen):
    encoder, head = frozen.encoder, nn.Linear(32, 3)
    unfreeze(encoder, "all")
    groups = layer_groups(encoder, head, learning_rate=1.0, weight_decay=0.1, layer_decay=0.5)
    rate = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert len(rate) == len(list(encoder.parameters())) + 2
    layers = encoder.layers
    assert rate[id(head.weight)] == (1.0, 0.1)
    assert rate[id(head.bias)] == (1.0, 0.0)
    assert rate[id(encoder.transformer.norm.weight)] == (0.5, 0.0)
    assert rate[id(layers[1].attn.qkv.weight)] == (0.5, 0.1)
    assert rate[id(layers[0].attn.qkv.weight)] == (0.25, 0.1)
    assert rate[id(encoder.embed.weight)] == (0.125, 0.1)
    unfreeze(encoder, 1)
    few = layer_groups(encoder, head, learning_rate=1.0, weight_decay=0.1, layer_decay=0.5)
    assert {group["lr"] for group in few} == {1.0, 0.5}
    with pytest.raises(ValueError, match="layer_decay above 0 and at most 1"):
        layer_groups(encoder, head, learning_rate=1.0, weight_decay=0.1, layer_decay=0.0)


def test_drop_path(frozen):
    set_drop_path(frozen.encoder, 0.2)
    first, last = frozen.encoder.layers
    assert isinstance(first.drop_path1, nn.Identity)
    assert isinstance(last.drop_path2, DropPath)
    assert last.drop_path2.drop_prob == 0.2
    before = frozen.embed({"image": IMAGES})
    assert torch.equal(frozen.embed({"image": IMAGES}), before)  # in eval mode
    with pytest.raises(ValueError, match="drop_path from 0 to below 1"):
        set_drop_path(frozen.encoder, 1.0)
    spec = TokenSpec(shape=(3, 8, 8), grid=(4, 4), positions=SinCosPositions)
    with pytest.raises(ValueError, match="leave drop_path out"):
        set_drop_path(ConvEncoder(spec, dim=8, width=2), 0.1)


@pytest.mark.parametrize("kind", ["classes", "values"])
def test_a_linear_head_begins_as_the_frozen_probe(kind):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(60, 4, 8, generator=generator)
    features = tokens.mean(1)
    labels = (features[:, 0] > 0).long() + (features[:, 1] > 0.2) if kind == "classes" else features[:, :2] * 3
    head = LinearHead(8, 3 if kind == "classes" else 2)
    known = labels[:40]
    fitted = known if kind == "classes" else (known - known.mean(0)) / known.std(0, correction=0)
    head.fit(features[:40], fitted)
    split = Split(torch.arange(40).numpy(), torch.arange(40, 60).numpy())
    values = labels.numpy() if kind == "classes" else labels.double().numpy()
    expected = run_probe("logistic" if kind == "classes" else "ridge", features, values, split).predicted
    found = head(tokens[40:])
    if kind == "classes":
        assert found.argmax(1).tolist() == expected.tolist()
    else:
        scaled = found * known.std(0, correction=0) + known.mean(0)
        torch.testing.assert_close(scaled.double(), torch.from_numpy(expected), atol=1e-4, rtol=1e-4)


def test_padding_plays_no_part():
    tokens, valid = torch.randn(2, 5, 8), torch.tensor([[True] * 3 + [False] * 2, [True] * 5])
    for head in (LinearHead(8, 3), AttentiveHead(8, 3)):
        for parameter in head.parameters():
            nn.init.normal_(parameter)
        other = tokens.clone()
        other[0, 3:] = 99.0
        torch.testing.assert_close(head(tokens, valid), head(other, valid))
        torch.testing.assert_close(head(tokens[:1, :3])[0], head(tokens, valid)[0], atol=1e-4, rtol=1e-4)


def test_samples_without_a_label_have_no_loss():
    outputs, goal = torch.randn(4, 3), torch.tensor([0, -1, 2, -1])
    torch.testing.assert_close(loss_of(outputs, goal), F.cross_entropy(outputs[[0, 2]], goal[[0, 2]]))
    values = torch.randn(4, 3)
    values[1, 0] = torch.nan
    torch.testing.assert_close(loss_of(outputs, values), F.mse_loss(outputs[[0, 2, 3]], values[[0, 2, 3]]))
    assert loss_of(outputs, torch.full((4,), -1)) == 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_mixed_samples_leaves_out_what_has_no_label(smoothing):
    """Against a plain loop in float64: samples 1 (half of it unknown) and 3 (all of it) of four."""
    outputs = torch.randn(4, 3, dtype=torch.float64, generator=GENERATOR)
    shares = torch.tensor([[0.3, 0.7, 0], [0, 0.5, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.float64)
    total = weight = 0.0
    for row, share in zip(outputs, shares, strict=True):
        known = float(share.sum())
        if known:
            goal = [(1 - smoothing) * float(part) / known + smoothing / 3 for part in share]
            logs = (row - row.logsumexp(0)).tolist()
            total += known * -sum(g * log for g, log in zip(goal, logs, strict=True))
            weight += known
    found = loss_of_shares(outputs, shares, label_smoothing=smoothing)
    assert float(found) == pytest.approx(total / weight, rel=1e-9)
    assert loss_of_shares(outputs, torch.zeros_like(shares)) == 0


def test_mixup_waits_for_no_device(frozen):
    """Samples without a label stay in the batch: to leave them out would read which they are."""
    module = FineTuning(FineTuned(frozen, label="label", classes=[0, 1], names=["a", "b"]), mixup=0.5)
    module.log = lambda *_, **__: None
    seen = []
    module.model.outputs = lambda batch: seen.append(len(batch["image"])) or torch.zeros(len(batch["image"]), 2)
    batch = {"image": IMAGES, "labels": {"label": torch.tensor([0, 1, -1, 0, 1, -1, 0, 1])}}
    assert module.training_step(batch, 0).isfinite()
    assert seen == [len(IMAGES)]


def finetuned(frozen, **settings):
    return FineTuned(frozen, **{"label": "shape", "classes": [2, 5], "names": ["cat", "dog"], **settings})


def test_classes_by_their_numbers(frozen):
    model = finetuned(frozen)
    goal = model.goal({"labels": {"shape": torch.tensor([5, 2, 3, -1])}})
    assert goal.tolist() == [1, 0, -1, -1]
    found = model({"image": IMAGES})
    assert found.shape == (8, 2)
    torch.testing.assert_close(found.sum(1), torch.ones(8))
    assert set(model.predict({"image": IMAGES})) <= {"cat", "dog"}
    with pytest.raises(ValueError, match="expected classes or a number of values"):
        FineTuned(frozen, label="shape")
    with pytest.raises(ValueError, match="linear, attentive, dense, got 'mlp'"):
        finetuned(frozen, head="mlp")


@pytest.mark.parametrize("settings", [{}, {"head": "attentive"}, {"classes": None, "names": (), "values": 2}])
def test_saved_and_loaded(short_run, tmp_path, settings):
    model = finetuned(load(short_run("image")[0]), **settings).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    if "values" in settings:
        model.target_scale.fill_(3.0)
    folder = model.save_pretrained(tmp_path / "finetune" / "model")
    again = load_finetuned(folder.parent)
    assert torch.equal(again({"image": IMAGES}), model({"image": IMAGES}))
    assert again.predict([IMAGES[0], IMAGES[1]]) == model.predict([IMAGES[0], IMAGES[1]])
    assert isinstance(again.predict(IMAGES[0]), list if "values" in settings else str)
    assert torch.equal(load(folder).embed({"image": IMAGES}), model.encoder.embed({"image": IMAGES}))
    with pytest.raises(ValueError, match="got an encoder alone"):
        load_finetuned(model.encoder.save_pretrained(tmp_path / "encoder"))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_trainer_of_your_own(make_jepa, make_data, make_trainer, precision):
    frozen = Frozen(make_jepa(encoder=partial(ViT, width=32, depth=2, heads=2)))
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    model = finetuned(frozen, classes=[0, 1, 2], names=())
    module = FineTuning(model, which=1, drop_path=0.1, mixup=0.8 if precision == "32-true" else 0.0)
    make_trainer(max_epochs=1, limit_train_batches=2, precision=precision).fit(module, make_data())
    changed = {name for name, value in frozen.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith(("encoder.transformer.layers.1.", "encoder.transformer.norm.")) for name in changed)
    assert module.trainer.callback_metrics.keys() >= {"train/loss", "val/accuracy"}


def test_settings_out_of_range(frozen):
    for wrong in ({"learning_rate": 0.0}, {"label_smoothing": 1.0}, {"mixup": -1.0}):
        with pytest.raises(ValueError, match="expected"):
            FineTuning(finetuned(frozen), **wrong)
    with pytest.raises(ValueError, match="mixup for images with classes only"):
        FineTuning(FineTuned(frozen, label="size", values=1), mixup=0.2)
