"""Audio of a whole batch: what the samples one by one give, by the same numbers and in distribution."""

import numpy as np
import pytest
import soundfile
import torch

from jepa_lightning.data import DataError
from jepa_lightning.data.batched import SampleIds
from jepa_lightning.data.views import view_seed
from jepa_lightning.randomness import uniforms
from modalities.audio import AudioData, AudioViews
from modalities.audio.batched import BatchCrops
from modalities.audio.recordings import ArrayRecording, as_recording, parts_of
from modalities.audio.transforms import Crop

SMALL = {"seconds": 0.5, "sample_rate": 4000, "batch_size": 8, "val_fraction": 0}  # L 2000
LENGTHS = [2000, 3100, 700, 2001, 5000, 1999, 1, 2600]


class Held:
    """Recordings in memory, as a data set of files has them."""

    def __init__(self, waves):
        self.waves = waves
        self.lengths = np.array([len(wave) for wave in waves])

    def take_parts(self, indices, starts, counts, size):
        rows = parts_of(lambda row: self.waves[indices[row]], starts, counts, size=size, dtype=self.waves[0].dtype)
        return {"waveform": rows, "labels": {}}


def held(dtype=np.float32, lengths=LENGTHS):
    rng = np.random.default_rng(0)
    waves = [rng.normal(0, 0.2, length).clip(-1, 1) for length in lengths]
    return Held([(wave * (32767 if dtype == np.int16 else 1)).astype(dtype) for wave in waves])


def run(batched, recordings, indices, seeds):
    draws = batched.draw(seeds)
    found = batched.take(recordings, indices, draws)
    return batched({"waveform": torch.from_numpy(found["waveform"])}, draws)


def configured(crop, **settings):
    views = AudioViews(**settings)
    views.rate, views.crop = 4000, crop
    crop.gain = views.gain
    return views


def first_batch(data):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(3)
    return next(iter(loader))


class Numbers:
    """Hands a transform the numbers that were drawn for the batch."""

    def __init__(self, monkeypatch, drawn, room, order):
        queue = iter([drawn[n] for n in order])
        monkeypatch.setattr(torch, "randint", lambda high, shape: torch.tensor(int(drawn[0] * high)))
        monkeypatch.setattr(
            torch, "rand", lambda shape: torch.tensor(next(queue) if shape == () else [next(queue), next(queue)])
        )


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
@pytest.mark.parametrize("short", ["pad", "tile"])
@pytest.mark.parametrize("gain", [0.0, 12.0])
def test_crops_as_one_by_one_with_the_same_numbers(monkeypatch, dtype, short, gain):
    crop = Crop(2000, random=True, short=short, gain=gain)
    recordings, indices, seeds = held(dtype), np.array([3, 0, 1, 2, 6, 5, 4, 7]), np.arange(8)
    batch = run(BatchCrops(crop), recordings, indices, seeds)
    assert batch["waveform"].dtype == torch.float32
    for row, index in enumerate(indices):
        Numbers(monkeypatch, uniforms(seeds[row : row + 1], 6)[0], None, [1])
        one = crop({"waveform": as_recording(recordings.waves[index], sample_rate=4000)})
        monkeypatch.undo()
        assert batch["length"][row] == one["length"]
        torch.testing.assert_close(batch["waveform"][row], one["waveform"], rtol=1e-6 if gain else 0, atol=0)


@pytest.mark.parametrize("short", ["pad", "tile"])
@pytest.mark.parametrize("share", [0.0, 0.6])
def test_views_as_one_by_one_with_the_same_numbers(monkeypatch, short, share):
    """Stretches end at the same samples. Where a clip is as long as the others, so do the bands."""
    crop = Crop(2000, random=True, short=short)
    views = configured(crop, gain=3.0, time_mask=0.5, frequency_mask=share)
    recordings, indices = held(), np.arange(8)
    seeds = np.arange(20, 28)
    batch = run(BatchCrops(crop, views=views, count=3), recordings, indices, seeds)
    assert len(batch["views"]) == 3
    assert batch["views"][0]["waveform"].equal(batch["waveform"])
    for number, view in enumerate(batch["views"]):
        for row, index in enumerate(indices):
            own = np.array([view_seed(int(seeds[row]), number)])
            order = [1, *([4, 5] if share else []), 2, 3]
            Numbers(monkeypatch, uniforms(own, 6)[0], None, order)
            one = views({"waveform": ArrayRecording(recordings.waves[index]), "labels": {}}, number)
            monkeypatch.undo()
            assert view["length"][row] == one["length"]
            got, expected = view["waveform"][row], one["waveform"]
            if share and one["length"] < 2000:
                assert bool((got[one["length"] :] == 0).all())
                assert torch.equal(got == 0, expected == 0)
                assert float((got - expected).square().mean()) < 0.05 * float(expected.square().mean()) + 1e-4
            else:
                torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_places_gains_and_masks_are_distributed_as_one_by_one():
    crop = Crop(100, random=True)
    views = configured(crop, gain=6.0, time_mask=0.4, frequency_mask=0.0)
    ramp = Held([np.arange(1, 111, dtype=np.float32)])
    seeds = np.arange(4000)
    batch = run(BatchCrops(Crop(100, random=True, gain=0)), ramp, np.zeros(4000, int), seeds)
    starts = (batch["waveform"][:, 0] - 1).long()
    frequencies = torch.bincount(starts, minlength=11) / 4000
    assert len(frequencies) == 11  # the last place, too
    assert (frequencies - 1 / 11).abs().max() < 0.02
    ones = Held([np.ones(100, dtype=np.float32)])
    batch = run(BatchCrops(crop, views=views), ones, np.zeros(4000, int), seeds)["waveform"]
    torch.manual_seed(0)
    others = torch.stack([views({"waveform": ArrayRecording(ones.waves[0])})["waveform"] for _ in range(4000)])
    levels = torch.linspace(0.02, 0.98, 25)
    decibels = [20 * wave.amax(1).log10() for wave in (batch, others)]
    assert torch.allclose(decibels[0].quantile(levels), -6 + 12 * levels, atol=0.5)
    silent = [(wave == 0).float().sum(1) for wave in (batch, others)]
    assert (silent[0].quantile(levels) - silent[1].quantile(levels)).abs().max() <= 2.0
    share = [(wave == 0).float().mean(0) for wave in (batch, others)]  # of clips that are silent at a moment
    assert (share[0] - share[1]).abs().max() < 0.05


