"""A timm ConvNet on a masked image: a sparse convolution, which nothing hidden reaches."""

import copy
from functools import partial

import pytest
import timm
import torch
from torch import nn

from jepa_lightning.encoders import SinCosPositions, TimmConvNet, TokenSpec
from jepa_lightning.scale.parallel import prepare_layers
from jepa_lightning.tokens import Tokens, take
from modalities.image import Image
from modalities.video import Video

SMALL = {"name": "resnet18", "stem_stride": 1, "options": {"layers": [1, 1], "channels": [4, 6]}}
NETS = {
    "resnet": (SMALL, 8, 2),
    "resnet50d": ({"name": "resnet50d", "stages": 2, "options": {"layers": [1, 1, 1, 1]}}, 32, 8),
    "convnext": (
        {"name": "convnext_atto", "stages": 2, "options": {"dims": (4, 6, 1, 1), "depths": (1, 1, 1, 1)}},
        32,
        8,
    ),
    "convnextv2": (
        {"name": "convnextv2_atto", "stages": 2, "options": {"dims": (4, 6, 1, 1), "depths": (1, 1, 1, 1)}},
        32,
        8,
    ),
}
KEEP = torch.tensor([[0, 1, 5, 6, 10], [3, 7, 8, 12, 15]])


def image(settings=SMALL, size=8, patch=2, channels=3):
    torch.manual_seed(0)
    made = Image(image_size=size, patch_size=patch, channels=channels, encoder=partial(TimmConvNet, **settings))
    with torch.no_grad():  # norms that begin as zeros would hide what comes before them
        for name, parameter in made.encoder.named_parameters():
            if "bn" in name or "downsample.1" in name or "grn" in name:
                parameter.uniform_(0.5, 1.5)
    return made


