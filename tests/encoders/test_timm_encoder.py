import copy

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from torch import nn

from jepa_lightning.encoders import SinCosPositions, TimmEncoder, TokenSpec
from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.tokens import Tokens, take

SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 2}
MODELS = {
    "vit": ("vit_tiny_patch16_224", {}),
    "dinov2": ("vit_small_patch14_reg4_dinov2", {}),
    "clip": ("vit_base_patch32_clip_224", {}),
    "gap": ("vit_little_patch16_reg4_gap_256", {}),
    "siglip": ("vit_base_patch16_siglip_224", {}),
    "distilled": ("deit_tiny_distilled_patch16_224", {}),
    "eva02": ("eva02_tiny_patch14_224", {}),
    "rope mixed": ("vit_small_patch16_rope_mixed_ape_224", {}),
    "dinov3": ("vit_small_patch16_dinov3", {}),
    "naflex": ("naflexvit_base_patch16_gap", {}),
    "naflex factorized": ("naflexvit_base_patch16_parfac_gap", {}),
    "naflex rope": ("naflexvit_base_patch16_gap", {"rope_type": "axial"}),
    "naflex rope mixed": ("naflexvit_base_patch16_gap", {"rope_type": "mixed"}),
    "vit as naflex": ("vit_tiny_patch16_224", {"use_naflex": True}),
}
REFUSED = [
    *("swin_tiny_patch4_window7_224", "hiera_tiny_224", "beit_base_patch16_224", "convnext_tiny", "resnet50"),
    *("mvitv2_tiny", "vit_small_r26_s32_224", "vit_relpos_small_patch16_224", "samvit_base_patch16"),
]
IMAGES = [(3, (16, 16), (3, 3)), (1, (8, 4), (2, 5)), (5, (4, 4), (4, 3))]  # channels, patch, grid
IMAGE = IMAGES[1]
every_model = pytest.mark.parametrize("model", MODELS)


def build(model, image=IMAGE, **arguments):
    """An encoder whose parameters are all away from zero and one, so that none of them is without effect."""
    channels, patch, grid = image
    name, options = MODELS[model]
    spec = TokenSpec(shape=(channels, *patch), grid=grid, positions=SinCosPositions)
    arguments = {"name": name, "options": {**SMALL, **options, **arguments.pop("options", {})}, **arguments}
    encoder = TimmEncoder(spec, **arguments)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return encoder.eval()


def reference(model, image, encoder):
    """timm's own model with the encoder's weights; features are normed by `norm`, or else by `fc_norm`."""
    channels, (height, width), (rows, columns) = image
    name, options = MODELS[model]
    size = {} if "naflex" in name else {"img_size": (rows * height, columns * width), "dynamic_img_size": False}
    own = timm.create_model(
        name, patch_size=(height, width), in_chans=channels, num_classes=0, **size, **SMALL, **options
    )
    pools_first = isinstance(own.norm, nn.Identity)
    state = encoder.model.state_dict()
    if pools_first:
        state = {k.replace("norm.", "fc_norm.") if k.startswith("norm.") else k: v for k, v in state.items()}
    missing, unexpected = own.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(key.startswith("attn_pool.") for key in missing)
    return own.eval(), own.fc_norm if pools_first else nn.Identity()


def cut(images, patch):
    """Images as tokens in raster order."""
    batch, channels, height, width = images.shape
    rows, columns = height // patch[0], width // patch[1]
    values = images.view(batch, channels, rows, patch[0], columns, patch[1]).permute(0, 2, 4, 1, 3, 5)
    values = values.reshape(batch, rows * columns, channels, *patch)
    return Tokens(values=values, positions=grid_positions((rows, columns)), grid=(rows, columns))


def draw(image=IMAGE, batch=2, kept=4):
    channels, patch, grid = image
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(batch, channels, grid[0] * patch[0], grid[1] * patch[1], generator=generator)
    keep = torch.rand(batch, grid[0] * grid[1], generator=generator).argsort(dim=1)[:, :kept]
    return images, cut(images, patch), keep


