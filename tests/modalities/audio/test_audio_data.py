"""Layouts, group splits, crops, short and broken files, and the ways to name a data set of sounds."""

from __future__ import annotations

import csv
import logging
import os
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from jsonargparse import ArgumentParser
from torch.utils.data import Dataset, TensorDataset

from jepa_lightning.data import DataError
from modalities.audio.data import AudioData
from modalities.audio.recordings import ArrayRecording, as_recording
from modalities.audio.transforms import Crop, place

RATE = 8000
SPEAKERS = ("anna", "bert", "carla")


def write(path, seconds=0.5, rate=RATE, value=0.25, channels=1, subtype=None):
    """A constant sound, so that what comes out says where it comes from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (round(seconds * rate), channels) if channels > 1 else round(seconds * rate)
    soundfile.write(path, np.full(shape, value, dtype=np.float32), rate, subtype=subtype)
    return path


def folders(folder, count, names=("ant", "bee"), suffix=".wav", **options):
    for name in names:
        for i in range(count):
            write(folder / name / f"{i}{suffix}", **options)


def table(folder, takes=5):
    """10 digits by 3 speakers by takes, as in FSDD, with a continuous label and a split column."""
    rows = []
    for s, speaker in enumerate(SPEAKERS):
        for digit in range(10):
            for take in range(takes):
                name = f"{digit}_{speaker}_{take}.wav"
                write(folder / "recordings" / name, seconds=0.1, value=0.01 * digit + 0.1 * s)
                rows.append([name, digit, speaker, f"{0.5 + take}", "test" if take == 0 else "train"])
    with open(folder / "index.csv", "w", newline="") as file:
        csv.writer(file).writerows([["file", "digit", "speaker", "height", "split"], *rows])
    return {"root": str(folder / "recordings"), "csv": str(folder / "index.csv")}


def make(root=None, **kwargs):
    return AudioData(**{"root": root and str(root), "seconds": 0.25, "sample_rate": RATE, "batch_size": 4,
                        "num_workers": 0} | kwargs)  # fmt: skip


def ids(loader):
    return [name for batch in loader for name in batch["id"]]


# Layouts and labels


def test_class_folders(tmp_path):
    folders(tmp_path / "train", 6)
    folders(tmp_path / "test", 2)
    data = make(tmp_path, val_fraction=0.25)
    assert data.classes == ["ant", "bee"]
    batch = next(iter(data.train_dataloader()))
    assert set(batch) == {"waveform", "length", "labels", "id"}
    assert (batch["waveform"].shape, batch["waveform"].dtype) == ((4, 2000), torch.float32)
    assert (batch["length"].tolist(), batch["length"].dtype) == ([2000] * 4, torch.int64)
    assert [data.classes[i] for i in batch["labels"]["label"]] == [name.split(os.sep)[1] for name in batch["id"]]
    assert len(ids(data.val_dataloader())) == 3
    assert len(ids(data.test_dataloader())) == 4


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".WAV"])
def test_formats_rates_and_channels(tmp_path, suffix):
    tone = 0.3 * np.sin(2 * np.pi * 500 * np.arange(8000) / 16000)
    for i in range(4):
        soundfile.write(tmp_path / f"{i}{suffix}", np.stack([tone, tone], 1), 16000)
    for cache in (False, True):
        batch = next(iter(make(tmp_path, cache=cache, val_fraction=0).train_dataloader()))
        assert batch["waveform"].shape == (4, 2000)
        spectrum = torch.fft.rfft(batch["waveform"]).abs() / 1000
        assert spectrum.argmax(1).tolist() == [125] * 4  # 4 Hz a bin
        assert spectrum[:, 125].tolist() == pytest.approx([0.3] * 4, abs=0.02)


def test_several_labels_from_a_csv(tmp_path):
    data = make(**table(tmp_path), labels=["digit", "speaker", "height"])
    batch = next(iter(data.train_dataloader()))
    assert {name: values.dtype for name, values in batch["labels"].items()} == {
        "digit": torch.int64,
        "speaker": torch.int64,
        "height": torch.float32,
    }
    for i, name in enumerate(batch["id"]):
        digit, speaker, take = name.removesuffix(".wav").split("_")
        assert batch["labels"]["digit"][i] == int(digit)
        assert SPEAKERS[batch["labels"]["speaker"][i]] == speaker
        assert batch["labels"]["height"][i] == int(take) + 0.5
        value = 0.01 * int(digit) + 0.1 * SPEAKERS.index(speaker)
        assert batch["waveform"][i, :800].mean() == pytest.approx(value, abs=1e-3)
    assert data.label == "digit"
    assert data.classes == [str(digit) for digit in range(10)]
    assert len(ids(data.test_dataloader())) == 30


# Splits by group


def speakers(names):
    return {name.split("_")[1] for name in names}


def test_one_speaker_held_out(tmp_path):
    data = make(**table(tmp_path), labels=["digit"], group="speaker", test_groups=["anna"], val_fraction=0.2)
    train, val, test = ids(data.train_dataloader()), ids(data.val_dataloader()), ids(data.test_dataloader())
    assert speakers(test) == {"anna"}
    assert speakers(train) == speakers(val) == {"bert", "carla"}
    assert (len(train), len(val), len(test)) == (80, 20, 50)  # the column split is left aside
    assert not set(train) & set(val)
    batch = next(iter(data.test_dataloader()))
    assert list(batch["labels"]) == ["digit"]
    assert [int(name[0]) for name in batch["id"]] == batch["labels"]["digit"].tolist()
    counts = torch.bincount(torch.cat([batch["labels"]["digit"] for batch in data.val_dataloader()]))
    assert counts.tolist() == [2] * 10


def test_groups_for_validation_too(tmp_path):
    data = make(**table(tmp_path, takes=2), labels=["digit", "speaker"], group="speaker", test_groups=["anna"],
                val_groups=["carla"])  # fmt: skip
    loaders = data.train_dataloader(), data.val_dataloader(), data.test_dataloader()
    assert [speakers(ids(loader)) for loader in loaders] == [{"bert"}, {"carla"}, {"anna"}]
    batch = next(iter(data.val_dataloader()))
    assert batch["labels"]["speaker"].tolist() == [2] * 4  # numbered over all splits


def test_groups_that_are_numbers_and_no_labels(tmp_path):
    files = table(tmp_path, takes=2)
    data = make(**files, group="digit", test_groups=[7, "8"])
    assert {name[0] for name in ids(data.test_dataloader())} == {"7", "8"}
    assert not data.labelled
    assert "test" not in make(**files, group="digit", val_groups=[3]).load()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"group": "speaker", "test_groups": ["ana"]},
            r"the value 'ana' \(did you mean anna\?\), got anna, bert, carla",
        ),
        ({"group": "speakr", "test_groups": ["anna"]}, r"label column 'speakr' .* \(did you mean speaker\?\)"),
        ({"group": "height", "test_groups": [1]}, "expected text or whole numbers in the column 'height'"),
        ({"group": "speaker", "test_groups": ["anna"], "val_groups": ["anna"]}, "got anna in both"),
        ({"group": "speaker", "test_groups": list(SPEAKERS)}, "expected training files of other values of speaker"),
    ],
)
def test_groups_that_do_not_fit(tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        make(**table(tmp_path, takes=2), **options).setup()


def test_groups_need_a_csv(tmp_path):
    folders(tmp_path, 2)
    with pytest.raises(DataError, match="expected a CSV file with the column 'speaker'"):
        make(tmp_path, group="speaker", test_groups=["x"]).setup()


# Crops and short sounds


def test_places_are_uniform_and_the_middle():
    torch.manual_seed(0)
    counts = np.bincount([place(10, 6, random=True) for _ in range(2000)], minlength=5)
    assert len(counts) == 5
    assert counts.min() > 330
    assert [place(10, 6, random=False), place(10, 7, random=False), place(5, 6, random=False)] == [2, 1, 0]
    assert place(5, 6, random=True) == place(6, 6, random=True) == 0


def test_training_crops_move_and_evaluation_crops_do_not(tmp_path):
    ramp = np.arange(8000, dtype=np.float32) / 8000
    for i in range(8):
        soundfile.write(tmp_path / f"{i}.wav", ramp, RATE, subtype="FLOAT")
    for cache in (False, True):
        data = make(tmp_path, cache=cache, val_fraction=0.5)
        loader, found = data.train_dataloader(), []
        for epoch in range(20):
            loader.sampler.set_epoch(epoch)
            found += [batch["waveform"][:, 0] for batch in loader]
        starts = torch.cat(found)
        assert starts.min() < 0.15
        assert starts.max() > 0.6
        for batch in data.val_dataloader():
            assert torch.equal(batch["waveform"], torch.from_numpy(ramp[3000:5000]).expand(4, -1))


def test_pad_and_tile():
    wave = np.arange(1, 4, dtype=np.float32)
    padded = Crop(8)({"waveform": ArrayRecording(wave)})
    assert padded["waveform"].tolist() == [1, 2, 3, 0, 0, 0, 0, 0]
    assert padded["length"] == 3
    tiled = Crop(8, short="tile", random=True)({"waveform": ArrayRecording(wave)})
    assert tiled["waveform"].tolist() == [1, 2, 3, 1, 2, 3, 1, 2]
    assert tiled["length"] == 8
    exact = Crop(3, random=True)({"waveform": ArrayRecording(wave)})
    assert exact["waveform"].tolist() == [1, 2, 3]
    assert exact["length"] == 3


def test_lengths_in_a_batch(tmp_path):
    for i, seconds in enumerate([0.1, 0.2, 0.25, 0.3]):
        write(tmp_path / f"{i}.wav", seconds=seconds)
    data = make(tmp_path, val_fraction=0)
    batch = next(iter(data.train_dataloader()))
    order = np.argsort(batch["id"])
    assert batch["length"][order].tolist() == [800, 1600, 2000, 2000]
    for wave, length in zip(batch["waveform"], batch["length"], strict=True):
        assert (wave[:length] == 0.25).all()
        assert not wave[length:].any()


def test_gain_is_for_training_and_within_its_range():
    torch.manual_seed(0)
    crop = Crop(4, random=True, gain=6)
    values = [crop({"waveform": ArrayRecording(np.ones(9, np.float32))})["waveform"] for _ in range(400)]
    decibels = torch.stack([20 * value[0].log10() for value in values])
    assert decibels.abs().max() <= 6.001
    assert decibels.min() < -5.5
    assert decibels.max() > 5.5
    assert all((value == value[0]).all() for value in values)
    assert (Crop(4, gain=6)({"waveform": ArrayRecording(np.ones(9, np.float32))})["waveform"] == 1).all()


def test_the_source_of_a_crop_is_not_changed():
    wave = np.ones(10, np.float32)
    clip = Crop(10, random=True, gain=20)({"waveform": ArrayRecording(wave)})["waveform"]
    assert (wave == 1).all()
    assert (clip != 1).all()


# Broken files


def break_files(folder):
    """A hundred good ones and six that cannot be read, with part of the reason."""
    for i in range(100):
        write(folder / f"{i:03}.wav", value=0.1)
    write(folder / "silent.wav", value=0.0)
    write(folder / "stereo.flac", channels=2, value=0.1)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.mp3").write_bytes(b"this is no sound at all, not at all " * 9)
    soundfile.write(folder / "none.wav", np.zeros(0, np.float32), RATE)
    soundfile.write(folder / "nan.wav", np.full(4000, np.nan, np.float32), RATE, subtype="FLOAT")
    for name in ("cut.wav", "cut.flac"):
        soundfile.write(folder / name, np.random.default_rng(0).uniform(-0.5, 0.5, 4000), RATE)
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) * 2 // 3])
    return {"empty.wav": "the file is empty", "text.mp3": "not an audio file", "none.wav": "no samples",
            "nan.wav": "NaN or infinite", "cut.wav": "truncated", "cut.flac": "truncated or damaged"}  # fmt: skip


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("cache", [False, True])
def test_bad_files_are_counted_and_named_and_kill_no_worker(tmp_path, workers, cache, caplog):
    bad = break_files(tmp_path)
    data = make(tmp_path, num_workers=workers, cache=cache, val_fraction=0, max_unreadable=0.2)
    with caplog.at_level(logging.WARNING):
        batches = [batch for _ in range(2) for batch in data.train_dataloader()]
    reasons = {os.path.basename(name): why for name, why in data.unreadable.items()}
    assert set(reasons) == set(bad)
    for name, why in bad.items():
        assert why in reasons[name]
        assert sum(name in record.getMessage() for record in caplog.records) == 1
    assert [len(batch["waveform"]) for batch in batches] == [4] * 54
    names = {os.path.basename(name) for batch in batches for name in batch["id"]}
    assert {"silent.wav", "stereo.flac"} <= names
    assert not names & set(bad)
    assert all(torch.isfinite(batch["waveform"]).all() for batch in batches)


def test_too_many_bad_files_end_the_run(tmp_path):
    break_files(tmp_path)
    with pytest.raises(DataError, match=r"6 of 108 samples cannot be read, more than max_unreadable(.*\n)*.*empty.wav"):
        make(tmp_path, cache=True).setup()


def test_cache_changes_nothing(tmp_path):
    for i in range(9):
        wave = np.random.default_rng(i).uniform(-0.5, 0.5, 3000 + 500 * i).astype(np.float32)
        soundfile.write(tmp_path / f"{i}.wav", wave, 11025)
    got = []
    stored = {"cache_folder": str(tmp_path.parent / "kept")}
    for settings in ({"cache": False}, {"cache": True}, stored, stored):
        data = make(tmp_path, val_fraction=0, batched=False, **settings)  # whole batches are drawn otherwise
        data.setup()
        torch.manual_seed(0)
        got.append(torch.cat([batch["waveform"] for batch in data.train_dataloader()]))
    assert torch.allclose(got[0], got[1], atol=2e-6)
    assert torch.equal(got[1], got[2])
    assert torch.equal(got[1], got[3])


def test_small_sets_are_kept_in_memory_by_default(tmp_path, monkeypatch):
    folders(tmp_path, 8)
    data = make(tmp_path)
    data.setup()
    assert data.in_memory
    for path in tmp_path.rglob("*.wav"):
        path.unlink()
    assert len(ids(data.train_dataloader())) == 12
    folders(tmp_path, 8)
    monkeypatch.setattr("jepa_lightning.data.files.file_set.CACHE_BYTES", 16 * 4000 * 4)
    data = make(tmp_path)
    data.setup()
    assert not data.in_memory


# Data sets by class path


class Torchaudio(Dataset):
    """Like torchaudio's SPEECHCOMMANDS, with a class number."""

    classes = ("yes", "no")

    def __init__(self, count: int = 12, sample_rate: int = 16000):
        self.count = count
        self.rate = sample_rate

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return torch.full((1, self.rate), 0.5), self.rate, index % 2, f"speaker {index}", index


