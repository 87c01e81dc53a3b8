"""Training data on the device that trains: the same batches, steps and places as from the loader."""

import copy
import pickle

import numpy as np
import pytest
import soundfile
import torch

from jepa_lightning.data import DataError, on_device
from jepa_lightning.data.batched import HELD
from jepa_lightning.data.on_device import OnDevice, bytes_of, fits
from modalities.audio import AudioData
from modalities.audio.generated import GeneratedAudio
from modalities.image import ImageData
from modalities.image.generated import GeneratedImages
from modalities.pointcloud import PointCloudData

CPU = torch.device("cpu")
IMAGES = {"samples": 80, "batch_size": 16, "image_size": 32, "channels": 3}
KINDS = {
    "images": lambda **settings: ImageData(**IMAGES, **settings),
    "views": lambda **settings: ImageData(**IMAGES, views=2, **settings),
    "clouds": lambda **settings: PointCloudData(
        samples=80, batch_size=16, points=32, features=3, normals=True, dropout=0.5, jitter=0.1, **settings
    ),
    "audio": lambda **settings: AudioData(
        samples=80, batch_size=16, seconds=0.5, sample_rate=4000, gain=6.0, views=2, **settings
    ),
}


def trained_on(data, fit, *, epochs=2, **settings):
    """The batches that a run's steps were given."""
    seen, moved = [], []
    on_after = data.on_after_batch_transfer

    def watch(batch, index):
        moved.append(HELD in batch)
        done = on_after(batch, index)
        seen.append({**done, "id": list(done["id"])})
        return done

    data.on_after_batch_transfer = watch
    fit(data, max_epochs=epochs, limit_val_batches=0, num_sanity_val_steps=0, **settings)
    return seen, moved


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other) and one.dtype == other.dtype
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.fixture
def fit(make_trainer):
    from lightning.pytorch import Callback, LightningModule

    class Nothing(LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def training_step(self, batch, index):
            return self.weight * 0

        def configure_optimizers(self):
            return torch.optim.SGD([self.weight], lr=0.1)

    class Saves(Callback):
        def __init__(self, file):
            self.file = file

        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 6:
                trainer.save_checkpoint(self.file)

    def run(data, *, ckpt_path=None, save=None, **settings):
        trainer = make_trainer(*([Saves(save)] if save else []), **settings)
        trainer.fit(Nothing(), datamodule=data, ckpt_path=ckpt_path)

    return run


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [0, 1])
def test_the_same_batches_as_from_the_loader(kind, workers, fit):
    held, moved = trained_on(KINDS[kind](on_device=True, num_workers=workers), fit)
    plain, loaded = trained_on(KINDS[kind](on_device=False, num_workers=0), fit)
    assert all(moved)
    assert not any(loaded)
    assert len(held) == len(plain) == 10
    assert same(held, plain)


def test_recordings_of_several_lengths(tmp_path, fit):
    rng = np.random.default_rng(0)
    for number, length in enumerate([3000, 700, 2000, 5000, 1, 2001] * 3):
        soundfile.write(tmp_path / f"{number:02d}.wav", rng.normal(0, 0.1, length), 4000, "FLOAT")
    settings = {"root": str(tmp_path), "batch_size": 4, "seconds": 0.5, "sample_rate": 4000, "val_fraction": 0}
    for short in ("pad", "tile"):
        held, plain = (
            trained_on(AudioData(**settings, short=short, gain=3.0, num_workers=0, on_device=how), fit)[0]
            for how in (True, False)
        )
        assert same(held, plain)


def test_resuming_in_an_epoch(tmp_path, fit):
    whole, _ = trained_on(KINDS["images"](on_device=True), fit)
    trained_on(KINDS["images"](on_device=True), fit, save=tmp_path / "a.ckpt")
    rest, _ = trained_on(KINDS["images"](on_device=True), fit, ckpt_path=tmp_path / "a.ckpt")
    assert same(rest, whole[6:])


def test_ranks_share_the_samples_out():
    from jepa_lightning.data.sampler import EpochSampler

    data = KINDS["images"]()
    data.setup()
    train = data.part("train")
    shares = [list(EpochSampler(train, ranks=2, rank=rank)) for rank in range(2)]
    plain = [train.__getitems__(share[:16])["image"] for share in shares]
    train.hold(CPU)
    for share, images in zip(shares, plain, strict=True):
        batch = train.__getitems__(share[:16])
        assert torch.equal(train.held.gather(batch[HELD]), images)
        assert list(batch["id"]) == [train.sample_id(int(train.indices[draw.position])) for draw in share[:16]]
    train.hold(None)
    assert "image" in train.__getitems__(shares[0][:4])