class Keep(nn.Module):
    """In the place of timm's patch dropout: keeps the tokens it is told to."""

    def __init__(self, keep, prefix, *, tells):
        super().__init__()
        self.keep, self.prefix, self.tells = keep, prefix, tells

    def forward(self, x):
        x = torch.cat([x[:, : self.prefix], take(x[:, self.prefix :], self.keep)], dim=1)
        return (x, self.keep) if self.tells else x


@pytest.mark.parametrize("image", IMAGES)
@every_model
def test_all_tokens_equal_timms_own_features(model, image):
    encoder = build(model, image)
    images, tokens, _ = draw(image)
    own, norm = reference(model, image, encoder)
    expected = norm(own.forward_features(images))[:, own.num_prefix_tokens :]
    torch.testing.assert_close(encoder(tokens), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("image", IMAGES[:2])
@every_model
def test_kept_tokens_equal_timms_patch_dropout(model, image):
    encoder = build(model, image)
    images, tokens, keep = draw(image)
    own, norm = reference(model, image, encoder)
    own.patch_drop = Keep(keep, own.num_prefix_tokens, tells=type(own).__name__ in ("Eva", "NaFlexVit"))
    own.train()  # NaFlexVit drops patches in training only; there is no other dropout in these models
    expected = norm(own.forward_features(images))[:, own.num_prefix_tokens :]
    assert expected.shape == (2, 4, SMALL["embed_dim"])
    torch.testing.assert_close(encoder(tokens, keep), expected, rtol=0, atol=1e-5)


@every_model
def test_hidden_pixels_change_nothing(model):
    encoder = build(model)
    _, tokens, keep = draw()
    before = encoder(tokens, keep)
    hidden = torch.ones(2, tokens.count, dtype=torch.bool).scatter(1, keep, False)
    tokens.values[hidden] = torch.nan
    assert torch.equal(encoder(tokens, keep), before)


@every_model
def test_padding_is_never_attended_to(model):
    encoder = build(model)
    _, tokens, keep = draw(kept=6)
    alone = encoder(tokens, keep[:, :4])
    valid = torch.arange(6).expand(2, 6) < 4
    torch.testing.assert_close(encoder(tokens, keep, valid)[:, :4], alone, rtol=0, atol=1e-5)
    for block in encoder.layers:
        block.attn.fused_attn = False
    torch.testing.assert_close(encoder(tokens, keep, valid)[:, :4], alone, rtol=0, atol=1e-5)


@every_model
def test_invalid_tokens_are_padding_without_keep_too(model):
    encoder = build(model)
    _, tokens, _ = draw()
    valid = torch.arange(tokens.count) < 7
    padded = Tokens(values=tokens.values, positions=tokens.positions, grid=tokens.grid, valid=valid.expand(2, -1))
    expected = encoder(tokens, torch.arange(7).expand(2, -1))
    torch.testing.assert_close(encoder(padded)[:, :7], expected, rtol=0, atol=1e-5)


def test_nothing_but_padding_is_finite():
    encoder = build("gap", options={"reg_tokens": 0})
    _, tokens, keep = draw()
    assert encoder(tokens, keep, torch.zeros_like(keep, dtype=torch.bool)).isfinite().all()


@every_model
def test_every_parameter_gets_a_gradient_in_training(model):
    encoder = build(model).train()
    _, tokens, keep = draw()
    encoder(tokens, keep).square().mul(torch.rand(48)).sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()] == []


@every_model
def test_a_deep_copy_is_the_same_and_independent(model):
    encoder = build(model)
    _, tokens, keep = draw()
    before = encoder(tokens, keep)
    twin = copy.deepcopy(encoder)
    assert torch.equal(twin(tokens, keep), before)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter += 1
    assert torch.equal(encoder(tokens, keep), before)
    assert twin.dim == before.shape[-1]
    assert len(list(twin.layers)) == SMALL["depth"]