def test_generated_by_default():
    data = make(samples=400, seconds=1.0)
    assert data.label == "rhythm"
    assert len(data.classes) == 8
    assert len(data.train_dataloader().dataset) == 400
    assert len(data.val_dataloader().dataset) == 50
    assert data.train_dataloader().num_workers == 0
    batch = next(iter(data.train_dataloader()))
    assert batch["waveform"].shape == (4, 8000)
    assert 0.02 < batch["waveform"].abs().max() <= 1
    assert list(batch["labels"]) == ["rhythm", "timbre", "envelope", "pitch", "rate"]


def test_tensor_datasets():
    waves, labels = torch.rand(20, 2, 3000), torch.arange(20) % 3
    data = make(dataset=TensorDataset(waves, labels), val_dataset=TensorDataset(waves[:4], labels[:4]))
    batch = next(iter(data.val_dataloader()))
    assert torch.allclose(batch["waveform"], waves[:4].mean(1)[:, 500:2500])
    assert batch["labels"]["label"].tolist() == [0, 1, 2, 0]
    assert not make(dataset=TensorDataset(waves[:, 0])).labelled


def test_torchaudio_tuples_bring_their_rate():
    data = make(dataset=Torchaudio(), test_dataset=Torchaudio(4, sample_rate=RATE))
    batch = next(iter(data.train_dataloader()))
    assert batch["waveform"].shape == (4, 2000)
    assert batch["waveform"].std() < 0.02  # resampling touches the ends of the sound, hardly its middle
    assert data.classes == ["yes", "no"]
    assert next(iter(data.test_dataloader()))["length"].tolist() == [2000] * 4


