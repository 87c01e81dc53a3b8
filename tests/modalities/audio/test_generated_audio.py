from __future__ import annotations

import numpy as np
import pytest

from modalities.audio.generated import ENVELOPES, RATES, TIMBRES, GeneratedAudio


@pytest.fixture(scope="module")
def sounds():
    return GeneratedAudio(600)


def nearest_centroid(features, targets, train=400):
    """Share of the rest that lies nearest to its own class's mean, of features scaled to unit spread."""
    features = (features - features[:train].mean(0)) / (features[:train].std(0) + 1e-9)
    centres = np.stack([features[:train][targets[:train] == c].mean(0) for c in np.unique(targets)])
    distance = ((features[train:, None] - centres) ** 2).sum(-1)
    return (distance.argmin(1) == targets[train:]).mean()


def spectrogram(waveforms, window=256, hop=80):
    frames = np.lib.stride_tricks.sliding_window_view(waveforms / 32768, window, axis=1)[:, ::hop]
    return np.abs(np.fft.rfft(frames * np.hanning(window), axis=-1)) ** 2


def test_deterministic_and_independent_of_the_number_of_samples():
    small, large = GeneratedAudio(50, seconds=0.5), GeneratedAudio(90, seconds=0.5)
    assert np.array_equal(small.waveforms, large.waveforms[:50])
    assert np.array_equal(small.targets, large.targets[:50])
    assert not np.array_equal(small.waveforms, GeneratedAudio(50, seconds=0.5, seed=1).waveforms)


def test_splits_differ():
    sets = [GeneratedAudio(40, seconds=0.5, split=split).waveforms for split in ("train", "val", "test")]
    for i, first in enumerate(sets):
        for second in sets[i + 1 :]:
            assert not (first == second).all(1).any()


def test_sample_and_balance(sounds):
    sample = sounds[3]
    assert (sample["waveform"].shape, sample["waveform"].dtype) == ((16000,), np.int16)
    assert list(sample["labels"]) == ["rhythm", "timbre", "envelope", "pitch", "rate"]
    assert np.bincount(sounds.targets).tolist() == [75] * 8
    assert np.bincount(sounds.timbres).tolist() == [120] * len(TIMBRES)
    assert np.bincount(sounds.envelopes).tolist() == [150] * len(ENVELOPES)
    assert len(sounds.classes) == 2 * len(RATES)
    assert GeneratedAudio(5, seconds=1.5, sample_rate=16000).waveforms.shape == (5, 24000)


def test_pitch_is_the_label(sounds):
    """The strongest of the fundamental's first partials stands where the label says."""
    spectrum = np.abs(np.fft.rfft(sounds.waveforms * np.hanning(16000), axis=1))
    fundamental = 110 * 2.0**sounds.pitches * 2  # two seconds: half a hertz a bin
    distance = np.abs(spectrum[:, 100:].argmax(1)[:, None] + 100 - fundamental[:, None] * np.arange(1, 9)).min(1)
    assert np.mean(distance < 25) > 0.99  # sidebands are as far off as the notes are fast
    assert sounds.pitches.min() >= 0
    assert sounds.pitches.max() <= 2.5


def test_rhythm_is_in_the_loudness_over_time(sounds):
    """The spectrum of the loudness has its first peak at the rate, or swung, at half of it."""
    loudness = np.sqrt(spectrogram(sounds.waveforms).sum(-1))
    loudness -= loudness.mean(1, keepdims=True)
    modulation = np.abs(np.fft.rfft(loudness * np.hanning(loudness.shape[1]), 4096, axis=1))
    at = np.fft.rfftfreq(4096, 80 / 8000)
    strength = {
        share: modulation[np.arange(600), np.abs(at - share * sounds.rates[:, None]).argmin(1)]
        for share in (0.5, 0.75, 1.0)
    }
    swung = sounds.targets % 2 == 1
    assert np.mean(strength[1.0][~swung] > 3 * strength[0.75][~swung]) > 0.95
    assert np.mean(strength[0.5][swung] > 0.15 * strength[1.0][swung]) > 0.95
    assert np.mean(strength[0.5][~swung] < 0.15 * strength[1.0][~swung]) > 0.95
    assert np.abs(sounds.rates / np.array(RATES)[sounds.targets // 2] - 1).max() < 0.061


def test_the_mean_spectrum_does_not_say_the_rhythm_but_the_modulation_does(sounds):
    power = spectrogram(sounds.waveforms)
    for mean in (np.log(power.mean(1) + 1e-6), np.log(power + 1e-6).mean(1)):
        assert nearest_centroid(mean, sounds.targets) < 0.25
    loudness = power.sum(-1)
    loudness = loudness / loudness.mean(1, keepdims=True) - 1
    assert nearest_centroid(np.abs(np.fft.rfft(loudness, axis=1))[:, :60], sounds.targets) > 0.7


def test_levels_and_noise_vary_and_nothing_is_clipped(sounds):
    peak = np.abs(sounds.waveforms.astype(int)).max(1)
    assert peak.max() <= 32767
    assert peak.min() > 3000
    assert peak.std() > 3000
    assert GeneratedAudio(40, sample_rate=4000, seconds=0.5).waveforms.std(1).min() > 300


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0.2}, "expected clips of at least 0.5 seconds at 4000 Hz or more, got 0.2 at 8000"),
        ({"sample_rate": 2000}, "got 2 at 2000"),
        ({"samples": 0}, "expected at least 1 sample, got 0"),
        ({"split": "dev"}, "expected a split among train, val, test, got 'dev'"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(ValueError, match=message):
        GeneratedAudio(**options)