def test_rotary_augmentation_is_for_training_only():
    encoder = build("dinov3")
    encoder.model.rope.rescale_coords, encoder.model.rope.aug_active = 2.0, True  # as DINOv3 was trained
    _, tokens, keep = draw()
    assert torch.equal(encoder(tokens, keep), encoder(tokens, keep))
    encoder.train()
    first, second = encoder(tokens, keep), encoder(tokens, keep)
    assert first.isfinite().all()
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("model", ["vit", "dinov3", "naflex rope mixed"])
def test_mixed_precision_with_padding(model):
    encoder = build(model)
    _, tokens, keep = draw(kept=6)
    valid = torch.arange(6).expand(2, 6) < 5
    expected = encoder(tokens, keep, valid)[:, :5]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = encoder(tokens, keep, valid)[:, :5]
    assert (mixed - expected).abs().mean() < 0.05
    low = encoder.bfloat16()(tokens, keep, valid)
    assert low.dtype == torch.bfloat16
    assert (low[:, :5] - expected).abs().mean() < 0.05


def test_drop_path_reaches_the_last_block():
    assert list(build("vit", drop_path=0.3).layers)[-1].drop_path1.drop_prob == pytest.approx(0.3)
    assert list(build("naflex", drop_path=0.3).layers)[-1].drop_path1.drop_prob == pytest.approx(0.3)


def test_tokens_of_another_grid_are_an_error():
    with pytest.raises(ValueError, match="built for 2 x 5 patches"):
        build("vit")(draw((1, (8, 4), (2, 4)))[1])


# Names and arguments


