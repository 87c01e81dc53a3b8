"""The target by a frozen encoder of another run, or one that something else has trained."""

import shutil
from functools import partial

import pytest
import torch
from short_runs import fit_shortly
from torch import nn

from jepa_lightning import load, load_jepa
from jepa_lightning.config.rebuild import build_model
from jepa_lightning.encoders import TimmEncoder, ViT
from jepa_lightning.regularizers import VICReg
from jepa_lightning.targets import Pretrained
from modalities.image import Image

IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SAME = partial(ViT, width=16, depth=1, heads=2)  # sizes of the short runs


@pytest.fixture(scope="module")
def source(short_run):
    """The folder of a run whose encoder is taken."""
    return short_run("image")[0]


@pytest.fixture
def build(make_jepa, source):
    def build(*, encoder=SAME, checkpoint=source, frozen=None, **settings):
        return make_jepa(
            encoder=encoder, target=partial(Pretrained, checkpoint=str(checkpoint), build=frozen), **settings
        )

    return build


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def total_loss(jepa):
    return sum(jepa.losses(jepa.step({"image": IMAGES}, torch.Generator().manual_seed(0))).values())


def test_takes_the_evaluated_encoder_of_a_run_and_never_trains_it(build, source, make_jepa, make_data, make_trainer):
    jepa = build()
    frozen = load(source).encoder
    assert same(jepa.target.encoder, frozen)
    assert same(jepa.encoder, make_jepa(encoder=SAME).encoder)  # the context's starts as ever
    assert not any(p.requires_grad for p in jepa.target.parameters())
    assert jepa.evaluated_encoder is jepa.encoder
    jepa.train()
    assert not any(part.training for part in jepa.target.modules())
    total_loss(jepa).backward()
    assert all(p.grad is None for p in jepa.target.parameters())
    assert all(p.grad is not None for p in jepa.encoder.parameters())
    before = {name: p.detach().clone() for name, p in jepa.encoder.named_parameters()}
    make_trainer(max_steps=3, limit_val_batches=0).fit(jepa, datamodule=make_data())
    assert same(jepa.target.encoder, frozen)
    assert all(not torch.equal(p, before[name]) for name, p in jepa.encoder.named_parameters() if p.ndim > 1)


def test_the_random_numbers_of_the_run_are_untouched(build, make_jepa):
    build()
    after = torch.rand(3)
    make_jepa(encoder=SAME)
    assert torch.equal(torch.rand(3), after)


def test_other_sizes_are_refused(build, source):
    for encoder, frozen, says in (
        (partial(ViT, width=32, depth=1, heads=2), None, r"embed\.weight is \(16, 192\) there and \(32, 192\) here"),
        (partial(ViT, width=16, depth=2, heads=2), None, r"layers\.1\.\S+ is nothing there and \(16,\) here"),
        (SAME, partial(ViT, width=8, depth=1, heads=2), r"embed\.weight is \(16, 192\) there and \(8, 192\) here"),
    ):
        with pytest.raises(ValueError, match=rf"does not have the expected sizes: \S*{says}; set target.build"):
            build(encoder=encoder, frozen=frozen)


def test_an_encoder_of_other_sizes_than_the_context_encoders(build, source):
    jepa = build(
        encoder=partial(ViT, width=24, depth=2, heads=2), frozen=SAME, regularizers=[partial(VICReg, on="predicted")]
    )
    assert jepa.target.dim == 16
    assert same(jepa.target.encoder, load(source).encoder)
    outcome = jepa.step({"image": IMAGES}, torch.Generator().manual_seed(0))
    assert outcome.context[0].values.shape[-1] == 24
    assert outcome.target[0].values.shape[-1] == outcome.predictions[0].predicted.shape[-1] == 16
    assert jepa.regularizers[0].dim == 16
    total_loss(jepa).backward()
    assert all(p.grad is not None for part in (jepa.encoder, jepa.predictor) for p in part.parameters())


def test_an_encoder_that_brings_its_own_weights(make_jepa):
    class Given(ViT):
        def __init__(self, spec):
            super().__init__(spec, width=16, depth=1, heads=2)
            nn.init.constant_(self.embed.weight, 0.25)

    jepa = make_jepa(encoder=SAME, target=partial(Pretrained, build=Given))
    assert (jepa.target.encoder.embed.weight == 0.25).all()
    assert not any(p.requires_grad for p in jepa.target.parameters())
    total_loss(jepa).backward()


