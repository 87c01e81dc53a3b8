"""A batch transform on the device that trains: the same batches, and what travels there is as it was read."""

from collections import Counter

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import IterableDataset

from benchmarks.syncs import cuda_waits
from jepa_lightning.data import loaders
from jepa_lightning.data.batched import DRAWS, HELD
from jepa_lightning.data.trajectories import TrajectoryData
from jepa_lightning.environments import TwoRooms
from modalities.audio import AudioData
from modalities.image import ImageData
from modalities.pointcloud import PointCloudData
from modalities.video import VideoData

IMAGES = {"samples": 48, "batch_size": 16, "image_size": 32, "channels": 3, "batched": False, "val_fraction": 0.25}


def run(data, make_trainer, *, epochs=2):
    """The batches of a run: what travelled, what was trained on, what was validated on."""
    from lightning.pytorch import LightningModule

    travelled, trained, validated = [], [], []

    class Nothing(LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def training_step(self, batch, index):
            trained.append(batch)
            return self.weight * 0

        def validation_step(self, batch, index):
            validated.append(batch)

        def configure_optimizers(self):
            return torch.optim.SGD([self.weight], lr=0.1)

    move = data.transfer_batch_to_device

    def watch(batch, device, index):
        travelled.append(dict(batch))
        return move(batch, device, index)

    data.transfer_batch_to_device = watch
    make_trainer(max_epochs=epochs, num_sanity_val_steps=0).fit(Nothing(), datamodule=data)
    return travelled, trained, validated


KINDS = {
    "images": ("image", lambda: ImageData(**IMAGES, num_workers=0)),
    "images, a worker": ("image", lambda: ImageData(**IMAGES, num_workers=1)),
    "views": ("image", lambda: ImageData(**IMAGES, num_workers=0, views=3)),
    "frames": (
        "image",
        lambda: TrajectoryData(
            key="image", environment=TwoRooms(image_size=32), episodes=20, window=4, batch_size=8, num_workers=0
        ),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_batches(kind, make_trainer, monkeypatch):
    key, make = KINDS[kind]
    plain = run(make(), make_trainer)
    monkeypatch.setattr(loaders, "DEVICES", {"cpu"})
    later = run(make(), make_trainer)
    assert any(DRAWS in batch for batch in later[0])
    assert not any(DRAWS in batch for batch in plain[0])
    for one, other in zip(plain[0], later[0], strict=True):
        assert one[key].dtype == torch.float32
        assert other[key].dtype == (torch.uint8 if DRAWS in other else torch.float32)
    assert len(plain[1]) == len(later[1]) > 2
    assert len(plain[2]) == len(later[2]) > 0
    for one, other in zip(plain[1] + plain[2], later[1] + later[2], strict=True):
        assert one.keys() == other.keys()
        assert torch.equal(one[key], other[key])
        assert list(one["id"]) == list(other["id"])
        for view, again in zip(one.get("views", ()), other.get("views", ()), strict=True):
            assert view.keys() == again.keys()
            assert torch.equal(view[key], again[key])
    assert all(batch["views"][0][key] is batch[key] for batch in later[1] if "views" in batch)


class Flags(IterableDataset):
    """The same 32 images for every process."""

    def __iter__(self):
        for number in range(32):
            yield {"image": np.full((32, 32, 3), 5 * number, np.uint8), "id": str(number)}


def test_images_that_stream(make_trainer, monkeypatch):
    def make():
        return ImageData(dataset=Flags(), image_size=32, channels=3, batch_size=8, num_workers=0, epoch_samples=32)

    plain = run(make(), make_trainer, epochs=1)[1]
    monkeypatch.setattr(loaders, "DEVICES", {"cpu"})
    travelled, later, _ = run(make(), make_trainer, epochs=1)
    assert all(batch["image"].dtype == torch.uint8 for batch in travelled)
    assert len(plain) == len(later) == 4
    assert all(torch.equal(one["image"], other["image"]) for one, other in zip(plain, later, strict=True))


def test_outside_a_run_batches_are_whole(monkeypatch):
    monkeypatch.setattr(loaders, "DEVICES", {"cpu"})
    batch = next(iter(ImageData(**IMAGES, num_workers=0).train_dataloader()))
    assert DRAWS not in batch
    assert batch["image"].dtype == torch.float32


class Copies(TorchFunctionMode):
    """Refuses what makes a CPU wait for a GPU: copies of tensors to the device. `meta` stands for the GPU."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if func is torch.Tensor.to and args[0].device.type == "cpu" and found.device.type == "meta":
            raise AssertionError("a tensor is copied to the device")
        return found


class Mixed(TorchDispatchMode):
    """Refuses operations on the device that read values, which Python would have to wait for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket.__name__ not in ("nonzero", "masked_select", "_local_scalar_dense", "is_nonzero")
        return func(*args, **(kwargs or {}))


def there(value):
    """What a batch is after its transfer."""
    if isinstance(value, torch.Tensor):
        return value.to("meta")
    return {name: there(each) for name, each in value.items()} if isinstance(value, dict) else value


BATCHED = {
    "images": lambda: ImageData(**{**IMAGES, "batched": True}, flip=True),
    "views": lambda: ImageData(**{**IMAGES, "batched": True}, views=2),
    "clips": lambda: VideoData(samples=16, batch_size=8, batched=True, frames=8, image_size=32, channels=3),
    "clouds": lambda: PointCloudData(
        samples=32, batch_size=8, points=32, features=3, normals=True, dropout=0.5, jitter=0.1, views=2
    ),
    "audio": lambda: AudioData(samples=32, batch_size=8, seconds=0.5, sample_rate=4000, gain=6.0, views=2),
}


@pytest.mark.parametrize("kind", BATCHED)
def test_whole_batches_are_augmented_without_a_wait(kind):
    data = BATCHED[kind]()
    data.setup()
    train = data.part("train")
    assert train.batched is not None
    for step in range(2):  # at the first one constants may move there
        batch = train.__getitems__([(i, i) for i in range(8)])
        assert HELD not in batch
        batch = there({name: value for name, value in batch.items() if name != "id"})
        draws = batch.pop(DRAWS)
        with Mixed(), Copies() if step else torch.no_grad():
            done = train.batched(batch, draws)
        assert done[data.name].device.type == "meta"


class Waits(Callback):
    """Counts what a run's steps wait for, from the second batch on to the last but one."""

    def __init__(self, last):
        self.last, self.waits, self.counting = last, Counter(), None

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 3:
            self.counting = cuda_waits(self.waits)
            self.counting.__enter__()
        elif trainer.global_step == self.last:
            self.counting.__exit__(None, None, None)


@pytest.mark.gpu
@pytest.mark.parametrize("batched", [True, False])
def test_a_run_on_a_gpu_waits_for_nothing(batched, make_jepa, make_trainer):
    """Of what torch sees in fetching, augmentation, step and update: of whole batches that lie there, and of others."""
    data = ImageData(samples=16 * 12, batch_size=16, image_size=32, channels=3, val_fraction=0, batched=batched)
    waits = Waits(last=9)
    trainer = make_trainer(waits, max_steps=12, limit_val_batches=0, accelerator="gpu", precision="bf16-mixed")
    trainer.fit(make_jepa(), datamodule=data)
    assert data.part("train").held is None  # let go of at the end
    assert not waits.waits
