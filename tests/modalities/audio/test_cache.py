"""The log-mel cache: hits and misses, damage, and crops of what it holds."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from jepa_lightning.data import DataError
from modalities.audio.cache import LogMelCache
from modalities.audio.data import AudioData
from modalities.audio.reading import info
from modalities.audio.recordings import FileRecording
from modalities.audio.transforms import LogMelCrop

RATE, HOP = 8000, 100


class FrontEnd(nn.Module):
    """Four bands of the loudness of 100 samples each: as much of a log-mel as a test needs."""

    def __init__(self, floor=1e-6):
        super().__init__()
        self.settings = {"hop": HOP, "floor": floor}
        self.floor = floor
        self.calls = 0

    def forward(self, waveform):
        self.calls += 1
        power = waveform.unfold(1, HOP, HOP).square().mean(-1)
        return (power + self.floor).log()[:, None] - torch.arange(4.0)[:, None]


def write(path, seconds=2.0, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    length = round(seconds * RATE)
    ramp = np.linspace(0.01, 0.5, length) * np.random.default_rng(seed).choice([-1, 1], length)
    soundfile.write(path, ramp.astype(np.float32), RATE, subtype="FLOAT")
    return FileRecording(str(path), sample_rate=RATE, known=info(str(path)))


def stored(folder):
    return sorted(str(path) for path in folder.rglob("*.npy"))


def test_what_is_kept_is_the_front_ends(tmp_path):
    sound = write(tmp_path / "x.wav")
    cache = LogMelCache(str(tmp_path / "kept"), front_end=FrontEnd(), sample_rate=RATE)
    expected = FrontEnd()(torch.from_numpy(sound.read(0, sound.length))[None])[0].T
    first, second = cache(sound), cache(sound)
    assert cache.front_end.calls == 1
    assert stored(tmp_path / "kept") == [cache.path(sound.path)]
    assert isinstance(second, np.memmap)
    for got in (first, second):
        assert (got.shape, got.dtype) == ((160, 4), np.float16)
        np.testing.assert_allclose(got, expected, rtol=1e-3)


def test_settings_rate_and_the_file_make_the_name(tmp_path):
    sound = write(tmp_path / "x.wav")
    folder = str(tmp_path / "kept")
    names = {LogMelCache(folder, front_end=FrontEnd(), sample_rate=RATE).path(sound.path)}
    assert {LogMelCache(folder, front_end=FrontEnd(), sample_rate=RATE).path(sound.path)} == names
    names.add(LogMelCache(folder, front_end=FrontEnd(1e-3), sample_rate=RATE).path(sound.path))
    cache = LogMelCache(folder, front_end=FrontEnd(), sample_rate=2 * RATE)
    names.add(cache.path(sound.path))
    names.add(cache.path(write(tmp_path / "y.wav").path))
    os.utime(sound.path, ns=(1, 1))
    names.add(cache.path(sound.path))
    write(tmp_path / "x.wav", seconds=1)
    os.utime(sound.path, ns=(1, 1))
    names.add(cache.path(sound.path))
    assert len(names) == 6


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"no array at all", "half", "wrong type"])
def test_damaged_files_are_made_again(tmp_path, content):
    sound = write(tmp_path / "x.wav")
    cache = LogMelCache(str(tmp_path / "kept"), front_end=FrontEnd(), sample_rate=RATE)
    good = cache(sound)
    path = cache.path(sound.path)
    if content == "half":
        with open(path, "r+b") as file:
            file.truncate(os.path.getsize(path) // 2)
    elif content == "wrong type":
        np.save(path, np.zeros((3, 4)))
    else:
        with open(path, "wb") as file:
            file.write(content)
    np.testing.assert_array_equal(cache(sound), good)
    assert cache.front_end.calls == 2
    cache(sound)
    assert cache.front_end.calls == 2


def test_several_at_once(tmp_path):
    sounds = [write(tmp_path / f"{i}.wav", seed=i) for i in range(6)] * 6
    caches = [LogMelCache(str(tmp_path / "kept"), front_end=FrontEnd(), sample_rate=RATE) for _ in sounds]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda pair: np.array(pair[0](pair[1])), zip(caches, sounds, strict=True)))
    assert len(stored(tmp_path / "kept")) == 6
    assert not list((tmp_path / "kept").rglob("*.unfinished"))
    for i, values in enumerate(got):
        np.testing.assert_array_equal(values, got[i % 6])


def test_crops_are_uniform_and_central(tmp_path):
    sound = write(tmp_path / "x.wav", seconds=1)
    cache = LogMelCache(str(tmp_path / "kept"), front_end=FrontEnd(), sample_rate=RATE)
    whole = torch.from_numpy(np.array(cache(sound))).float()
    middle = LogMelCrop(cache, 7100)({"waveform": sound, "labels": {}})
    assert list(middle) == ["labels", "log_mel", "length"]
    assert torch.equal(middle["log_mel"], whole.T[:, 4:75])
    assert middle["length"] == 71
    torch.manual_seed(0)
    crop = LogMelCrop(cache, 7100, random=True)
    starts = [crop({"waveform": sound})["log_mel"][0, 0].item() for _ in range(400)]
    counts = [starts.count(value) for value in whole[:10, 0].tolist()]
    assert sum(counts) == 400
    assert min(counts) > 20


def test_short_sounds(tmp_path):
    sound = write(tmp_path / "x.wav", seconds=0.5)
    cache = LogMelCache(str(tmp_path / "kept"), front_end=FrontEnd(), sample_rate=RATE)
    whole = torch.from_numpy(np.array(cache(sound))).float()
    padded = LogMelCrop(cache, RATE)({"waveform": sound})
    assert padded["length"] == 40
    assert torch.equal(padded["log_mel"][:, :40], whole.T)
    silence = FrontEnd()(torch.zeros(1, RATE))[0, :, :1]
    assert torch.allclose(padded["log_mel"][:, 40:], silence.expand(4, 40), rtol=1e-3)
    tiled = LogMelCrop(cache, RATE, short="tile")({"waveform": sound})
    assert tiled["length"] == 80
    assert torch.equal(tiled["log_mel"], torch.cat([whole, whole]).T)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_the_data_module(tmp_path, workers):
    for i in range(12):
        write(tmp_path / "sounds" / f"{i:02}.wav", seconds=0.5 + 0.1 * i, seed=i)
    (tmp_path / "sounds" / "05.wav").write_bytes(b"no sound")
    folder = tmp_path / "kept"
    front_end = FrontEnd()
    data = AudioData(
        root=str(tmp_path / "sounds"), log_mel_cache=str(folder), front_end=front_end, seconds=1.0, sample_rate=RATE,
        batch_size=4, num_workers=workers, val_fraction=0, max_unreadable=0.2, drop_last=False,
    )  # fmt: skip
    batches = list(data.train_dataloader())
    assert len(batches) == 3
    for batch in batches:
        assert set(batch) == {"log_mel", "length", "labels", "id"}
        assert (batch["log_mel"].shape, batch["log_mel"].dtype) == ((4, 4, 80), torch.float32)
        assert batch["length"].dtype == torch.int64
    assert len(stored(folder)) == 11
    assert list(data.unreadable) == [os.path.join("sounds", "05.wav")]
    assert front_end.calls == 0  # a copy does the work, as the model's own may be on a GPU


def test_front_end_of_the_model(tmp_path):
    for i in range(4):
        write(tmp_path / f"{i}.wav")
    data = AudioData(root=str(tmp_path), log_mel_cache=str(tmp_path / "kept"), batch_size=2, num_workers=0)
    modality = SimpleNamespace(tokenizer=SimpleNamespace(front_end=FrontEnd()), sample_rate=RATE, seconds=1.0)
    data.trainer = SimpleNamespace(lightning_module=SimpleNamespace(modality=modality), num_devices=1, world_size=1)
    assert next(iter(data.train_dataloader()))["log_mel"].shape == (2, 4, 80)


def test_mistakes(tmp_path):
    sound = write(tmp_path / "x.wav")
    with pytest.raises(DataError, match="expected a front end for log_mel_cache, got none"):
        AudioData(root=str(tmp_path), log_mel_cache=str(tmp_path / "k"), seconds=1, sample_rate=RATE).setup()
    with pytest.raises(DataError, match=r"expected a front end with `settings`.*got Identity"):
        LogMelCache(str(tmp_path), front_end=nn.Identity(), sample_rate=RATE)
    with pytest.raises(DataError, match=r"cannot make .*x.wav"):
        LogMelCache(str(tmp_path / "x.wav" / "kept"), front_end=FrontEnd(), sample_rate=RATE)
    cache = LogMelCache(str(tmp_path / "kept"), front_end=FrontEnd(), sample_rate=RATE)
    (tmp_path / "kept" / os.path.basename(os.path.dirname(cache.path(sound.path)))).write_text("in the way")
    with pytest.raises(DataError, match="cannot write to the log-mel cache"):
        cache(sound)


def test_a_sound_that_the_front_end_cannot_use_is_unreadable(tmp_path):
    sound = write(tmp_path / "x.wav", seconds=0.01)  # less than one frame
    cache = LogMelCache(str(tmp_path / "kept"), front_end=FrontEnd(), sample_rate=RATE)
    with pytest.raises(OSError, match="the front end cannot use its 80 samples"):
        cache(sound)
    assert not stored(tmp_path / "kept")
