"""Whole training batches at once: the same as one by one, wherever they are finished."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from jepa_lightning.data import DataError
from jepa_lightning.data.batched import DRAWS, SampleIds
from jepa_lightning.data.cache import MemoryCache
from jepa_lightning.randomness import uniforms
from modalities.image import ImageData
from modalities.image.transforms import BatchCrops, Normalise, RandomCrop


def first_batch(data):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(3)
    return next(iter(loader))


@pytest.mark.parametrize("flip", [False, True])
def test_as_the_samples_one_by_one(monkeypatch, flip):
    """With the same numbers drawn, a batch differs from Pillow's crops by their rounding alone."""
    data = ImageData(samples=24, batch_size=24, image_size=32, channels=3, val_fraction=0, flip=flip)
    data.setup()
    images = data.part("train").dataset.images
    crop = RandomCrop((32, 32), channels=3, flip=flip)
    normalise = Normalise(*data.statistics())
    batched = BatchCrops(crop, normalise, (32, 32))
    seeds = np.arange(24)
    drawn = uniforms(seeds, 23)
    batch = batched({"image": torch.from_numpy(images)}, batched.draw(seeds))
    for number, image in enumerate(images):
        draws = iter([torch.from_numpy(drawn[number, 1:]), torch.tensor(drawn[number, 0])])
        monkeypatch.setattr(torch, "rand", lambda *_, draws=draws: next(draws))
        one = normalise({"image": crop({"image": image})["image"][None]})["image"][0]
        error = (batch["image"][number] - one).abs() * torch.tensor(data.statistics()[1]).view(3, 1, 1)
        assert error.mean() < 0.5 / 255
        assert error.max() < 2.5 / 255


def test_batches_follow_from_seed_epoch_and_sample():
    def make(**settings):
        return ImageData(samples=64, batch_size=16, image_size=32, channels=3, **settings)

    batch, again = first_batch(make()), first_batch(make(num_workers=1))
    assert torch.equal(batch["image"], again["image"])
    assert list(batch["id"]) == again["id"]
    assert batch["image"].shape == (16, 3, 32, 32)
    assert batch["image"].dtype == torch.float32
    one_by_one = first_batch(make(batched=False))
    assert list(batch["id"]) == one_by_one["id"]
    for name, label in one_by_one["labels"].items():
        assert torch.equal(batch["labels"][name], label)
        assert batch["labels"][name].dtype == label.dtype
    both = torch.stack([batch["image"], one_by_one["image"]]).flatten(1)
    assert (both.mean(1)[0] - both.mean(1)[1]).abs() < 0.1  # other crops of the same images
    assert (both.std(1)[0] / both.std(1)[1] - 1).abs() < 0.1


def test_a_trainer_finishes_batches_after_the_transfer(make_trainer, make_jepa, make_data):
    seen = []

    class Watching(ImageData):
        def transfer_batch_to_device(self, batch, device, dataloader_idx):
            seen.append((DRAWS in batch, batch["image"].dtype))
            return super().transfer_batch_to_device(batch, device, dataloader_idx)

    jepa = make_jepa()
    trained = []
    step = jepa.training_step
    jepa.training_step = lambda batch, *rest: trained.append(batch["image"].dtype) or step(batch, *rest)
    data = Watching(samples=48, batch_size=16, image_size=32, channels=3, num_workers=0, val_fraction=0)
    make_trainer(max_steps=2, limit_val_batches=0).fit(jepa, datamodule=data)
    assert seen[:2] == [(True, torch.uint8)] * 2
    assert trained == [torch.float32] * 2


def test_only_where_our_transforms_are_all():
    def batched(data):
        data.setup()
        return data.part("train").batched

    class Own(ImageData):
        def transforms(self):
            random, central = super().transforms()
            return lambda sample: random(sample), central

    small = {"samples": 40, "image_size": 32, "channels": 3, "batch_size": 8}
    assert batched(ImageData(**small)) is not None
    assert batched(Own(**small)) is None
    assert batched(ImageData(views=2, **small)) is not None
    assert batched(ImageData(batched=False, **small)) is None
    assert ImageData(**small).train_dataloader().num_workers == 0
    with pytest.raises(DataError, match="expected data in memory, uint8 and of one size, and the modality"):
        batched(Own(batched=True, **small))