@pytest.mark.parametrize("name", REFUSED)
def test_models_that_need_the_full_grid_are_refused(name):
    with pytest.raises(ValueError, match=rf"{name} cannot run on a subset of the patches: .* is vit_(small|base)_"):
        build("vit", name=name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "vit_smal_patch16_224"}, "no model 'vit_smal_patch16_224': did you mean vit_small_patch16_224"),
        ({"name": "vit_tiny_patch16_224.nonsense"}, "nonsense"),
        ({"pretrained": True, "weights": "file.pt"}, "both given"),
        ({"weights": "no/such/file.pt"}, "no file"),
        ({"drop_path": 1.0}, "drop_path must be"),
        ({"options": {"img_size": 32}}, "options may not hold img_size"),
        ({"options": {"patch_drop_rate": 0.5}}, "the masker decides"),
        ({"options": {"widht": 32}}, "unexpected keyword argument 'widht'"),
    ],
)
def test_wrong_arguments_are_short_errors(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        build("vit", **arguments)
    assert len(str(error.value)) < 250


@pytest.mark.parametrize(
    ("shape", "grid"), [((3, 2, 16, 16), (4, 4)), ((3, 16, 16), (2, 4, 4)), ((48,), (4, 4)), ((3, 16, 16), None)]
)
def test_tokens_that_are_no_image_patches_are_an_error(shape, grid):
    with pytest.raises(ValueError, match="image patches"):
        TimmEncoder(TokenSpec(shape=shape, grid=grid, positions=SinCosPositions), name="vit_tiny_patch16_224")


# Weights


def source(model, **arguments):
    """A timm model of 3 channels, 16 px patches on a 4 x 4 grid, with random weights and a classifier."""
    name, options = MODELS[model]
    size = {} if "naflex" in name else {"img_size": 64}
    return timm.create_model(name, **{"num_classes": 10, "patch_size": 16, **size, **SMALL, **options, **arguments})


def load(model, image, **arguments):
    name, options = MODELS[model]
    spec = TokenSpec(shape=(image[0], *image[1]), grid=image[2], positions=SinCosPositions)
    return TimmEncoder(spec, name=name, options={**SMALL, **options}, **arguments).eval()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("model", ["vit", "distilled", "eva02", "rope mixed", "dinov3", "naflex", "vit as naflex"])
def test_weights_from_a_file(model, suffix, tmp_path):
    own = source(model).eval()
    path = tmp_path / f"weights{suffix}"
    state = {key: value.contiguous() for key, value in own.state_dict().items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state, "epoch": 3}, path)
    image = (3, (16, 16), (4, 4))
    images, tokens, _ = draw(image)
    norm = own.fc_norm if isinstance(own.norm, nn.Identity) else nn.Identity()
    expected = norm(own.forward_features(images))[:, own.num_prefix_tokens :]
    torch.testing.assert_close(load(model, image, weights=str(path))(tokens), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("model", ["vit", "eva02", "naflex"])
def test_weights_are_resampled_to_the_tokens(model, tmp_path):
    """A grey patch of 6 channels enlarged from 16 px to 32 x 24 is embedded as the patch of 3 channels was."""
    own = source(model)
    torch.save(own.state_dict(), tmp_path / "weights.pt")
    small = load(model, (3, (16, 16), (4, 4)), weights=str(tmp_path / "weights.pt"))
    large = load(model, (6, (32, 24), (3, 5)), weights=str(tmp_path / "weights.pt"))
    patch = torch.randn(1, 1, 16, 16)
    enlarged = nn.functional.interpolate(patch, (32, 24), mode="bicubic", antialias=True)
    expected = small._embed(patch.expand(1, 3, 16, 16).unsqueeze(1))
    torch.testing.assert_close(large._embed(enlarged.expand(1, 6, 32, 24).unsqueeze(1)), expected, rtol=0, atol=1e-4)
    if model == "vit":
        torch.testing.assert_close(large.model.pos_embed, resample_abs_pos_embed(own.pos_embed, new_size=[3, 5]))


def test_weights_saved_from_an_encoder_are_taken_as_they_are(tmp_path):
    image = (3, (16, 16), (7, 28))  # as many patches as 224 px images have
    encoder = load("vit", image)
    torch.save(encoder.state_dict(), tmp_path / "weights.pt")
    again = load("vit", image, weights=str(tmp_path / "weights.pt"))
    assert torch.equal(again.model.pos_embed, encoder.model.pos_embed)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"depth": 1}, "12 missing .blocks.1"), ({"depth": 3}, "12 unexpected .blocks.2"), ({"embed_dim": 32}, "shape")],
)
def test_weights_that_do_not_fit_are_an_error(change, message, tmp_path):
    torch.save(source("vit", **change).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=message):
        load("vit", (3, (16, 16), (4, 4)), weights=str(tmp_path / "weights.pt"))


def test_a_file_of_no_weights_is_an_error(tmp_path):
    (tmp_path / "weights.pt").write_text("nothing")
    torch.save({"state_dict": source("vit").state_dict(), "code": nn.Linear}, tmp_path / "code.pt")
    for name in ("weights.pt", "code.pt"):
        with pytest.raises(ValueError, match="could not be read"):
            load("vit", (3, (16, 16), (4, 4)), weights=str(tmp_path / name))


@pytest.mark.parametrize("model", ["vit", "eva02", "naflex", "vit as naflex"])
def test_pretrained_weights_are_resampled(model, monkeypatch):
    size = {} if model == "naflex" else {"img_size": 224}
    state = source(model, num_classes=0, **size).state_dict()
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *a, **k: dict(state))
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_url", lambda *a, **k: dict(state))
    encoder = load(model, (1, (8, 8), (3, 5)), pretrained=True)
    assert torch.equal(encoder.model.blocks[1].mlp.fc2.weight, state["blocks.1.mlp.fc2.weight"])
    assert encoder(draw((1, (8, 8), (3, 5)))[1]).shape == (2, 15, 48)


def test_pretrained_without_network_says_what_to_do(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no route to host. And a long tail")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", fail)
    with pytest.raises(ValueError, match=r"could not be loaded \(OSError: no route to host\).*`weights: FILE`"):
        load("vit", (3, (16, 16), (4, 4)), pretrained=True)
