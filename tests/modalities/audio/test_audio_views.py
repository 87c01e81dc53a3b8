"""Views of sounds."""

from functools import partial

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
from torch.utils.data import Dataset
from view_checks import check_views

from jepa_lightning.data import DataError
from modalities.audio import AudioData, AudioViews, LogMel
from modalities.audio.recordings import as_recording
from modalities.audio.transforms import at_speed, between, filtered

RATE = 8000
OFF = {"gain": 0.0, "time_mask": 0.0, "frequency_mask": 0.0, "speed": 0.0, "filter": 0.0}


def make(**settings):
    few = {"samples": 16, "batch_size": 4, "seconds": 0.5, "sample_rate": RATE, "num_workers": 0}
    return AudioData(**{**few, **settings})


class Ramp(Dataset):
    """Recordings whose sample t is t + 1; every other one is shorter than a clip."""

    def __len__(self):
        return 16

    def __getitem__(self, i):
        return 1e-3 * torch.arange(1, 1 + (6000 if i % 2 == 0 else 3000))


def seen(count=300, sound=None, **settings):
    data = make(dataset=Ramp(), views=2, view_transform=AudioViews(**{**OFF, **settings}))
    data.setup()
    transform = data.training_transform
    raw = data.part("train").dataset[0 if sound is None else sound]
    raw = raw[0] if isinstance(raw, tuple) else raw
    raw = raw["waveform"] if isinstance(raw, dict) else raw
    torch.manual_seed(0)
    views = [transform({"waveform": raw}) for _ in range(count)]
    return torch.stack([view["waveform"] for view in views]), torch.stack([view["length"] for view in views])


def test_views_are_draws_of_one_pipeline():
    assert check_views(partial(make, batched=False))["waveform"].shape == (4, 4000)
    assert isinstance(make(views=2).viewing, AudioViews)


def test_crops_lie_anywhere():
    found, length = seen()
    assert (length == 4000).all()
    assert torch.allclose(found.diff(), torch.tensor(1e-3), atol=1e-5)
    starts = (found[:, 0] * 1e3 - 1).round()
    assert 0 <= starts.min() < 100
    assert 1900 < starts.max() <= 2000
    assert float(starts.mean()) == pytest.approx(1000, abs=120)


def test_gain_is_uniform_in_decibels():
    found, _ = seen(gain=6.0)
    decibels = 20 * torch.log10(found.diff().mean(1) / 1e-3)
    assert -6.01 < decibels.min() < -5.6
    assert 5.6 < decibels.max() < 6.01
    assert float(decibels.mean()) == pytest.approx(0.0, abs=0.6)


@pytest.mark.parametrize("sound", [0, 1])
def test_a_stretch_of_the_real_part_is_silenced(sound):
    found, length = seen(sound=sound, time_mask=0.4)
    real = 4000 if sound == 0 else 3000
    assert (length == real).all()
    silent = found[:, :real] == 0
    edges = silent.int().diff(dim=1).abs().sum(1)
    assert edges.max() <= 2
    shares = silent.float().mean(1)
    assert shares.max() == pytest.approx(0.4, abs=0.02)
    assert float(shares.mean()) == pytest.approx(0.2, abs=0.03)
    if sound == 1:
        assert not found[:, real:].any()


def test_a_band_is_taken_out():
    """Of a sound with a line at every 10 Hz, the lines in a band of the mel scale go and the others stay."""
    time = np.arange(RATE) / RATE
    wave = sum(np.sin(2 * np.pi * f * time) for f in range(10, 4000, 10))

    def mel(hertz):
        return 2595 * np.log10(1 + hertz / 700) / (2595 * np.log10(1 + 4000 / 700))

    found = filtered(torch.from_numpy(wave.astype(np.float32)), without=(0.3, 0.5), rate=RATE).numpy().astype(float)
    for hertz in range(10, 4000, 10):
        line = 2 / RATE * abs(np.sum(found * np.exp(-2j * np.pi * hertz * time)))
        assert line == pytest.approx(0.0 if 0.3 <= mel(hertz) < 0.5 else 1.0, abs=1e-3)


def test_how_wide_the_bands_are():
    transform = AudioViews(**{**OFF, "frequency_mask": 0.3})
    torch.manual_seed(0)
    bands = np.array([transform._band(0.3) for _ in range(500)])
    widths = bands[:, 1] - bands[:, 0]
    assert bands.min() >= 0
    assert bands.max() <= 1
    assert widths.max() == pytest.approx(0.3, abs=0.01)
    assert widths.mean() == pytest.approx(0.15, abs=0.02)
    assert bands.mean() == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize(
    ("have", "length"), [(400, 300), (300, 400), (401, 300), (300, 401), (401, 303), (9, 9), (1, 3)]
)
def test_speed_against_scipy(have, length):
    wave = np.random.default_rng(0).standard_normal(have)
    found = at_speed(torch.from_numpy(wave), length).numpy()
    np.testing.assert_allclose(found, scipy.signal.resample(wave, length), atol=1e-12)


def test_a_faster_clip_is_shorter_and_higher():
    """A tone of 500 Hz in 3,000 samples: the frequency times the factor, the length divided by it."""
    tone = torch.sin(2 * torch.pi * 500 * torch.arange(3000) / RATE)

    class Tone(Ramp):
        def __getitem__(self, i):
            return tone

    data = make(dataset=Tone(), views=2, view_transform=AudioViews(**{**OFF, "speed": 0.3}))
    data.setup()
    torch.manual_seed(0)
    factors = []
    for _ in range(300):
        view = data.training_transform({"waveform": as_recording(tone, sample_rate=RATE)})
        real = int(view["length"])
        assert not view["waveform"][real:].any()
        wave = view["waveform"][:real].double() * torch.hann_window(real, dtype=torch.float64)
        hertz = float(torch.fft.rfft(wave, n=80000).abs().argmax()) / 10
        factors.append(3000 / real)
        assert hertz == pytest.approx(500 * 3000 / real, abs=0.5)
    logs = np.log(factors) / np.log(1.3)
    assert -1.01 < logs.min() < -0.97
    assert 0.97 < logs.max() < 1.01
    assert logs.mean() == pytest.approx(0.0, abs=0.1)