def test_files_in_memory(tmp_path):
    """Of one size, they are taken at once; of two, one by one; an unreadable one is met as before."""
    from PIL import Image

    for number in range(12):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        picture = Image.fromarray(np.full((24, 24, 3), number * 20, np.uint8))
        picture.save(tmp_path / "ab"[number % 2] / f"{number:02d}.png")
    settings = {"root": str(tmp_path), "image_size": 24, "channels": 3, "batch_size": 6, "num_workers": 0}
    batch = first_batch(ImageData(val_fraction=0, **settings))
    assert isinstance(batch["id"], SampleIds)
    of_255 = batch["image"] * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    of_255 = ((of_255 + torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) * 255).round()
    numbers = [int(name[-6:-4]) for name in batch["id"]]
    assert of_255[:, 0, 12, 12].tolist() == [number * 20 for number in numbers]
    assert batch["labels"]["label"].tolist() == [number % 2 for number in numbers]
    Image.new("RGB", (30, 24)).save(tmp_path / "a" / "other.png")
    assert isinstance(first_batch(ImageData(val_fraction=0, **settings))["id"], list)


def test_memory_cache_takes_many():
    arrays = np.arange(2100 * 6, dtype=np.int32).reshape(2100, 2, 3)
    cache = MemoryCache(2100, lambda index: arrays[index])
    places = np.array([2050, 0, 1023, 1024, 3, 3])
    assert cache.shape == (2, 3)
    assert np.array_equal(cache.take(places), arrays[places])
    uneven = MemoryCache(3, lambda index: arrays[index][:, : index + 1])
    assert uneven.shape is None
    with pytest.raises(ValueError, match="expected arrays of one shape"):
        uneven.take(places[:1])


def test_names_are_made_when_asked_for():
    asked = []
    ids = SampleIds(lambda index: asked.append(index) or f"n{index}", np.array([4, 7, 9]))
    batch = next(iter(DataLoader([{"a": torch.zeros(1), "id": ids}], collate_fn=lambda batch: batch[0])))
    assert len(batch["id"]) == 3
    assert not asked
    assert ids[1] == "n7"
    assert ids[1:] == ["n7", "n9"]
    assert list(ids) == ["n4", "n7", "n9"]


@pytest.mark.parametrize("flip", [False, True])
def test_clips_as_one_by_one(monkeypatch, flip):
    """With the same numbers drawn: the same frames; pixels differ by the rounding of boxes to whole pixels alone."""
    pytest.importorskip("av")
    from modalities.video import VideoData
    from modalities.video.transforms import BatchClips

    settings = {"samples": 16, "frames": 4, "stride": 2, "image_size": 32, "channels": 3, "crop_scale": (1.0, 1.0)}
    data = VideoData(batch_size=12, val_fraction=0, num_workers=0, flip=flip, batched=True, **settings)
    data.setup()
    videos = np.random.default_rng(0).integers(0, 256, (12, 11, 32, 32, 3), dtype=np.uint8)
    one = data.training_transform
    batched = BatchClips(one, (11, 32, 32))
    seeds = np.arange(12)
    drawn = uniforms(seeds, 24)
    batch = batched({"video": torch.from_numpy(videos)}, batched.draw(seeds))
    assert batch["video"].shape == (12, 3, 4, 32, 32)
    for number, video in enumerate(videos):
        draws = iter(torch.tensor([drawn[number, 1], drawn[number, 0]]))
        monkeypatch.setattr(torch, "rand", lambda *_, draws=draws: next(draws))
        assert torch.equal(batch["video"][number], one({"video": video})["video"])
    monkeypatch.undo()
    assert isinstance(data.part("train").batched, BatchClips)
    both = [VideoData(batch_size=12, val_fraction=0, num_workers=0, batched=how, **settings) for how in (True, False)]
    batch, one_by_one = map(first_batch, both)
    assert batch["video"].shape == one_by_one["video"].shape
    assert batch["video"].dtype == one_by_one["video"].dtype == torch.uint8
    assert list(batch["id"]) == one_by_one["id"]
    slow = VideoData(batch_size=12, val_fraction=0, num_workers=0, **{**settings, "stride": 20})
    slow.setup()
    assert slow.part("train").batched is None  # clips that are played again