def test_arrays_of_any_type():
    for dtype, value in [(np.int16, 16384), (np.uint8, 192), (np.int32, 2**30), (np.float64, 0.5), (np.float16, 0.5)]:
        sound = as_recording(np.full((2, 10), value, dtype=dtype), sample_rate=RATE)
        assert sound.length == 10
        np.testing.assert_allclose(sound.read(2, 5), np.full(5, 0.5, np.float32))
    with pytest.raises(OSError, match="NaN"):
        as_recording(torch.tensor([0.0, torch.nan]), sample_rate=RATE)
    with pytest.raises(OSError, match="no samples"):
        as_recording(np.zeros((1, 0)), sample_rate=RATE)
    for wrong in (np.zeros((1, 2, 3)), np.zeros((8000, 2)), np.array(["a"]), np.float32(1)):
        with pytest.raises(DataError, match=r"expected waveforms of numbers, of shape \(L,\) or \(channels, L\)"):
            as_recording(wrong, sample_rate=RATE)


def test_a_dataset_of_something_else():
    with pytest.raises(DataError, match="expected waveforms"):
        make(dataset=TensorDataset(torch.zeros(8, 3, 32, 32))).setup()
    with pytest.raises(DataError, match=r"an .input, label. tuple"):
        make(dataset=TensorDataset(torch.zeros(8, 100), torch.zeros(8), torch.zeros(8))).setup()


# Settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"log_mel_cache": "x"}, "expected log_mel_cache only for files"),
        ({"group": "speaker", "test_groups": ["anna"]}, "expected group only for files"),
        ({"csv": "x.csv", "group": "speaker"}, "expected group, .* together with test_groups"),
        ({"csv": "x.csv", "test_groups": ["anna"]}, "expected group, .* got group None"),
        ({"root": "x", "log_mel_cache": "y", "cache": True}, "expected log_mel_cache without cache"),
        ({"root": "x", "log_mel_cache": "y", "cache_folder": "z"}, "expected log_mel_cache without cache_folder"),
        ({"root": "x", "log_mel_cache": "y", "gain": 3.0}, "expected log_mel_cache without gain"),
        ({"short": "loop"}, "expected short to be pad or tile, got 'loop'"),
        ({"gain": -1.0}, "expected gain from 0 to 60 dB, got -1"),
    ],
)
def test_arguments_that_do_not_fit(options, message):
    with pytest.raises(DataError, match=message):
        AudioData(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": None}, "expected seconds, got none and there is no"),
        ({"sample_rate": None}, "expected sample_rate, got none"),
        ({"sample_rate": 0}, "expected sample_rate of at least 1 Hz"),
        ({"seconds": 0.00001}, "expected seconds that hold at least 1 sample at 8000 Hz"),
    ],
)
def test_settings_that_are_out_of_range(options, message):
    with pytest.raises(DataError, match=message):
        make(samples=50, **options).setup()


