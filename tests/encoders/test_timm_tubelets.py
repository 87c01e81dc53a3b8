"""Image trunks of timm on tubelets: inflated, and otherwise what they were."""

import copy
import math

import pytest
import timm
import torch
from torch import nn

from jepa_lightning.encoders import SinCosPositions, TimmEncoder, TokenSpec
from jepa_lightning.encoders.positions import grid_positions, sincos
from jepa_lightning.optimization import decays
from jepa_lightning.tokens import Tokens

SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 2}
MODELS = {
    "vit": ("vit_tiny_patch16_224", {}),
    "gap": ("vit_little_patch16_reg4_gap_256", {}),
    "eva02": ("eva02_tiny_patch14_224", {}),
    "rope mixed": ("vit_small_patch16_rope_mixed_ape_224", {}),
    "dinov3": ("vit_small_patch16_dinov3", {}),
    "naflex": ("naflexvit_base_patch16_gap", {}),
    "naflex rope mixed": ("naflexvit_base_patch16_gap", {"rope_type": "mixed"}),
}
CHANNELS, PATCH, GRID = 2, (8, 4), (2, 5)
every_model = pytest.mark.parametrize("model", MODELS)
TUBELETS = [(2, 3), (1, 3), (2, 1)]  # frames in a tubelet, tubelets in time
every_tubelet = pytest.mark.parametrize(("depth", "times"), TUBELETS)


def make(model, depth=None, times=None, *, channels=CHANNELS, patch=PATCH, grid=GRID, **arguments):
    """An encoder of tubelets, or of patches without `depth`."""
    name, options = MODELS[model]
    shape = (channels, *patch) if depth is None else (channels, depth, *patch)
    spec = TokenSpec(shape=shape, grid=grid if times is None else (times, *grid), positions=SinCosPositions)
    return TimmEncoder(spec, name=name, options={**SMALL, **options}, **arguments).eval()


