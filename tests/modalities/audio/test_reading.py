"""Reading parts of audio files: formats, channels, resampling, and what is wrong with a file."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import soundfile
import torch
from torchaudio.functional import resample as whole_resample

from jepa_lightning.data import DataError, Encoded
from modalities.audio.reading import info, ratio, read, resample

FORMATS = {
    "wav": ("PCM_16", "PCM_24", "FLOAT", "DOUBLE", "PCM_U8"),
    "flac": ("PCM_16", "PCM_24"),
    "ogg": ("VORBIS", "OPUS"),
    "mp3": ("MPEG_LAYER_III",),
    "aiff": ("PCM_16",),
}
ALL = [(suffix, subtype) for suffix, subtypes in FORMATS.items() for subtype in subtypes]


def tone(seconds=3.0, rate=16000, seed=0):
    """A rising tone with a little noise: no two parts of it are alike."""
    t = np.arange(round(seconds * rate)) / rate
    wave = 0.4 * np.sin(2 * np.pi * (200 * t + 100 * t**2))
    return (wave + 0.02 * np.random.default_rng(seed).standard_normal(len(t))).astype(np.float32)


def write(path, wave, rate=16000, subtype=None):
    soundfile.write(path, wave, rate, subtype=subtype)
    return str(path)


@pytest.mark.parametrize(("suffix", "subtype"), ALL)
def test_parts_of_every_format_are_exact(tmp_path, suffix, subtype):
    path = write(tmp_path / f"x.{suffix}", tone(), subtype=subtype)
    whole = read(path)
    known = info(path)
    assert (known.frames, known.sample_rate, known.channels) == (48000, 16000, 1)
    assert (whole.dtype, whole.shape) == (np.float32, (48000,))
    lossy = subtype in ("VORBIS", "OPUS", "MPEG_LAYER_III", "PCM_U8")
    assert np.corrcoef(whole, tone())[0, 1] > (0.98 if lossy else 0.999999)
    for start, count in [(0, 1000), (1, 1), (1151, 3000), (20000, 8000), (47000, 1000)]:
        np.testing.assert_allclose(read(path, start=start, count=count), whole[start : start + count], atol=1e-6)
    assert len(read(path, start=47990, count=100)) == 10


@pytest.mark.parametrize(("seconds", "rate"), [(3, 16000), (7, 8000), (3.3, 22050)])
def test_seeking_in_vorbis_is_exact_up_to_the_last_sample(tmp_path, seconds, rate):
    path = write(tmp_path / "x.ogg", tone(seconds, rate), rate)
    whole = read(path)
    for start in range(0, len(whole), len(whole) // 50):
        np.testing.assert_array_equal(read(path, start=start, count=300), whole[start : start + 300])


def test_seeking_in_mp3_does_not_miss_the_bits_of_earlier_frames(tmp_path):
    noise = (0.1 * np.random.default_rng(0).standard_normal(160_000)).astype(np.float32)  # fills every frame
    path = write(tmp_path / "x.mp3", noise)
    whole = read(path)
    for start in range(0, len(whole), 1607):
        np.testing.assert_allclose(read(path, start=start, count=300), whole[start : start + 300], atol=1e-5)


def test_channels_are_averaged(tmp_path):
    left, right = tone(seed=1), -0.3 * tone(seed=2)
    path = write(tmp_path / "x.wav", np.stack([left, right, 0 * left], 1), subtype="FLOAT")
    assert info(path).channels == 3
    np.testing.assert_allclose(read(path, start=100, count=500), ((left + right) / 3)[100:600], atol=1e-6)


@pytest.mark.parametrize(("old", "new"), [(44100, 16000), (8000, 16000), (48000, 16000), (22050, 8000), (11025, 16000)])
def test_resampled_parts_equal_torchaudio_on_the_whole_file(tmp_path, old, new):
    wave = tone(1.7, old)
    path = write(tmp_path / "x.wav", wave, old, subtype="FLOAT")
    expected = whole_resample(torch.from_numpy(wave).double(), old, new).numpy()  # its float32 is good to 1e-5
    assert info(path).length(new) == len(expected)
    np.testing.assert_allclose(read(path, sample_rate=new), expected, atol=2e-5)
    for start, count in [(0, 100), (1, 1), (777, 4000), (len(expected) - 500, 500), (len(expected) - 7, 50)]:
        got = read(path, start=start, count=count, sample_rate=new)
        np.testing.assert_allclose(got, expected[start : start + count], atol=2e-5)


def test_odd_rates_do_not_need_a_huge_filter(tmp_path):
    assert max(ratio(44101, 16000).as_integer_ratio()) <= 1000
    assert float(ratio(44101, 16000)) == pytest.approx(16000 / 44101, rel=5e-6)
    assert float(ratio(11127, 96000)) == pytest.approx(96000 / 11127, rel=2e-5)
    path = write(tmp_path / "x.wav", tone(1, 44101), 44101, subtype="FLOAT")
    wave, near = read(path, sample_rate=16000), whole_resample(torch.from_numpy(tone(1, 44101)), 44100, 16000).numpy()
    assert np.corrcoef(wave[:4000], near[:4000])[0, 1] > 0.999
    np.testing.assert_allclose(read(path, start=5000, count=800, sample_rate=16000), wave[5000:5800], atol=2e-6)


def test_resampling_can_be_done_to_arrays():
    wave = tone(1, 8000)
    assert resample(wave, 8000, 8000) is wave
    expected = whole_resample(torch.from_numpy(wave).double(), 8000, 11025).numpy()
    np.testing.assert_allclose(resample(wave, 8000, 11025), expected, atol=5e-5)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_a_short_part_of_a_long_file_decodes_only_that(tmp_path, suffix, monkeypatch):
    path = write(tmp_path / f"x.{suffix}", np.tile(tone(5, 8000), 12), 8000)
    decoded = []
    inner = soundfile.SoundFile.read

    def counting(self, frames=-1, *args, **kwargs):
        out = inner(self, frames, *args, **kwargs)
        decoded.append(len(out))
        return out

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    info(path)
    read(path, start=400_000, count=16000, sample_rate=16000)
    assert 8000 <= sum(decoded) < 8100 + (9216 if suffix == "mp3" else 0)  # of 480,000


def damage(path, kind):
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    path.write_bytes(
        {
            "empty": b"",
            "header only": data[:40],
            "not a sound": b"<html>404 not found</html>" * 20,
            "half": data[: len(data) // 2],
            "a little short": data[:-100],
            "noise": rng.integers(0, 256, len(data), dtype=np.uint8).tobytes(),
        }[kind]
    )


@pytest.mark.parametrize("kind", ["empty", "header only", "not a sound", "half", "a little short", "noise"])
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_damage_is_an_os_error_that_says_what(tmp_path, suffix, kind):
    path = tmp_path / f"x.{suffix}"
    write(path, tone())
    damage(path, kind)
    expected = "empty" if kind == "empty" else "not an audio file|no audio|truncated|no samples|damaged"
    with pytest.raises(OSError, match=expected) as caught:
        info(str(path))
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)


def pages(data):
    """Cut an ogg file into its pages."""
    start = 0
    while start < len(data):
        stop = start + 27 + data[start + 26] + sum(data[start + 27 : start + 27 + data[start + 26]])
        yield data[start:stop]
        start = stop


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("form", ["no last page is marked", "a second stream"])
def test_an_ogg_file_of_whole_pages_is_readable_however_its_end_is_marked(tmp_path, form, subtype):
    path = tmp_path / "x.ogg"
    write(path, tone(2, 48000), 48000, subtype=subtype)
    whole = path.read_bytes()
    *first, _ = pages(whole)
    assert len(first) > 2
    changed = {"no last page is marked": b"".join(first), "a second stream": whole + whole}[form]
    for source in (path, Encoded("x.ogg", changed)):
        path.write_bytes(changed)
        assert info(source if isinstance(source, Encoded) else str(source)).frames > 24000
    path.write_bytes(changed[:-20])
    with pytest.raises(OSError, match="its last page is incomplete"):
        info(str(path))


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_reading_beyond_a_truncated_end_is_an_os_error(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    write(path, tone())
    damage(path, "half")
    with pytest.raises(OSError):
        read(str(path), start=40000, count=4000)


def test_garbled_middle_of_a_compressed_file(tmp_path):
    path = tmp_path / "x.flac"  # an mp3's decoder looks for the next frame and goes on
    write(path, tone())
    data = bytearray(path.read_bytes())
    third = len(data) // 3
    data[third : 2 * third] = np.random.default_rng(0).integers(0, 256, third, dtype=np.uint8).tobytes()
    path.write_bytes(data)
    with pytest.raises(OSError, match=r"damaged|truncated"):
        read(str(path), start=20000, count=8000)


def test_no_samples_is_unreadable_and_silence_is_not(tmp_path):
    path = write(tmp_path / "none.wav", np.zeros(0, np.float32))
    with pytest.raises(OSError, match="no samples"):
        info(path)
    path = write(tmp_path / "silent.wav", np.zeros(500, np.float32))
    assert info(path).frames == 500
    assert not read(path).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_unreadable_where_they_are_read(tmp_path, value):
    wave = tone()
    wave[5000] = value
    path = write(tmp_path / "x.wav", wave, subtype="FLOAT")
    with pytest.raises(OSError, match="NaN or infinite"):
        read(path, start=4990, count=20)
    assert len(read(path, start=0, count=4990)) == 4990


def test_streamed_wav_files_without_a_length_are_fine(tmp_path):
    path = tmp_path / "x.wav"
    write(path, tone(), subtype="PCM_16")
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"  # what ffmpeg writes into a pipe
    path.write_bytes(data)
    assert info(str(path)).frames == 48000


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read(str(tmp_path / "x.wav"))


def test_places_that_do_not_exist(tmp_path):
    path = write(tmp_path / "x.wav", tone())
    with pytest.raises(OSError, match="do not exist: there are 24000"):
        read(path, start=24000, count=5, sample_rate=8000)


def test_missing_packages_are_named(tmp_path, monkeypatch):
    path = write(tmp_path / "x.wav", tone())
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    monkeypatch.setitem(sys.modules, "torchaudio.transforms", None)
    assert len(read(path, sample_rate=16000)) == 48000
    with pytest.raises(DataError, match=r'torchaudio.*pip install "jepa-lightning\[audio\]"'):
        read(path, sample_rate=12345)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(DataError, match=r'soundfile.*pip install "jepa-lightning\[audio\]"'):
        read(path)


@pytest.mark.parametrize("rate", [1, 2**31 - 1])
def test_rates_that_no_sound_has_are_not_resampled(tmp_path, rate):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, np.zeros(100), rate, subtype="PCM_16")
    with pytest.raises(OSError, match="too far from 16000 Hz"):
        read(path, sample_rate=16000)
    with pytest.raises(OSError, match="too far from 16000 Hz"):
        info(path).length(16000)


def test_samples_beyond_all_bounds_are_damage(tmp_path):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, np.array([0.0, 1e30, 0.0], np.float32), 8000, subtype="FLOAT")
    with pytest.raises(OSError, match="beyond 1e"):
        read(path)