def test_rows_and_parts_by_plain_loops():
    rng = np.random.default_rng(0)
    images = GeneratedImages(600, image_size=16)
    indices = rng.permutation(600)[:550]
    held = OnDevice(images, indices, CPU)
    rows = rng.integers(550, size=40)
    found = held.take(rows)
    assert held.key == "image"
    assert held.nbytes == bytes_of(images, indices) == 550 * 16 * 16 * 3
    for row, image, label in zip(rows, held.gather(found[HELD]), found["labels"]["stripes"], strict=True):
        assert np.array_equal(image, images.images[indices[row]])
        assert label == images.targets[indices[row]]
    notes = GeneratedAudio(40, seconds=0.5, sample_rate=4000)
    held = OnDevice(notes, np.arange(5, 40), CPU)
    starts, counts = rng.integers(1900, size=(6, 2)), rng.integers(1, 100, size=6)
    found = held.take_parts(np.arange(6), starts, counts, 100)
    clips = held.gather(found[HELD])
    assert clips.dtype == torch.int16
    first = torch.from_numpy(starts + 2000 * np.arange(6)[:, None])
    assert torch.equal(held._by_index(first, torch.from_numpy(counts), 100), clips)  # as on a GPU
    last = torch.tensor([[34 * 2000 + 1999], [34 * 2000]])  # near the end, and of more than the longest
    for size, counts_of in ((1500, [1, 1500]), (2600, [1, 2000])):
        parts = held._by_index(last, torch.tensor(counts_of), size)
        assert parts.shape == (2, 1, size)
        for part, count in zip(parts[:, 0], counts_of, strict=True):
            assert np.array_equal(
                part[:count], notes.waveforms[39, 2000 - count :] if count == 1 else notes.waveforms[39, :count]
            )
            assert not part[count:].any()
    for row, (begins, count) in enumerate(zip(starts, counts, strict=True)):
        for view, begin in enumerate(begins):
            assert np.array_equal(clips[row, view, :count], notes.waveforms[5 + row, begin : begin + count])
            assert not clips[row, view, count:].any()
    whole = held.gather(held.take_parts(np.array([30, 2]), np.zeros((2, 1), int), np.full(2, 2000), 2000)[HELD])
    assert np.array_equal(whole[:, 0], notes.waveforms[[35, 7]])
    assert held.nbytes == bytes_of(notes, np.arange(5, 40)) == 35 * 2000 * 2
    other = pickle.loads(pickle.dumps(held))  # as a worker gets it
    assert same(other.take_parts(np.arange(6), starts, counts, 100), found)


def test_what_does_not_fit_is_refused(monkeypatch, fit):
    images = GeneratedImages(100, image_size=16)
    indices, card = np.arange(100), torch.device("cuda")
    bytes_taken = 100 * 16 * 16 * 3
    assert not fits(images, indices, CPU, asked=False)  # they lie there already
    for free, asked, fine in [(8, False, True), (7.9, False, False), (2, True, True)]:
        monkeypatch.setattr(on_device, "room_on", lambda device, free=free: int(free * bytes_taken))
        assert fits(images, indices, card, asked=asked) == fine
    monkeypatch.setattr(on_device, "room_on", lambda device: None)
    assert fits(images, indices, torch.device("mps"), asked=True)
    monkeypatch.setattr(on_device, "room_on", lambda device: 100_000)
    with pytest.raises(DataError, match=r"expected training data of at most half of the 0\.00 GB that are free on cpu"):
        fit(KINDS["images"](on_device=True), max_steps=1)


def test_room_is_known():
    free = on_device.room_on(CPU)
    assert free is None or 2**20 < free < 2**50


def test_only_where_whole_batches_are_taken():
    class Own(ImageData):
        def transforms(self):
            random, central = super().transforms()
            return lambda sample: random(sample), central

    with pytest.raises(DataError, match="own transforms for on_device: true: leave it out, or set on_device to false"):
        Own(**IMAGES, on_device=True).setup()
    with pytest.raises(DataError, match="and batched not false, for on_device: true"):
        ImageData(**IMAGES, batched=False, on_device=True).setup()


def test_nothing_is_left_on_the_device_after_a_run(fit):
    data = KINDS["images"](on_device=True)
    trained_on(data, fit)
    assert data.part("train").held is None
    assert next(iter(data.train_dataloader()))["image"].shape == (16, 3, 32, 32)
    copy.deepcopy(data)