def pixels(size=8, batch=2, seed=0):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def hidden_cells(size, patch, keep=KEEP):
    seen = torch.zeros(len(keep), (size // patch) ** 2, dtype=torch.bool).scatter(1, keep, True)
    rows = seen.view(len(keep), size // patch, size // patch)
    return ~rows.repeat_interleave(patch, 1).repeat_interleave(patch, 2).unsqueeze(1)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("training", [False, True])
def test_hidden_pixels_change_no_visible_feature(net, training):
    settings, size, patch = NETS[net]
    made = image(settings, size, patch)
    encoder = made.encoder.train(training)
    x, hidden = pixels(size), hidden_cells(size, patch)
    others = torch.where(hidden, pixels(size, seed=1) * 1e6, x)
    others[hidden.expand_as(x)] = torch.where(others[hidden.expand_as(x)] > 0, torch.inf, torch.nan)
    found = [copy.deepcopy(encoder)(made.tokenizer({"image": one}), KEEP) for one in (x, others)]
    assert found[0].shape == (2, 5, encoder.dim)
    assert found[0].std() > 0.01
    assert torch.equal(*found)
    x.requires_grad_()
    encoder(made.tokenizer({"image": x}), KEEP).square().sum().backward()
    assert not x.grad[hidden.expand_as(x)].any()
    assert x.grad[~hidden.expand_as(x)].any()


def sparse_conv(x, visible, layer):
    """A convolution in plain loops: a visible place sums over its visible neighbours; the others have no value."""
    (kernel, _), (stride, _), (padding, _) = layer.kernel_size, layer.stride, layer.padding
    size = (x.shape[-1] + 2 * padding - kernel) // stride + 1
    out = x.new_zeros(len(x), layer.out_channels, size, size)
    seen = visible.view(len(x), size, x.shape[-1] // size, size, -1).any(4).any(2)
    for b, i, j in seen.nonzero().tolist():
        for di in range(kernel):
            for dj in range(kernel):
                row, column = i * stride + di - padding, j * stride + dj - padding
                if 0 <= row < x.shape[2] and 0 <= column < x.shape[3] and visible[b, row, column]:
                    out[b, :, i, j] += layer.weight[:, :, di, dj] @ x[b, :, row, column]
    return out, seen


def sparse_norm(x, visible, layer, training):
    """A batch norm of the visible places as a table of rows."""
    rows = x.permute(0, 2, 3, 1)
    out = torch.zeros_like(rows)
    given = rows[visible]
    if not training:
        mean, variance = layer.running_mean, layer.running_var
    else:
        mean, variance = given.mean(0), given.var(0, unbiased=False)
    out[visible] = (given - mean) / (variance + layer.eps).sqrt() * layer.weight + layer.bias
    return out.permute(0, 3, 1, 2)


@pytest.mark.parametrize("training", [False, True])
def test_a_resnet_is_its_sparse_convolution_in_plain_loops(training):
    made = image()
    encoder = made.encoder.double().train(training)
    net = dict(encoder.named_modules())
    visible = ~hidden_cells(8, 2)[:, 0]
    images = pixels().double()
    x, seen = sparse_conv(images * visible.unsqueeze(1), visible, net["layers.0.net.0"])
    x = sparse_norm(x, seen, net["layers.0.net.1"], training).relu()
    for stage in (1, 2):
        block = net[f"layers.{stage}.net.0"]
        y, after = sparse_conv(x, seen, block.conv1)
        y = sparse_norm(y, after, block.bn1, training).relu()
        y, _ = sparse_conv(y, after, block.conv2)
        y = sparse_norm(y, after, block.bn2, training)
        short, _ = sparse_conv(x, seen, block.downsample[0])
        x, seen = (y + sparse_norm(short, after, block.downsample[1], training)).relu(), after
    expected = torch.stack([x.flatten(2)[b][:, KEEP[b]].T for b in range(2)])
    torch.testing.assert_close(encoder(made.tokenizer({"image": images}), KEEP), expected)


def test_running_statistics_follow_the_visible_places():
    made = image()
    norm = made.encoder.layers[0].net[1]
    seen = []
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    made.encoder(made.tokenizer({"image": pixels()}), KEEP)
    rows = seen[0].permute(0, 2, 3, 1)[~hidden_cells(8, 2)[:, 0]]
    torch.testing.assert_close(norm.running_mean, 0.1 * rows.mean(0))
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * rows.var(0))
    assert norm.num_batches_tracked == 1


@pytest.mark.parametrize("name", ["resnet26d", "convnext_atto"])
def test_a_whole_image_gives_timms_own_features(name):
    made = image({"name": name}, 64, 32)
    encoder = made.encoder.double().eval()
    other = timm.create_model(name, features_only=True, out_indices=(-1,)).double().eval()
    other.load_state_dict(dict(zip(other.state_dict(), encoder.state_dict().values(), strict=True)))
    x = pixels(64).double()
    torch.testing.assert_close(encoder(made.tokenizer({"image": x})), other(x)[0].flatten(2).transpose(1, 2))


def test_all_tokens_kept_are_the_whole_image():
    made = image()
    tokens = made.tokenizer({"image": pixels()})
    encoder = made.encoder.eval()
    every = torch.arange(16).expand(2, -1).flip(1)
    torch.testing.assert_close(encoder(tokens, every), take(encoder(tokens), every))


def test_filler_and_padding_are_hidden():
    made = image()
    tokens = made.tokenizer({"image": pixels()})
    encoder = made.encoder.eval()
    valid = torch.tensor([[True] * 5, [True, True, True, False, False]])
    found = encoder(tokens, KEEP, valid)
    torch.testing.assert_close(found[0], encoder(tokens, KEEP)[0])
    torch.testing.assert_close(found[1, :3], encoder(tokens, KEEP[:, :3])[1])
    real = torch.ones(2, 16, dtype=torch.bool)
    real[1, 12:] = False
    padded = Tokens(values=tokens.values, positions=tokens.positions, grid=tokens.grid, valid=real)
    torch.testing.assert_close(encoder(padded)[1, :12], encoder(tokens, torch.arange(12).expand(2, -1))[1])


def clips(tubelet=3, channels=2):
    torch.manual_seed(0)
    return Video(
        frames=6, image_size=8, tubelet=tubelet, patch_size=2, channels=channels, encoder=partial(TimmConvNet, **SMALL)
    )


@pytest.mark.parametrize("tubelet", [3, 6])
def test_a_clip_is_the_images_of_its_tubelets(tubelet):
    """Each of which has the frames of a tubelet as channels: frame 1's colours, frame 2's, ..."""
    made, still = clips(tubelet), image(channels=2 * tubelet)
    still.encoder.load_state_dict(made.encoder.state_dict())
    clip = torch.randn(2, 2, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    found = made.encoder.eval()(made.tokenizer({"video": clip}))
    expected = []
    for start in range(0, 6, tubelet):
        frames = torch.cat([clip[:, :, time] for time in range(start, start + tubelet)], dim=1)
        expected.append(still.encoder.eval()(still.tokenizer({"image": frames})))
    assert found.shape == (2, 16 * 6 // tubelet, 6)
    assert found.std() > 0.01
    torch.testing.assert_close(found, torch.cat(expected, dim=1))


def test_hidden_tubelets_change_no_visible_feature():
    made = clips()
    encoder = made.encoder.train()
    keep = torch.tensor([[0, 1, 17, 30], [15, 16, 20, 31]])
    clip = torch.randn(2, 2, 6, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    encoder(made.tokenizer({"video": clip}), keep).square().sum().backward()
    seen = torch.zeros(2, 32, dtype=torch.bool).scatter(1, keep, True).view(2, 1, 2, 4, 4)
    for axis, size in ((2, 3), (3, 2), (4, 2)):
        seen = seen.repeat_interleave(size, axis)
    assert not clip.grad[~seen.expand_as(clip)].any()
    assert clip.grad[seen.expand_as(clip)].all()


def test_patches_of_several_strides_are_averages():
    fine, coarse = image(patch=2), image(patch=4)
    coarse.encoder.load_state_dict(fine.encoder.state_dict())
    parts = fine.encoder.eval()(fine.tokenizer({"image": pixels()})).view(2, 2, 2, 2, 2, 6)
    whole = coarse.encoder.eval()(coarse.tokenizer({"image": pixels()}))
    torch.testing.assert_close(whole, parts.mean((2, 4)).flatten(1, 2))


def test_recomputed_layers_have_the_same_gradient():
    """The mask is an argument of a stage, so the backward pass recomputes with it, long after the forward pass."""
    made = image()
    plain, again = copy.deepcopy(made.encoder), copy.deepcopy(made.encoder)
    prepare_layers(again.layers, checkpoint_activations=True)
    tokens = made.tokenizer({"image": pixels()})
    gradients = []
    for encoder in (plain, again):
        encoder(tokens, KEEP).square().sum().backward()
        gradients.append([p.grad for p in encoder.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def test_settings_that_make_no_sense():
    for settings, message in (
        ({"name": "resnet51x"}, "has no model 'resnet51x': did you mean resnet51q"),
        ({"name": "vit_tiny_patch16_224"}, "is no ResNet or ConvNeXt"),
        ({"name": "seresnet50"}, r"layer .* may mix hidden and visible places: use a ResNet without attention"),
        ({"name": "resnet18"}, r"a stride of 32 pixels, and patches are of \(2, 2\): set patch_size to 32"),
        ({"name": "resnet18", "options": {"depths": 3}}, "timm cannot create resnet18 with these options"),
        ({"name": "resnet18", "stages": 0}, "stages must be at least 1, got 0"),
        ({**SMALL, "stem_stride": 0}, "stem_stride must be at least 1, got 0"),
        ({"name": "convnext_atto", "stem_stride": 1}, "stem_stride is for ResNets"),
    ):
        with pytest.raises(ValueError, match=message):
            image(settings)
    with pytest.raises(ValueError, match="takes image patches"):
        TimmConvNet(TokenSpec(shape=(3,), grid=None, positions=SinCosPositions), name="resnet18")
    made = image()
    tokens = made.tokenizer({"image": pixels()})
    with pytest.raises(ValueError, match=r"of an image or a clip, of shape \(3, 2, 2\)"):
        made.encoder(clips().tokenizer({"video": torch.randn(2, 2, 6, 8, 8)}))
    with pytest.raises(ValueError, match="gives its last layer alone"):
        made.encoder(tokens, layers=(0,))
    with pytest.raises(ValueError, match="give all patches"):
        made.encoder(tokens.take(KEEP))


def test_a_layer_that_looks_everywhere_is_refused():
    from jepa_lightning.encoders.visible import Visible, see_only_visible

    with pytest.raises(ValueError, match=r"the layer 1 \(AdaptiveAvgPool2d\) may mix"):
        see_only_visible(nn.Sequential(nn.Conv2d(1, 1, 3), nn.AdaptiveAvgPool2d(1)), Visible())