def test_a_faster_crop_has_seen_more_of_the_recording():
    """A ramp rises by the speed in a sample, away from the clip's ends, where it rings."""
    found, length = seen(speed=0.4)
    assert (length == 4000).all()
    middle = found[:, 1500:2500]
    slopes = (middle[:, -1] - middle[:, 0]) / 0.999
    assert 1 / 1.41 < slopes.min() < 1 / 1.36
    assert 1.36 < slopes.max() < 1.41


def test_a_filter_against_a_sum_over_frequencies():
    """Every frequency is multiplied by its own factor, in float64 and one by one."""
    wave = torch.from_numpy(np.random.default_rng(0).standard_normal(160))
    points = np.array([0.0, 6.0, -3.0, 9.0, 1.0])
    found = filtered(wave, lambda places: between(torch.from_numpy(points), places.double()), rate=RATE)
    time, expected = np.arange(160), np.zeros(160)
    for k in range(81):
        mel = np.log10(1 + k * RATE / 160 / 700) / np.log10(1 + RATE / 2 / 700)
        factor = 10 ** (np.interp(mel, np.linspace(0, 1, 5), points) / 20)
        coefficient = np.sum(wave.numpy() * np.exp(-2j * np.pi * k * time / 160)) / 160
        both = 1 if k in (0, 80) else 2
        expected += factor * both * (coefficient * np.exp(2j * np.pi * k * time / 160)).real
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_filters_are_drawn_for_each_view_within_their_decibels():
    transform = AudioViews(**{**OFF, "filter": 9.0})
    torch.manual_seed(0)
    drawn = torch.stack([transform._decibels(torch.linspace(0, 1, 5)) for _ in range(500)])
    assert 8.9 < drawn.max() <= 9
    assert -9 <= drawn.min() < -8.9
    assert float(drawn.mean()) == pytest.approx(0.0, abs=0.4)
    assert float(drawn.std()) == pytest.approx(9 / 3**0.5, abs=0.2)
    assert abs(float(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1])) < 0.15


def test_a_sound_kept_in_memory_stays_as_it_is():
    ramp = Ramp()
    sounds = [ramp[i] for i in range(16)]

    class Kept(Ramp):
        def __getitem__(self, i):
            return sounds[i]

    data = make(dataset=Kept(), views=3, val_fraction=0, view_transform=AudioViews(time_mask=0.9, gain=0.0))
    list(data.train_dataloader())
    assert all(torch.equal(sounds[i], ramp[i]) for i in range(16))


def test_spectrograms_of_a_cache(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(8):
        soundfile.write(tmp_path / f"{i}.wav", 0.1 * rng.standard_normal(6000 if i % 2 else 3000), RATE)
    front_end = LogMel(sample_rate=RATE, mels=20)

    def batch(workers=0, **settings):
        data = make(
            root=str(tmp_path), log_mel_cache=str(tmp_path / "kept"), front_end=front_end, val_fraction=0, **settings,
            num_workers=workers,
        )  # fmt: skip
        return next(iter(data.train_dataloader()))

    plain = batch()
    masked = batch(views=2, view_transform=AudioViews(gain=0.0, time_mask=0.4, frequency_mask=0.4))
    for sound, view, real in zip(plain["log_mel"], masked["log_mel"], plain["length"].tolist(), strict=True):
        changed = sound != view
        assert not changed[:, real:].any()
        assert len(view[changed].unique()) <= 1
        assert 0 < changed.float().mean() < 0.7
        assert torch.allclose(view[changed], sound[:, :real].mean(), atol=1e-5)
    assert isinstance(make(root="x", log_mel_cache="y", views=2).viewing, AudioViews)
    again = batch(2, views=2)
    assert torch.equal(again["views"][1]["log_mel"], batch(views=2)["views"][1]["log_mel"])
    with pytest.raises(
        DataError, match=r"expected no gain with log_mel_cache, got 6: set data.view_transform.gain to 0"
    ):
        batch(views=2, view_transform=AudioViews())
    with pytest.raises(DataError, match=r"expected no speed with log_mel_cache, got 0.1"):
        batch(views=2, view_transform=AudioViews(gain=0.0, speed=0.1))
    bands = batch(views=2, view_transform=AudioViews(**{**OFF, "filter": 6.0}))
    for sound, view, real in zip(plain["log_mel"], bands["log_mel"], plain["length"].tolist(), strict=True):
        added = (view - sound)[:, :real] * 10 / np.log(10)
        assert 0 < added.abs().max() <= 6.0001
        assert torch.allclose(added, added[:, :1].expand_as(added), atol=1e-3)
        assert torch.equal(view[:, real:], sound[:, real:])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"gain": -1.0}, "expected gain from 0 to 60 dB"),
        ({"time_mask": 1.0}, "expected time_mask from 0 to below 1"),
        ({"speed": 1.5}, "expected speed from 0 to 1"),
        ({"filter": -1.0}, "expected filter from 0 to 60 dB"),
        ({"frequency_mask": -0.1}, "expected frequency_mask from 0 to below 1"),
    ],
)
def test_settings_out_of_range(settings, says):
    with pytest.raises(DataError, match=says):
        AudioViews(**settings)