def test_length_and_rate_come_from_the_model():
    data = make(samples=50, seconds=None, sample_rate=None)
    model = SimpleNamespace(modality=SimpleNamespace(seconds=0.75, sample_rate=4000))
    data.trainer = SimpleNamespace(lightning_module=model, num_devices=1, world_size=1)
    assert next(iter(data.train_dataloader()))["waveform"].shape == (4, 3000)


def test_from_yaml(tmp_path):
    files = table(tmp_path, takes=2)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(AudioData, "data")
    config = tmp_path / "c.yaml"
    config.write_text(
        "data:\n"
        f"  root: {files['root']}\n"
        f"  csv: {files['csv']}\n"
        "  labels: [digit, speaker]\n"
        "  group: speaker\n"
        "  test_groups: [carla]\n"
        "  seconds: 0.5\n"
        "  sample_rate: 8000\n"
        "  short: tile\n"
        "  batch_size: 8\n"
        "  num_workers: 0\n"
    )
    data = parser.instantiate_classes(parser.parse_args(["--config", str(config)])).data
    batch = next(iter(data.train_dataloader()))
    assert batch["waveform"].shape == (8, 4000)
    assert batch["length"].tolist() == [4000] * 8
    assert speakers(ids(data.test_dataloader())) == {"carla"}


def test_dataset_from_yaml(tmp_path):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(AudioData, "data")
    arguments = [f"--data.dataset={__name__}.Torchaudio", "--data.dataset.count=20", "--data.seconds=0.1",
                 "--data.sample_rate=8000", "--data.batch_size=8", "--data.num_workers=0"]  # fmt: skip
    data = parser.instantiate_classes(parser.parse_args(arguments)).data
    assert next(iter(data.train_dataloader()))["waveform"].shape == (8, 800)