def test_batches_follow_from_seed_epoch_and_sample():
    settings = {**SMALL, "samples": 64, "gain": 6.0}
    batch, again = first_batch(AudioData(**settings)), first_batch(AudioData(**settings, num_workers=1))
    assert isinstance(batch["id"], SampleIds)
    assert torch.equal(batch["waveform"], again["waveform"])
    assert list(batch["id"]) == again["id"]
    one_by_one = first_batch(AudioData(**settings, batched=False, num_workers=0))
    assert list(batch["id"]) == one_by_one["id"]
    assert torch.equal(batch["length"], one_by_one["length"])
    for key in ("waveform", "length"):
        assert batch[key].dtype == one_by_one[key].dtype
    for name, label in one_by_one["labels"].items():
        assert torch.equal(batch["labels"][name], label)
    # without gain, generated clips have no choice left: the same values
    plain = [first_batch(AudioData(**{**settings, "gain": 0.0}, batched=how, num_workers=0)) for how in (True, False)]
    assert torch.equal(plain[0]["waveform"], plain[1]["waveform"])
    views = [first_batch(AudioData(**settings, views=2, batched=how, num_workers=0))["views"] for how in (True, False)]
    assert [sorted(view) for view in views[0]] == [sorted(view) for view in views[1]] == [["length", "waveform"]] * 2
    assert [view["waveform"].shape for view in views[0]] == [(8, 2000)] * 2


def test_only_with_settings_that_a_batch_knows():
    class Faster(AudioViews):
        def __init__(self, speed):
            super().__init__()
            self.speed = speed

        def configure(self, data):
            super().configure(data)
            self.__class__ = AudioViews  # as a later version of that class

    for speed, known in [(0.0, True), (0.25, False)]:
        data = AudioData(**SMALL, samples=64, views=2, view_transform=Faster(speed))
        data.setup()
        assert (data.part("train").batched is not None) == known


def test_files_of_several_lengths(tmp_path):
    """Files in memory are cropped at once; with an unreadable one, or spectrograms from disk, one by one."""
    for number, length in enumerate(LENGTHS * 2):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        soundfile.write(tmp_path / "ab"[number % 2] / f"{number:02d}.wav", np.full(length, number / 32), 4000, "FLOAT")

    def made(**settings):
        data = AudioData(root=str(tmp_path), num_workers=0, **SMALL, **settings)
        data.setup()
        return data

    batch = first_batch(made())
    assert isinstance(batch["id"], SampleIds)
    for wave, length, name, label in zip(
        batch["waveform"], batch["length"], batch["id"], batch["labels"]["label"], strict=True
    ):
        number = int(name[-6:-4])
        assert int(length) == min(2000, LENGTHS[number % 8])
        assert bool((wave[:length] == number / 32).all())
        assert not wave[length:].any()
        assert int(label) == number % 2
    tiled = first_batch(made(short="tile"))
    assert tiled["length"].tolist() == [2000] * 8
    assert bool((tiled["waveform"] == tiled["waveform"][:, :1]).all())
    assert made(batched=False).part("train").batched is None
    assert made(cache=False).part("train").batched is None
    (tmp_path / "a" / "16.wav").write_bytes(b"RIFF")
    assert made(max_unreadable=0.5).part("train").batched is None
    with pytest.raises(DataError, match="expected data in memory, all readable, and the modality's own transforms"):
        made(max_unreadable=0.5, batched=True)
