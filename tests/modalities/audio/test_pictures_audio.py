"""Pictures of spectrograms."""

from functools import partial

import torch

from jepa_lightning.encoders import ViT
from jepa_lightning.maskers import MultiMasker, TimeSpans
from jepa_lightning.pictures.drawing import GAP, HIDDEN
from jepa_lightning.tokens import Masks
from modalities.audio import Audio
from modalities.audio.pictures import coloured

GREY = round(HIDDEN * 255)


def make(**settings):
    return Audio(seconds=1.28, patch_size=16, encoder=partial(ViT, width=32, depth=1, heads=2), **settings)


def rising(samples):
    """Ever more noise towards the end, and one low tone."""
    time = torch.arange(samples) / 16000
    return (torch.sin(2 * torch.pi * 200 * time) * time)[None]


def parts(picture, count):
    height = (picture.shape[1] - (count - 1) * GAP) // count
    return [picture[:, i * (height + GAP) : i * (height + GAP) + height] for i in range(count)]


def test_colours_tell_loud_from_silent():
    rgb = coloured(torch.linspace(-3, 2, 50).view(1, 1, 50))
    assert rgb.shape == (1, 3, 1, 50)
    assert rgb.min() >= 0
    assert rgb.max() <= 1
    brightness = rgb[0, :, 0].mean(0)
    assert (brightness.diff() > 0).all()
    assert torch.isfinite(coloured(torch.zeros(1, 4, 4))).all()


def test_padding_does_not_take_part_in_the_colours():
    spectrogram = torch.rand(1, 8, 20, generator=torch.Generator().manual_seed(0))
    padded = torch.cat([spectrogram, torch.full((1, 8, 5), -40.0)], dim=2)
    assert torch.equal(coloured(padded, torch.tensor([20]))[..., :20], coloured(spectrogram))


def test_low_frequencies_are_at_the_bottom():
    audio = make()
    batch = {"waveform": rising(audio.samples)}
    masks = Masks(context=torch.arange(64)[None], targets=torch.zeros(1, 1, 1, dtype=torch.int64))
    (picture,) = audio.draw_masks(batch, [masks])
    whole = parts(picture, 3)[0].float().mean(0)
    assert whole.shape == (128, 128)
    loudest = int(whole.mean(1).argmax())
    band = int(audio.tokenizer.spectrogram(batch)[0].mean(1).argmax())
    assert loudest == 127 - band
    assert loudest > 100


def test_masks_are_drawn_where_they_are():
    audio = make()
    batch = {"waveform": rising(audio.samples)}
    # The lowest band's first patch is seen, the highest band's last is a target.
    masks = Masks(context=torch.tensor([[0]]), targets=torch.tensor([[[63]]]))
    (picture,) = audio.draw_masks(batch, [masks])
    assert picture.dtype == torch.uint8
    whole, context, target = parts(picture, 3)
    assert torch.equal(context[:, -16:, :16], whole[:, -16:, :16])
    assert (context[:, :-16] == GREY).all()
    assert (context[:, :, 16:] == GREY).all()
    assert torch.equal(target[:, :16, -16:], whole[:, :16, -16:])
    assert (target[:, 16:] == GREY).all()


def test_every_draw_has_its_panels_and_padding_is_striped():
    audio = make(masker=MultiMasker([TimeSpans(spans=1), TimeSpans(spans=2)]))
    batch = {"waveform": rising(audio.samples).repeat(2, 1), "length": torch.tensor([audio.samples, 10_000])}
    masks = audio.masker(audio.tokenizer(batch), torch.Generator().manual_seed(0))
    full, short = audio.draw_masks(batch, masks)
    for panel, other in zip(parts(short, 5), parts(full, 5), strict=True):
        striped = panel[:, :, 63:]  # 10000 samples are 62.5 hops
        assert set(striped.unique().tolist()) == {191, 255}
        assert striped.float().mean() > 200
        assert not torch.equal(panel[:, :, 59:62], striped[:, :, :3])
        assert set(other[:, :, 63:].unique().tolist()) != {191, 255}


def test_features_are_painted_under_the_spectrogram():
    audio = make()
    batch = {"waveform": rising(audio.samples).repeat(2, 1)}
    colours = torch.rand(2, 64, 3, generator=torch.Generator().manual_seed(0))
    pictures = audio.draw_features(batch, audio.tokenizer(batch), colours)
    assert len(pictures) == 2
    for picture, colour in zip(pictures, colours, strict=True):
        _, painted = parts(picture, 2)
        for n in range(64):
            row, column = 7 - n // 8, n % 8
            patch = painted[:, row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
            assert (patch == (colour[n] * 255).round().to(torch.uint8)[:, None, None]).all()


def test_samples_are_the_spectrograms_with_striped_padding():
    audio = make()
    batch = {"waveform": rising(audio.samples), "length": torch.tensor([audio.samples // 2])}
    (alone,) = audio.draw_samples(batch)
    (whole,) = audio.draw_features(batch, audio.tokenizer(batch), torch.rand(1, 64, 3))
    assert torch.equal(alone, parts(whole, 2)[0])
