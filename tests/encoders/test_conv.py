"""The convolutional encoder: shapes, tokens by themselves, norms."""

from functools import partial

import pytest
import torch
from torch import nn

from jepa_lightning.encoders import ConvEncoder, SinCosPositions, TokenSpec
from jepa_lightning.tokens import Tokens
from modalities.image import Image
from modalities.video import Video


def encoder(size=16, channels=1, **settings):
    torch.manual_seed(0)
    spec = TokenSpec(shape=(channels, size, size), grid=(2, 2), positions=SinCosPositions)
    return ConvEncoder(spec, **{"dim": 6, "width": 4, **settings})


def tokens(size=16, channels=1, valid=None):
    values = torch.randn(3, 4, channels, size, size, generator=torch.Generator().manual_seed(1))
    return Tokens(values=values, positions=torch.zeros(1, 4, 2), grid=(2, 2), valid=valid)


def test_the_layers_by_hand():
    conv, seen = encoder().eval(), tokens()
    with torch.no_grad():
        for part in conv.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.uniform_(-1, 1), part.running_var.uniform_(0.5, 2), part.bias.uniform_(-1, 1)
    found = conv(seen)
    assert found.shape == (3, 4, 6)
    x = seen.values[1, 2].unsqueeze(0)
    sizes = []
    for number, (layer, norm, _) in enumerate(conv.layers):
        x = nn.functional.conv2d(x, layer.weight, layer.bias, stride=(4, 2)[number > 0], padding=(2, 1)[number > 0])
        mean, var = norm.running_mean[:, None, None], norm.running_var[:, None, None]
        x = (x - mean) / (var + 1e-5).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
        x = x * torch.sigmoid(x)
        sizes.append(tuple(x.shape[1:]))
    assert sizes == [(8, 4, 4)]
    torch.testing.assert_close(found[1, 2], conv.project.weight @ x.flatten() + conv.project.bias)


def test_a_frame_of_64_pixels_is_one_token():
    image = Image(image_size=64, patch_size=64, channels=1, encoder=partial(ConvEncoder, dim=32, width=8))
    batch = {"image": torch.randn(2, 1, 64, 64)}
    assert image.encoder(image.tokenizer(batch)).shape == (2, 1, 32)
    assert len(list(image.encoder.layers)) == 3
    assert image.encoder.project.in_features == 4 * 8 * 16


@pytest.mark.parametrize("tubelet", [2, 4])
def test_a_tubelet_is_an_image_with_its_frames_as_channels(tubelet):
    clips = Video(frames=4, image_size=16, patch_size=16, tubelet=tubelet, encoder=partial(ConvEncoder, dim=6, width=4))
    still = encoder(channels=3 * tubelet).eval()
    still.load_state_dict(clips.encoder.state_dict())
    video = torch.randn(2, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    found = clips.encoder.eval()(clips.tokenizer({"video": video}))
    parts = [video[:, :, start : start + tubelet].reshape(2, 1, -1, 16, 16) for start in range(0, 4, tubelet)]
    images = Tokens(values=torch.cat(parts, dim=1), positions=torch.zeros(1, len(parts), 2))
    assert found.shape == (2, 4 // tubelet, 6)
    assert found.std() > 0.01
    torch.testing.assert_close(found, still(images))


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_kept_tokens_are_what_they_are_without_the_others(norm):
    conv, seen = encoder(norm=norm).eval(), tokens()
    whole = conv(seen)
    keep = torch.tensor([[2, 0], [1, 3], [3, 2]])
    torch.testing.assert_close(conv(seen, keep), torch.stack([whole[b, keep[b]] for b in range(3)]))
    valid = torch.tensor([[True, False], [True, True], [False, True]])
    assert (conv(seen, keep, valid)[~valid] == 0).all()


def test_group_norm_knows_no_batch_and_batch_norm_does():
    seen = tokens()
    one = Tokens(values=seen.values[:1], positions=seen.positions)
    for norm, alike in (("group", True), ("batch", False)):
        conv = encoder(norm=norm).train()
        assert torch.allclose(conv(seen)[:1], conv(one), atol=1e-5) == alike


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="dim and width must be at least 1"):
        encoder(width=0)
    with pytest.raises(ValueError, match="norm must be batch or group, got 'layer'"):
        encoder(norm="layer")
    with pytest.raises(ValueError, match=r"at least 8 pixels a side, got \(1, 4, 4\): set patch_size to image_size"):
        encoder(size=4)
    with pytest.raises(ValueError, match="ConvEncoder gives its last layer alone"):
        encoder()(tokens(), layers=(0,))