def disturb(encoder):
    """Moves all parameters away from zero and one, so that none of them is without effect."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return encoder


def patches(batch=2, **sizes):
    """Tokens of an image."""
    generator = torch.Generator().manual_seed(1)
    channels, patch, grid = (sizes.get(k, v) for k, v in (("channels", CHANNELS), ("patch", PATCH), ("grid", GRID)))
    values = torch.randn(batch, math.prod(grid), channels, *patch, generator=generator)
    return Tokens(values=values, positions=grid_positions(grid), grid=grid)


def still(tokens, depth, times):
    """Tubelets of the clip that repeats the image."""
    values = tokens.values.unsqueeze(3).repeat(1, times, 1, depth, 1, 1)
    grid = (times, *tokens.grid)
    return Tokens(values=values, positions=grid_positions(grid), grid=grid)


def clip(depth, times, batch=2):
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(batch, times * math.prod(GRID), CHANNELS, depth, *PATCH, generator=generator)
    return Tokens(values=values, positions=grid_positions((times, *GRID)), grid=(times, *GRID))


def draw_keep(count, kept, batch=2):
    return torch.rand(batch, count, generator=torch.Generator().manual_seed(3)).argsort(dim=1)[:, :kept]


def weights(encoder, tmp_path, name="weights.pt"):
    torch.save(encoder.state_dict(), tmp_path / name)
    return str(tmp_path / name)


@every_model
def test_one_frame_at_one_time_is_the_image_encoder(model):
    torch.manual_seed(0)
    image = make(model)
    torch.manual_seed(0)
    video = make(model, 1, 1)
    assert list(video.state_dict()) == list(image.state_dict())
    assert all(torch.equal(value, image.state_dict()[key]) for key, value in video.state_dict().items())
    disturb(image), disturb(video)
    tokens, keep = patches(), draw_keep(10, 4)
    assert torch.equal(video(still(tokens, 1, 1)), image(tokens))
    assert torch.equal(video(still(tokens, 1, 1), keep), image(tokens, keep))


@every_model
@every_tubelet
def test_a_still_tubelet_is_embedded_as_its_frame(model, depth, times, tmp_path):
    image = disturb(make(model))
    video = make(model, depth, times, weights=weights(image, tmp_path))
    tokens = patches()
    expected = image._embed(tokens.values).repeat(1, times, 1)
    torch.testing.assert_close(video._embed(still(tokens, depth, times).values), expected, rtol=0, atol=1e-5)


@every_model
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_still_clip_is_encoded_as_its_frame(model, depth, tmp_path):
    """With one tubelet in time everything is the same; so it is among several if a sample keeps those of one time."""
    image = disturb(make(model))
    path = weights(image, tmp_path)
    tokens = patches()
    expected = image(tokens)
    torch.testing.assert_close(
        make(model, depth, 1, weights=path)(still(tokens, depth, 1)), expected, rtol=0, atol=1e-4
    )
    video = make(model, depth, 3, weights=path)
    nn.init.zeros_(video.model.time_embed)
    for time in range(3):
        keep = torch.arange(10).expand(2, 10) + 10 * time
        torch.testing.assert_close(video(still(tokens, depth, 3), keep), expected, rtol=0, atol=1e-4)
    whole = video(still(tokens, depth, 3)).unflatten(1, (3, 10))
    torch.testing.assert_close(whole, whole[:, :1].expand_as(whole), rtol=0, atol=1e-4)


@every_model
def test_each_frame_of_a_tubelet_has_a_weight_of_its_own(model):
    video = disturb(make(model, 2, 3))
    tokens = clip(2, 3)
    turned = Tokens(values=tokens.values.flip(3), positions=tokens.positions, grid=tokens.grid)
    assert (video._embed(turned.values) - video._embed(tokens.values)).abs().max() > 1e-2


@every_model
def test_the_time_of_a_tubelet_matters(model):
    video = disturb(make(model, 2, 3))
    same = still(patches(), 2, 3)
    found = video(same).unflatten(1, (3, 10))
    assert (found[:, 0] - found[:, 1]).abs().mean() > 1e-3
    assert (found[:, 1] - found[:, 2]).abs().mean() > 1e-3


@every_model
@every_tubelet
def test_keeping_all_in_another_order_turns_the_output(model, depth, times):
    """Positions, times and angles are picked with the tokens."""
    video, tokens = disturb(make(model, depth, times)), clip(depth, times)
    keep = draw_keep(tokens.count, tokens.count)
    expected = video(tokens).gather(1, keep.unsqueeze(2).expand(-1, -1, 48))
    torch.testing.assert_close(video(tokens, keep), expected, rtol=0, atol=1e-4)


@every_model
@every_tubelet
def test_hidden_pixels_change_nothing(model, depth, times):
    video, tokens = disturb(make(model, depth, times)), clip(depth, times)
    keep = draw_keep(tokens.count, 6)
    before = video(tokens, keep)
    assert before.isfinite().all()
    hidden = torch.ones(2, tokens.count, dtype=torch.bool).scatter(1, keep, False)
    tokens.values[hidden] = torch.nan
    assert torch.equal(video(tokens, keep), before)


@every_model
def test_padding_is_never_attended_to(model):
    video, tokens = disturb(make(model, 2, 3)), clip(2, 3)
    keep = draw_keep(30, 9)
    valid = torch.arange(9).expand(2, 9) < 6
    expected = video(tokens, keep[:, :6])
    torch.testing.assert_close(video(tokens, keep, valid)[:, :6], expected, rtol=0, atol=1e-4)


@every_model
def test_every_parameter_gets_a_gradient(model):
    video, tokens = disturb(make(model, 2, 3)).train(), clip(2, 3)
    video(tokens, torch.stack([torch.arange(0, 30, 3)] * 2)).square().mul(torch.rand(48)).sum().backward()
    assert [name for name, p in video.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_table_of_time_begins_small_and_is_not_decayed():
    video = make("vit", 2, 8)
    table = video.model.time_embed
    assert table.shape == (1, 8, 1, 48)
    assert float(table.detach().square().mean().sqrt()) == pytest.approx(0.02)
    torch.testing.assert_close(table[0, :, 0], 0.02 * math.sqrt(2) * sincos(grid_positions((8,)), 48)[0])
    assert table.requires_grad
    assert not [name for name in decays(video) if "time" in name]
    assert "model.patch_embed.proj.weight" in decays(video)
    assert not hasattr(make("vit", 2, 1).model, "time_embed")


# Weights


@every_model
@every_tubelet
def test_weights_saved_from_an_encoder_of_tubelets_load_back(model, depth, times, tmp_path):
    video, tokens = disturb(make(model, depth, times)), clip(depth, times)
    again = make(model, depth, times, weights=weights(video, tmp_path))
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in video.state_dict().items())
    assert torch.equal(again(tokens), video(tokens))


@pytest.mark.parametrize("model", ["vit", "eva02", "dinov3", "naflex"])
def test_weights_of_an_image_model_are_inflated(model, tmp_path):
    name, options = MODELS[model]
    size = {} if "naflex" in name else {"img_size": 64}
    own = timm.create_model(name, patch_size=16, num_classes=10, **size, **SMALL, **options).eval()
    torch.save(own.state_dict(), tmp_path / "weights.pt")
    sizes = {"channels": 3, "patch": (16, 16), "grid": (4, 4)}
    video = make(model, 2, 1, **sizes, weights=str(tmp_path / "weights.pt"))
    tokens = patches(**sizes)
    images = tokens.values.view(2, 4, 4, 3, 16, 16).permute(0, 3, 1, 4, 2, 5).reshape(2, 3, 64, 64)
    norm = own.fc_norm if isinstance(own.norm, nn.Identity) else nn.Identity()
    expected = norm(own.forward_features(images))[:, own.num_prefix_tokens :]
    torch.testing.assert_close(video(still(tokens, 2, 1)), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("model", ["vit", "eva02", "naflex"])
def test_pretrained_weights_are_resampled_and_inflated(model, monkeypatch):
    name, options = MODELS[model]
    size = {} if "naflex" in name else {"img_size": 224}
    state = timm.create_model(name, patch_size=16, num_classes=0, **size, **SMALL, **options).state_dict()
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *a, **k: dict(state))
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_url", lambda *a, **k: dict(state))
    video, image = make(model, 2, 3, pretrained=True), make(model, pretrained=True)
    assert torch.equal(video.model.blocks[1].mlp.fc2.weight, state["blocks.1.mlp.fc2.weight"])
    tokens = patches()
    expected = image._embed(tokens.values).repeat(1, 3, 1)
    torch.testing.assert_close(video._embed(still(tokens, 2, 3).values), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("saved", "asked", "message"),
    [
        ((2, 3), (2, 4), "of another shape .time_embed"),
        ((2, 3), (3, 3), "of another shape .patch_embed.proj.weight"),
        ((2, 3), (2, 1), "unexpected .time_embed"),
        ((2, 3), (None, None), "unexpected .time_embed"),
        ((2, 1), (2, 3), "missing .time_embed"),
    ],
)
def test_tubelets_of_other_sizes_do_not_fit(saved, asked, message, tmp_path):
    path = weights(make("vit", *saved), tmp_path)
    with pytest.raises(ValueError, match=message):
        make("vit", *asked, weights=path)


def test_a_deep_copy_is_the_same_and_independent():
    video, tokens = disturb(make("vit", 2, 3)), clip(2, 3)
    before, twin = video(tokens), copy.deepcopy(video)
    assert torch.equal(twin(tokens), before)
    nn.init.zeros_(twin.model.time_embed)
    assert torch.equal(video(tokens), before)


def test_mixed_precision():
    video, tokens = disturb(make("dinov3", 2, 3)), clip(2, 3)
    keep = draw_keep(30, 8)
    expected = video(tokens, keep)
    with torch.autocast("cpu", torch.bfloat16):
        assert (video(tokens, keep) - expected).abs().mean() < 0.05
    low = video.bfloat16()(tokens, keep)
    assert low.dtype == torch.bfloat16
    assert (low - expected).abs().mean() < 0.05


def test_tokens_of_another_clip_are_an_error():
    with pytest.raises(ValueError, match="built for 3 x 2 x 5 patches"):
        make("vit", 2, 3)(clip(2, 4))
