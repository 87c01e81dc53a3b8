"""Changes of colour of a batch: those of torchvision of one image, with each image's own numbers and order."""

import pytest
import torch
from torchvision.transforms.v2 import functional as one

from jepa_lightning.data import colours

B = 6


@pytest.fixture
def pixels():
    return torch.rand(B, 3, 12, 10, generator=torch.Generator().manual_seed(0)) * 255


FACTORS = torch.tensor([0.6, 0.8, 1.0, 1.1, 1.3, 1.4])
TURNS = torch.tensor([-0.5, -0.1, 0.0, 0.05, 0.1, 0.5])
KINDS = [
    (colours.brighten, one.adjust_brightness, FACTORS),
    (colours.contrast, one.adjust_contrast, FACTORS),
    (colours.saturate, one.adjust_saturation, FACTORS),
    (colours.turn_hue, one.adjust_hue, TURNS),
]


@pytest.mark.parametrize("number", range(4))
def test_each_change_is_torchvisions(pixels, number):
    ours, theirs, values = KINDS[number]
    pixels[0, :, :2] = 128.0  # grey has no hue
    expected = torch.stack([theirs(x / 255, float(value)) * 255 for x, value in zip(pixels, values, strict=True)])
    torch.testing.assert_close(ours(pixels, values), expected, atol=0.05, rtol=0)


def test_jitter_changes_the_chosen_in_their_own_order(pixels):
    factors = torch.stack([FACTORS, FACTORS.flip(0), FACTORS.roll(2), TURNS], dim=1)
    order = torch.stack([torch.randperm(4, generator=torch.Generator().manual_seed(b)) for b in range(B)])
    chosen = torch.tensor([True, False, True, True, True, False])
    assert len({tuple(o) for o in order[chosen].tolist()}) > 2
    found = colours.jitter(pixels, factors, order, chosen)
    for b in range(B):
        x = pixels[b] / 255
        for kind in order[b].tolist() if chosen[b] else ():
            x = KINDS[kind][1](x, float(factors[b, kind]))
        torch.testing.assert_close(found[b], x * 255, atol=0.1, rtol=0)


def test_grey_images_have_no_colours_to_change(pixels):
    grey = pixels[:, :1]
    factors = torch.stack([FACTORS, FACTORS, FACTORS, TURNS], dim=1)
    order = torch.tensor([[2, 0, 3, 1]]).expand(B, 4)
    found = colours.jitter(grey, factors, order, torch.ones(B, dtype=torch.bool))
    expected = torch.stack(
        [one.adjust_contrast(one.adjust_brightness(x / 255, f), f) for x, f in zip(grey, FACTORS.tolist(), strict=True)]
    )
    torch.testing.assert_close(found, expected * 255, atol=0.05, rtol=0)


@pytest.mark.parametrize("side", [3, 5])
def test_blur_is_torchvisions(pixels, side):
    sigma = torch.tensor([0.1, 0.5, 1.0, 1.5, 1.9, 2.0])
    expected = torch.stack(
        [one.gaussian_blur(x, [side, side], [s, s]) for x, s in zip(pixels, sigma.tolist(), strict=True)]
    )
    torch.testing.assert_close(colours.blur(pixels, sigma, side=side), expected, atol=1e-3, rtol=0)
    assert colours.blur(pixels[..., :1], sigma, side=side).shape[-1] == 1  # too narrow: as it is


def test_grey_and_solarise_are_torchvisions(pixels):
    torch.testing.assert_close(colours.to_grey(pixels), one.rgb_to_grayscale(pixels))
    whole = pixels.round()
    torch.testing.assert_close(colours.solarise(whole), one.solarize(whole.byte(), 128).float())


def test_where_is_the_same_on_every_device(pixels):
    """On a CPU only the chosen images are computed; the other branch is checked on the meta device's shapes."""
    chosen = torch.tensor([True, False, True, False, False, True])
    found = colours.where(chosen, colours.brighten, pixels, FACTORS)
    assert torch.equal(found[~chosen], pixels[~chosen])
    assert torch.equal(found[chosen], colours.brighten(pixels[chosen], FACTORS[chosen]))
    none = torch.zeros(B, dtype=torch.bool)
    assert torch.equal(colours.where(none, colours.brighten, pixels, FACTORS), pixels)
    far = colours.where(chosen.to("meta"), colours.brighten, pixels.to("meta"), FACTORS.to("meta"))
    assert far.shape == pixels.shape


@pytest.mark.parametrize("channels", [1, 3])
def test_without_picking_images_it_is_the_same(channels):
    """What runs on a GPU, beside what runs on a CPU."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(64, channels, 6, 5, generator=generator) * 255
    order = torch.rand(64, 4, generator=generator).argsort(1)
    factors = torch.rand(64, 4, generator=generator) * 2 * torch.tensor([1, 1, 1, 0.25])
    chosen = torch.rand(64, generator=generator) < 0.7
    expected = colours.jitter(pixels, factors, order, chosen)
    assert not torch.equal(expected, pixels)
    torch.testing.assert_close(colours.jitter_all(pixels, factors, order, chosen), expected, rtol=0, atol=1e-4)
