"""Views of whole batches: the pixels of single views for the same draws, and their frequencies."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from jepa_lightning.data import DataError
from jepa_lightning.data.views import view_seed
from modalities.image import ImageData, ImageViews
from modalities.image.batch_views import BatchViews


def make(**settings):
    few = {"samples": 32, "batch_size": 16, "image_size": 32, "channels": 3, "num_workers": 0, "val_fraction": 0}
    return ImageData(**{**few, **settings})


def views_of(**settings):
    data = make(views=3, view_transform=ImageViews(**settings))
    data.setup()
    return data, data.part("train").batched


def first(data, epoch=0):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return next(iter(loader))


def test_a_view_is_the_crop_and_the_changes_that_were_drawn(monkeypatch):
    """Each view of each sample, made by `ImageViews` from the same draws: they differ by rounding alone."""
    data, batched = views_of(blur=[0.5, 1.0], solarise=0.5, global_size=24, local_views=1, local_size=16)
    assert isinstance(batched, BatchViews)
    images = torch.from_numpy(data.part("train").dataset.images[:8])
    drawn = batched.draw(np.arange(8))
    found = batched({"image": images}, drawn)["views"]
    assert [tuple(view["image"].shape) for view in found] == [(8, 3, 24, 24), (8, 3, 24, 24), (8, 3, 16, 16)]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in data.statistics())
    transform = data.training_transform
    from modalities.image import transforms

    for view in range(3):
        for b in range(8):
            one = {name: values[b, view] for name, values in drawn.items()}
            monkeypatch.setattr(transforms, "random_box", lambda *_, one=one, **__: tuple(one["boxes"].tolist()))
            monkeypatch.setattr(torch, "rand", lambda *_, one=one: 0.0 if one["flip"] else 1.0)
            monkeypatch.setattr(transform, "_happens", lambda name, _, one=one: bool(one[name]))
            factors = one["factors"].tolist()
            monkeypatch.setattr(
                transform, "colours", lambda x, one=one, f=factors: changed(x, one["order"].tolist(), f)
            )
            monkeypatch.setattr(torch.Tensor, "uniform_", lambda *_, one=one: float(one["sigma"]))
            expected = transform({"image": images[b].numpy()}, view)["image"].float()
            error = (found[view]["image"][b] * std + mean) * 255 - expected
            assert error.abs().mean() < 4, (view, b)  # each of up to seven changes of bytes cuts the fraction off


def changed(pixels, order, factors):
    from torchvision.transforms.v2 import functional as one

    kinds = (one.adjust_brightness, one.adjust_contrast, one.adjust_saturation, one.adjust_hue)
    for kind in order:
        pixels = kinds[kind](pixels, factors[kind])
    return pixels


def test_draws_follow_from_seed_and_view_alone():
    _, batched = views_of()
    drawn, again = batched.draw(np.arange(6)), batched.draw(np.array([3, 99]))
    for name, values in drawn.items():
        assert values.shape[:2] == (6, 3)
        assert torch.equal(values[3], again[name][0])
    alone = batched.draw(np.array([view_seed(4, 2)]))
    assert torch.equal(drawn["boxes"][4, 2], alone["boxes"][0, 0])


def test_how_often_and_how_much():
    _, batched = views_of(jitter=[0.8, 0.3], grey=0.2, blur=0.0, solarise=[0.0, 0.1], hue=0.1, brightness=0.4)
    drawn = batched.draw(np.arange(4000))
    for name, chances in {"flip": [0.5] * 3, "jitter": [0.8, 0.3, 0.3], "grey": [0.2] * 3, "blur": [0] * 3}.items():
        assert (drawn[name].float().mean(0) - torch.tensor(chances)).abs().max() < 0.03
    low, high = drawn["factors"].amin((0, 1)), drawn["factors"].amax((0, 1))
    torch.testing.assert_close(low, torch.tensor([0.6, 0.6, 0.8, -0.1]), atol=0.01, rtol=0)
    torch.testing.assert_close(high, torch.tensor([1.4, 1.4, 1.2, 0.1]), atol=0.01, rtol=0)
    assert drawn["order"].sort(-1).values.equal(torch.arange(4).expand(4000, 3, 4))
    assert len({tuple(order) for order in drawn["order"][:, 0].tolist()}) == 24
    assert (drawn["sigma"] >= 0.1).all()
    assert (drawn["sigma"] <= 2.0).all()


def test_a_batch_with_views():
    batch = first(make(views=2))
    assert batch["views"][0]["image"] is batch["image"]
    assert [sorted(view) for view in batch["views"]] == [["image"], ["image"]]
    assert not torch.equal(batch["image"], batch["views"][1]["image"])
    assert "views" not in first(make(view_transform=ImageViews()))
    one_by_one = first(make(views=2, batched=False))
    assert list(batch["id"]) == one_by_one["id"]
    both = torch.stack([batch["views"][1]["image"], one_by_one["views"][1]["image"]]).flatten(1)
    assert (both.mean(1)[0] - both.mean(1)[1]).abs() < 0.15
    assert (both.std(1)[0] / both.std(1)[1] - 1).abs() < 0.15
    again = first(make(views=2, num_workers=1))
    assert torch.equal(batch["views"][1]["image"], again["views"][1]["image"])
    assert not torch.equal(batch["image"], first(make(views=2), epoch=1)["image"])


def test_grey_images_and_other_transforms():
    assert first(make(channels=1, views=2))["views"][1]["image"].shape == (16, 1, 32, 32)

    class Own(ImageViews):
        pass

    data = make(views=2, view_transform=Own())
    data.setup()
    assert data.part("train").batched is None
    with pytest.raises(DataError, match="the modality's own transforms for batched: true"):
        make(views=2, view_transform=Own(), batched=True).setup()


def test_views_of_one_size_are_made_together_as_each_by_itself(monkeypatch):
    data, batched = views_of(blur=[0.0, 1.0], solarise=0.5, global_size=24, local_views=2, local_size=16)
    images = torch.from_numpy(data.part("train").dataset.images[:8])
    drawn = batched.draw(np.arange(8))
    calls = []
    make = batched._make
    monkeypatch.setattr(batched, "_make", lambda *given: calls.append(given[2]) or make(*given))
    together = batched({"image": images}, drawn)["views"]
    monkeypatch.setattr("modalities.image.batch_views._TOGETHER", 1)
    apart = batched({"image": images}, drawn)["views"]
    assert calls == [[0], [1, 2], [0], [1], [2]]
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one["image"], other["image"], rtol=0, atol=1e-4)


class Launched(TorchDispatchMode):
    """Counts operations."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_two_views_launch_little_more_than_one_on_a_device():
    """`meta` stands for a GPU, where small operations cost what it takes to launch them."""
    counts = []
    for views in (2, 1):
        data = make(views=2, view_transform=ImageViews(blur=0.5))
        data.setup()
        batched = data.part("train").batched
        drawn = {name: values.to("meta") for name, values in batched.draw(np.arange(8)).items()}
        batched.views.views = views
        with Launched() as launched:
            batched({"image": torch.empty(8, 32, 32, 3, dtype=torch.uint8, device="meta")}, drawn)
        counts.append(launched.count)
    assert counts[0] < 1.1 * counts[1]
