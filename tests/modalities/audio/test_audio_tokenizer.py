"""Spectrogram patches: what they hold, which are valid, and the statistics that normalise them."""

import math
from functools import partial

import pytest
import torch

from jepa_lightning.encoders import ViT
from jepa_lightning.tokens import pool
from modalities.audio import Audio, LogMel, SpectrogramTokenizer


def make(seconds=1.0, *, patch=(16, 8), mels=32, **settings):
    front_end = LogMel(mels=mels, sample_rate=8000)
    return SpectrogramTokenizer(front_end=front_end, samples=round(8000 * seconds), patch_size=patch, **settings)


def noise(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_patches_are_pieces_of_the_normalised_spectrogram():
    tokenizer = make(mean=-3.0, std=2.0)
    waveform = noise(2, 8000)
    tokens = tokenizer({"waveform": waveform})
    log_mel = tokenizer.front_end(waveform)  # 100 frames, of which 96 fill 12 patches
    assert tokens.grid == (2, 12)
    assert tokens.values.shape == (2, 24, 1, 16, 8)
    assert tokens.valid is None
    for n, (row, column) in enumerate((f, t) for f in range(2) for t in range(12)):
        assert tokens.positions[0, n].tolist() == [row, column]
        piece = log_mel[:, row * 16 : row * 16 + 16, column * 8 : column * 8 + 8]
        torch.testing.assert_close(tokens.values[:, n, 0], (piece + 3) / 2)


@pytest.mark.parametrize("patch", [(32, 2), (8, 1), (16, 100)])
def test_patches_of_any_size(patch):
    tokens = make(patch=patch)({"waveform": noise(1, 8000)})
    assert tokens.grid == (32 // patch[0], 100 // patch[1])
    assert tokens.values.shape == (1, math.prod(tokens.grid), 1, *patch)


def test_a_cached_spectrogram_is_the_same_input():
    tokenizer = make(mean=-3.0, std=2.0)
    waveform = noise(3, 8000)
    length = torch.tensor([8000, 3999, 640])
    waveform[torch.arange(8000) >= length[:, None]] = 0
    tokens = tokenizer({"waveform": waveform, "length": length})
    frames = torch.tensor([tokenizer.front_end.frames(n) for n in length.tolist()])
    cached = tokenizer({"log_mel": tokenizer.front_end(waveform), "length": frames})
    assert torch.equal(tokens.values, cached.values)
    assert torch.equal(tokens.valid, cached.valid)


def test_valid_patches_by_brute_force():
    tokenizer = make(patch=(16, 8))
    lengths = [1, 79, 80, 640, 641, 1279, 1280, 1281, 7999, 8000]
    tokens = tokenizer({"waveform": noise(len(lengths), 8000), "length": torch.tensor(lengths)})
    valid = tokens.valid.view(len(lengths), 2, 12)
    for sample, length in zip(valid, lengths, strict=True):
        for row in sample.tolist():
            assert row == [step * 8 * 80 < length for step in range(12)]


def test_an_empty_clip_keeps_a_token():
    tokens = make()({"waveform": torch.zeros(1, 8000), "length": torch.tensor([0])})
    assert tokens.valid.sum() == 2  # the first patch of each row


@pytest.mark.parametrize("kind", ["log_mel", "fbank"])
def test_appended_padding_changes_no_feature(kind):
    """The valid tokens of a clip, what the encoder says of them, and their mean are those of a longer padded clip."""
    settings = {"sample_rate": 8000, "mels": 32, "patch_size": (16, 8), "mean": -4.0, "std": 3.0, "kind": kind}
    found = []
    lengths = torch.tensor([2500, 8000, 1281])
    waveform = noise(3, 8000)
    waveform[torch.arange(8000) >= lengths[:, None]] = 0
    for seconds in (1.0, 1.6, 3.0):
        torch.manual_seed(0)
        audio = Audio(seconds=seconds, encoder=partial(ViT, width=32, depth=2, heads=2), **settings)
        longer = torch.nn.functional.pad(waveform, (0, audio.samples - 8000))
        tokens = audio.tokenizer({"waveform": longer, "length": lengths})
        features = audio.encoder(tokens).detach()
        rows = [
            {
                tuple(place.tolist()): (value, feature)
                for place, value, feature, ok in zip(tokens.positions[0], values, outputs, valid, strict=True)
                if ok
            }
            for values, outputs, valid in zip(tokens.values, features, tokens.valid, strict=True)
        ]
        found.append((rows, pool(features, tokens.valid)))
    (short, mean), *others = found
    assert [len(row) for row in short] == [2 * 4, 2 * 12, 2 * 3]
    for rows, other_mean in others:
        torch.testing.assert_close(other_mean[[0, 2]], mean[[0, 2]], rtol=0, atol=1e-5)
        for sample in (0, 2):  # the second fills its clip, of which the shortest cuts 4 frames
            assert short[sample].keys() == rows[sample].keys()
            for place, (value, feature) in short[sample].items():
                torch.testing.assert_close(rows[sample][place][0], value, rtol=0, atol=1e-5)
                torch.testing.assert_close(rows[sample][place][1], feature, rtol=0, atol=1e-5)


def test_statistics_are_those_of_all_real_frames():
    tokenizer = make()
    assert tokenizer.needs_statistics
    batches = [
        {"waveform": noise(4, 8000, seed=1), "length": torch.tensor([8000, 81, 3000, 160])},
        {"waveform": 0.3 * noise(2, 8000, seed=2)},
        {"log_mel": torch.full((1, 32, 100), 5.0), "length": torch.tensor([7])},
    ]
    real = []
    for batch in batches[:2]:
        lengths = batch.get("length", torch.full((len(batch["waveform"]),), 8000)).tolist()
        for clip, length in zip(batch["waveform"], lengths, strict=True):
            real.append(tokenizer.front_end(clip[None])[0, :, : math.ceil(length / 80)].flatten())
    values = torch.cat([*real, torch.full((32 * 7,), 5.0)]).double()
    tokenizer.estimate(iter(batches))
    assert not tokenizer.needs_statistics
    assert float(tokenizer.mean) == pytest.approx(float(values.mean()), rel=1e-6)
    assert float(tokenizer.std) == pytest.approx(float(values.std(correction=0)), rel=1e-6)


def test_estimated_values_are_normalised():
    tokenizer = make(patch=(16, 10))
    batch = {"waveform": noise(4, 8000)}
    tokenizer.estimate([batch])
    values = tokenizer(batch).values
    assert float(values.mean()) == pytest.approx(0, abs=1e-4)
    assert float(values.std()) == pytest.approx(1, abs=1e-3)


def test_statistics_are_kept_in_the_checkpoint():
    tokenizer = make()
    tokenizer.estimate([{"waveform": noise(2, 8000)}])
    loaded = make()
    loaded.load_state_dict(tokenizer.state_dict())
    assert not loaded.needs_statistics
    assert torch.equal(loaded.mean, tokenizer.mean)
    assert torch.equal(loaded.std, tokenizer.std)
    assert sorted(tokenizer.state_dict()) == ["estimated", "mean", "std"]


def test_given_statistics_need_no_estimate():
    tokenizer = make(mean=-1.5, std=0.5)
    assert not tokenizer.needs_statistics
    assert (float(tokenizer.mean), float(tokenizer.std)) == (-1.5, 0.5)


@pytest.mark.parametrize("batches", [[], [{"waveform": torch.zeros(2, 8000)}]])
def test_statistics_of_nothing(batches):
    tokenizer = make()
    with pytest.raises(ValueError, match=r"give\s+mean and std"):
        tokenizer.estimate(batches)
    assert tokenizer.needs_statistics


def test_half_precision_in_gives_half_precision_out():
    exact = make(mean=-3.125, std=2.2)
    waveform = noise(2, 8000).bfloat16()
    expected = exact({"waveform": waveform.float()}).values
    half = make(mean=-3.125, std=2.2).to(torch.bfloat16)
    values = half({"waveform": waveform}).values
    assert values.dtype == torch.bfloat16
    assert torch.equal(values, expected.bfloat16())  # all but the last rounding is in float32


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"image": torch.zeros(1)}, r"needs the key 'waveform' or 'log_mel', this one has \['image'\]"),
        ({"waveform": torch.zeros(2, 7999)}, r"expected waveforms of \(samples,\) \(8000,\), got \(7999,\)"),
        ({"log_mel": torch.zeros(2, 32, 99)}, r"expected log_mel of \(bands, frames\) \(32, 100\), got \(32, 99\)"),
    ],
)
def test_batches_that_do_not_fit(batch, message):
    with pytest.raises(ValueError, match=message):
        make()(batch)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch": (15, 8)}, "mel bands 32 is not a whole number of patches of 15: use mels 30"),
        ({"patch": (16, 101)}, "frames 100 is smaller than a patch of 101"),
        ({"patch": (16, 0)}, "smaller than a patch of 0"),
        ({"mean": 1.0}, "both mean and std, or neither"),
        ({"mean": 1.0, "std": 0.0}, "std must be positive"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_whole_numbers_are_refused_as_not_scaled():
    modality = Audio(sample_rate=8000, seconds=0.2, mels=8, patch_size=(8, 2))
    with pytest.raises(ValueError, match=r"floats from -1 to 1, got torch\.int16"):
        modality.tokenizer({"waveform": torch.zeros(1, 1600, dtype=torch.int16)})
