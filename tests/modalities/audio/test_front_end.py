"""Log-mel spectrograms: against torchaudio, against plain loops in float64, and whatever is appended."""

import math

import numpy as np
import pytest
import torch
import torchaudio

from modalities.audio import LogMel

RATE = 16000


def sounds(batch, samples, seed=0):
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(samples) / RATE
    pitch = 100 * torch.rand(batch, 1, generator=generator) * torch.tensor([30.0]) + 50
    noise = torch.randn(batch, samples, generator=generator)
    return 0.3 * torch.sin(2 * math.pi * pitch * time) + 0.01 * noise + 0.02


def plain_log_mel(waveform, front_end, *, f_min, f_max):
    """Frame by frame in float64, from the definitions; the Fourier transform as a matrix."""
    window, hop, size = front_end.window_size, front_end.hop, front_end.n_fft
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    wave = np.exp(-2j * np.pi * np.outer(np.arange(size // 2 + 1), np.arange(window)) / size)
    mel = [2595 * math.log10(1 + f / 700) for f in (f_min, f_max)]
    edges = [700 * (10 ** ((mel[0] + (mel[1] - mel[0]) * i / (front_end.mels + 1)) / 2595) - 1) for i in range(200)]
    frames = []
    for start in range(0, len(waveform), hop):
        piece = np.zeros(window)
        part = waveform[start : start + window]
        piece[: len(part)] = part
        power = np.abs(wave @ (piece * hann)) ** 2
        energies = []
        for low, centre, high in zip(edges, edges[1:], edges[2 : front_end.mels + 2], strict=False):
            total = 0.0
            for k, p in enumerate(power):
                f = k * front_end.sample_rate / size
                total += p * max(0.0, min((f - low) / (centre - low), (high - f) / (high - centre)))
            energies.append(math.log(max(total, front_end.floor)))
        frames.append(energies)
    return np.array(frames).T


@pytest.mark.parametrize(
    "settings",
    [
        {"mels": 40},
        {"mels": 24, "sample_rate": 8000, "window_ms": 32.0, "hop_ms": 12.5, "f_min": 60.0, "f_max": 3500.0},
        {"mels": 20, "n_fft": 1024, "floor": 1e-2},
    ],
)
def test_against_a_plain_computation_in_float64(settings):
    front_end = LogMel(**settings)
    waveform = sounds(1, 1700)
    edges = {"f_min": settings.get("f_min", 20.0), "f_max": settings.get("f_max", front_end.sample_rate / 2)}
    expected = plain_log_mel(waveform[0].double().numpy(), front_end, **edges)
    found = front_end(waveform)[0]
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    assert np.abs(found.numpy() - expected).max() < 2e-3
    assert np.abs(found.numpy() - expected).mean() < 2e-5


@pytest.mark.parametrize("n_fft", [400, 1024])
def test_against_torchaudios_mel_spectrogram(n_fft):
    front_end = LogMel(n_fft=n_fft, mels=40)
    theirs = torchaudio.transforms.MelSpectrogram(
        RATE, n_fft=n_fft, win_length=400, hop_length=160, f_min=20.0, n_mels=40, center=False
    )
    waveform = sounds(3, 8000)
    # Theirs has the window in the middle of the transform: the same samples where as much is put before.
    shifted = torch.nn.functional.pad(waveform, ((n_fft - 400) // 2, n_fft))
    expected = theirs(shifted)[:, :, : front_end.frames(8000)].clamp(min=front_end.floor).log()
    torch.testing.assert_close(front_end(waveform), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("window", ["hann", "povey"])
@pytest.mark.parametrize(("rate", "mels", "low", "high"), [(16000, 128, 20.0, None), (22050, 64, 50.0, 7000.0)])
def test_fbank_against_kaldi(window, rate, mels, low, high):
    front_end = LogMel(kind="fbank", window=window, sample_rate=rate, mels=mels, f_min=low, f_max=high)
    waveform = sounds(3, rate // 2)
    waveform[2, 4000:] = 0
    found = front_end(waveform)
    for clip, features in zip(waveform, found, strict=True):
        kaldi = torchaudio.compliance.kaldi.fbank(
            clip[None],
            sample_frequency=rate,
            num_mel_bins=mels,
            low_freq=low,
            high_freq=high or 0.0,
            htk_compat=True,
            use_energy=False,
            window_type="hanning" if window == "hann" else window,
            dither=0.0,
        )
        assert 0 <= features.shape[1] - len(kaldi) <= 3  # Kaldi stops where a window would reach over the end
        torch.testing.assert_close(features[:, : len(kaldi)].T, kaldi, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["log_mel", "fbank"])
@pytest.mark.parametrize("samples", [1, 159, 160, 161, 5000])
def test_appended_zeros_change_no_frame(kind, samples):
    front_end = LogMel(kind=kind, mels=32)
    waveform = sounds(2, samples)
    found = front_end(waveform)
    assert found.shape == (2, 32, math.ceil(samples / 160)) == (2, 32, front_end.frames(samples))
    for zeros in (1, 160, 3333):
        longer = front_end(torch.nn.functional.pad(waveform, (0, zeros)))
        torch.testing.assert_close(longer[:, :, : found.shape[2]], found, rtol=0, atol=1e-5)
        assert (longer[:, :, found.shape[2] :] == torch.tensor(front_end.floor).log()).all()


@pytest.mark.parametrize("kind", ["log_mel", "fbank"])
def test_a_batch_is_its_clips(kind):
    front_end = LogMel(kind=kind)
    waveform = sounds(4, 6000)
    single = torch.cat([front_end(clip[None]) for clip in waveform])
    torch.testing.assert_close(front_end(waveform), single, rtol=0, atol=1e-5)


def test_frames_where_the_hop_is_longer_than_the_window():
    front_end = LogMel(mels=8, window_ms=5.0, hop_ms=20.0)
    waveform = sounds(1, 1000)
    found = front_end(waveform)
    assert found.shape[2] == 4
    alone = torch.cat([front_end(waveform[:, i : i + 80]) for i in (0, 320, 640, 960)], dim=2)
    torch.testing.assert_close(found, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["log_mel", "fbank"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_computes_in_float32_in_any_model(kind, dtype):
    waveform = sounds(2, 4000)
    expected = LogMel(kind=kind)(waveform)
    half = torch.nn.Sequential(LogMel(kind=kind)).to(dtype)
    assert {buffer.dtype for buffer in half.buffers()} == {torch.float32}
    assert torch.equal(half(waveform), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(half(waveform), expected)
    assert half(waveform.to(dtype)).dtype == torch.float32
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        built = LogMel(kind=kind)
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(built(waveform), expected)


def test_the_module_moves_and_is_in_no_checkpoint():
    front_end = torch.nn.Sequential(LogMel()).to("meta")
    assert {buffer.device.type for buffer in front_end.buffers()} == {"meta"}
    assert not front_end.state_dict()
    assert not list(front_end.parameters())


def test_no_band_is_empty_by_default():
    assert LogMel().n_fft == 1024  # at 512 the lowest bands of 128 lie between two frequencies
    assert LogMel(mels=40).n_fft == 512
    assert (LogMel().bands.amax(1) > 0).all()
    assert LogMel(kind="fbank").n_fft == 512  # as Kaldi


def test_settings_tell_front_ends_apart():
    base = LogMel().settings
    assert base == LogMel().settings
    for other in (
        {"hop_ms": 20.0},
        {"kind": "fbank"},
        {"f_max": 4000.0},
        {"mels": 64},
        {"floor": 1e-3},
        {"n_fft": 2048},
    ):
        assert LogMel(**other).settings != base


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "mel"}, "kind must be log_mel or fbank, got 'mel'"),
        ({"window": "povey"}, "window must be hann, or povey for kind fbank"),
        ({"sample_rate": 0}, "sample_rate must be at least 1"),
        ({"f_max": 9000.0}, "f_max <= 8000 Hz, got 20 and 9000"),
        ({"f_min": 500.0, "f_max": 400.0}, "0 <= f_min < f_max"),
        ({"mels": 3}, "mels must be at least 4"),
        ({"floor": 0.0}, "floor must be positive"),
        ({"hop_ms": 0.01}, "hop_ms must hold at least 1 sample"),
        ({"window_ms": -5.0}, "window_ms must hold at least 2 sample"),
        ({"n_fft": 256}, "n_fft must be even and at least the window of 400 samples, got 256"),
        ({"mels": 4000}, "4000 mel bands .* too narrow"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        LogMel(**settings)


@pytest.mark.parametrize(
    "waveform", [torch.zeros(2, 1, 400), torch.zeros(2, 0), torch.zeros(2, 400, dtype=torch.int16)]
)
def test_waveforms_that_are_none(waveform):
    with pytest.raises(ValueError, match=r"expected waveforms \(B, L\) of floats"):
        LogMel()(waveform)