def test_whose_weights_must_be_said(make_jepa, tmp_path):
    with pytest.raises(ValueError, match=r"needs weights: give checkpoint \(a run\), or build \(an encoder\)"):
        make_jepa(target=Pretrained)
    with pytest.raises(ValueError, match="does not exist"):
        make_jepa(target=partial(Pretrained, checkpoint=str(tmp_path / "nowhere")))


# From the command line ----------------------------------------------------------------------------------------------


def fit_from(source, folder, *words):
    """A run with the encoder of a copy of `source`, which is gone afterwards; and its folder."""
    gone = folder / "source"
    shutil.copytree(source, gone)
    target = ["--model.target", "Pretrained", "--model.target.checkpoint", str(gone)]
    run = fit_shortly("image", folder / "run", *target, *words)
    shutil.rmtree(gone)
    return run, folder / "run"


OTHER_SIZES = [
    *("--model.modality.encoder.width", "24", "--model.target.build", "ViT", "--model.target.build.width", "16"),
    *("--model.target.build.depth", "1", "--model.target.build.heads", "2"),
]


@pytest.fixture(scope="module", params=[[], OTHER_SIZES], ids=["same sizes", "other sizes"])
def second(request, source, tmp_path_factory):
    return fit_from(source, tmp_path_factory.mktemp("second"), *request.param)


@pytest.mark.long
def test_a_run_needs_nothing_of_the_other_once_it_has_begun(source, second):
    frozen = load(source).encoder
    run, folder = second
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for name, value in frozen.state_dict().items():
        assert torch.equal(state[f"target.encoder.{name}"], value), name
    encoder = load(folder)
    assert same(encoder.encoder, run.model.encoder)
    assert torch.equal(encoder.embed({"image": IMAGES}), run.model.embed({"image": IMAGES}))
    assert same(load(folder, encoder="target").encoder, frozen)
    assert same(encoder.untrained().encoder, run.before.encoder)
    whole = load_jepa(folder)
    assert torch.equal(total_loss(whole), total_loss(run.model))


def test_a_run_with_a_frozen_target_is_a_target_itself(second, build):
    """By the encoder that it has trained, which is what it was judged by."""
    run, folder = second
    jepa = build(encoder=partial(ViT, width=run.model.encoder.dim, depth=1, heads=2), checkpoint=folder)
    assert same(jepa.target.encoder, run.model.encoder)


def test_an_encoder_that_began_with_weights_keeps_them_when_it_is_built_anew(source, tmp_path):
    """A frozen target is rebuilt without its weights; the context encoder's are another matter."""
    sizes = {"name": "vit_tiny_patch16_224", "options": {"depth": 1, "embed_dim": 16, "num_heads": 2}}
    made = Image(image_size=32, patch_size=8, encoder=partial(TimmEncoder, **sizes)).encoder
    torch.save(made.model.state_dict(), tmp_path / "weights.pt")
    encoder = {
        "class_path": "jepa_lightning.encoders.TimmEncoder",
        "init_args": {**sizes, "weights": str(tmp_path / "weights.pt")},
    }
    modality = {"class_path": "modalities.image.Image", "init_args": {"image_size": 32, "patch_size": 8}}
    stored = {
        "modality": {**modality, "init_args": {**modality["init_args"], "encoder": encoder}},
        "target": {"class_path": "jepa_lightning.targets.Pretrained", "init_args": {"checkpoint": str(source)}},
    }
    kept = build_model(stored, pretrained=True)
    assert same(kept.encoder, made)
    fresh = build_model(stored, pretrained=False)
    assert not same(fresh.encoder, made)


def test_an_encoder_that_the_configuration_does_not_name(source):
    """The modality's own default, which a frozen target is then rebuilt like."""
    stored = {
        "modality": {"class_path": "modalities.image.Image", "init_args": {"image_size": 32, "patch_size": 8}},
        "target": {"class_path": "jepa_lightning.targets.Pretrained", "init_args": {"checkpoint": str(source)}},
    }
    jepa = build_model(stored, pretrained=False)
    shapes = [[p.shape for p in part.parameters()] for part in (jepa.encoder, jepa.target.encoder)]
    assert shapes[0] == shapes[1]
