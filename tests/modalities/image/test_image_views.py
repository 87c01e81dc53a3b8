"""Views of images: what each augmentation does and how often, sizes of local views, and values that do not fit."""

import io
import tarfile
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from scipy.ndimage import correlate1d
from torch.utils.data import TensorDataset
from view_checks import check_views

from jepa_lightning.data import DataError, Shards, ShardStream
from jepa_lightning.data.pixels import blurred
from modalities.image import ImageData, ImageViews

OFF = {"jitter": 0.0, "grey": 0.0, "blur": 0.0, "solarise": 0.0, "flip": False}
WHOLE = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
COUNT = 400


def make(**settings):
    few = {"samples": 32, "batch_size": 8, "image_size": 32, "channels": 3, "num_workers": 0}
    return ImageData(**{**few, **settings})


def ready(*, size=32, channels=3, views=2, **settings):
    data = make(image_size=size, channels=channels, views=views, view_transform=ImageViews(**settings))
    data.setup()
    return data.training_transform


def seen(transform, image, view=0, count=COUNT):
    torch.manual_seed(0)
    return torch.stack([transform({"image": image}, view)["image"] for _ in range(count)])


def noise(size=32, channels=3):
    values = torch.randint(0, 256, (channels, size, size), generator=torch.Generator().manual_seed(1))
    return values.to(torch.uint8)


def share(changed):
    return float(changed.float().mean())


def test_views_are_draws_of_one_pipeline():
    batch = check_views(partial(make, batched=False))
    assert isinstance(make(views=2).viewing, ImageViews)
    assert batch["image"].shape == (8, 3, 32, 32)


def test_one_view_without_a_transform_is_the_crop_alone():
    assert make().viewing is None
    ours, plain = (next(iter(make(**s).train_dataloader()))["image"] for s in ({}, {"views": 1}))
    assert torch.equal(ours, plain)


def test_nothing_on_is_nothing_done():
    assert torch.equal(ready(**OFF, **WHOLE)({"image": noise()})["image"], noise())


def test_flip():
    found = seen(ready(**{**OFF, "flip": True}, **WHOLE), noise())
    flipped = (found == noise().flip(-1)).flatten(1).all(1)
    assert torch.equal(flipped, ~(found == noise()).flatten(1).all(1))
    assert share(flipped) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("dtype", ["uint8", "float"])
def test_solarise(dtype):
    image = noise() if dtype == "uint8" else noise() / 255
    found = seen(ready(**{**OFF, "solarise": 0.3}, **WHOLE), image)
    top = 255 if dtype == "uint8" else 1.0
    expected = torch.where(image < (128 if dtype == "uint8" else 0.5), image, top - image)
    done = torch.tensor([torch.allclose(x.float(), expected.float(), atol=1e-6) for x in found])
    assert share(done) == pytest.approx(0.3, abs=0.08)
    assert share((found.float() - image.float()).abs().amax((1, 2, 3)) < 1e-6) == pytest.approx(1 - share(done))


def test_grey():
    found = seen(ready(**{**OFF, "grey": 0.25}, **WHOLE), noise())
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    luma = (noise() * weights).sum(0, keepdim=True).expand(3, -1, -1)
    done = (found.float() - luma).abs().amax((1, 2, 3)) < 1.1  # torchvision cuts fractions off
    assert share(done) == pytest.approx(0.25, abs=0.08)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_colour_jitter_blends_by_a_uniform_factor(name):
    image = noise() // 3 + 80  # so that nothing is clipped
    greatest = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, name: 0.4}
    found = seen(ready(**{**OFF, "jitter": 1.0}, **WHOLE, **greatest), image).float()
    grey = (image * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0, keepdim=True)
    other = {"brightness": torch.zeros(()), "contrast": grey.mean(), "saturation": grey}[name].expand(3, 32, 32)
    away = image.float() - other
    factors = ((found - other) * away).sum((1, 2, 3)) / away.square().sum()
    assert torch.allclose(other + factors.view(-1, 1, 1, 1) * away, found, atol=1.6)
    assert 0.59 < factors.min() < 0.63
    assert 1.37 < factors.max() < 1.41
    assert float(factors.mean()) == pytest.approx(1.0, abs=0.04)


def test_hue_turns_at_most_a_tenth_and_leaves_grey_alone():
    transform = ready(**{**OFF, "jitter": 1.0}, **WHOLE, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.1)
    red = torch.tensor([200, 40, 40], dtype=torch.uint8).view(3, 1, 1).expand(3, 32, 32)
    found = seen(transform, red.contiguous())[:, :, 0, 0]
    turned = torch.tensor(
        [PILImage.new("RGB", (1, 1), tuple(c.tolist())).convert("HSV").getpixel((0, 0))[0] for c in found]
    )
    turned = (turned + 128) % 256 - 128
    assert turned.min() < -22
    assert turned.max() > 22
    assert turned.abs().max() <= 27
    grey = torch.full((3, 32, 32), 90, dtype=torch.uint8)
    assert (seen(transform, grey, count=20).int() - 90).abs().max() <= 1


@pytest.mark.long
def test_how_often_a_chance_each_view():
    transform = ready(**{**OFF, "blur": [1.0, 0.1], "solarise": [0.0, 0.2]}, **WHOLE, views=3, sigma=(1.0, 2.0))
    blurs = [share((seen(transform, noise() // 2, v) != noise() // 2).flatten(1).any(1)) for v in range(3)]
    assert blurs == [1.0, pytest.approx(0.1, abs=0.05), pytest.approx(0.1, abs=0.05)]
    ramp = torch.full((3, 32, 32), 200, dtype=torch.uint8)  # which no blur changes
    solar = [share((seen(transform, ramp, v) == 55).flatten(1).all(1)) for v in range(3)]
    assert solar == [0.0, pytest.approx(0.2, abs=0.06), pytest.approx(0.2, abs=0.06)]


@pytest.mark.parametrize(("size", "sigma"), [(32, 0.7), (64, 2.0), (225, 1.3)])
def test_blur_against_loops(size, sigma):
    image = noise(size)
    radius = max(3, size // 10 | 1) // 2
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    expected = image.numpy().astype(float)
    for axis in (1, 2):
        expected = correlate1d(expected, kernel, axis=axis, mode="mirror")
    assert np.abs(blurred(image / 1.0, sigma).numpy() - expected).max() < 1e-3
    assert np.abs(blurred(image, sigma).numpy().astype(float) - expected).max() <= 0.501
    assert torch.equal(blurred(image[:, :1, :1], sigma), image[:, :1, :1])


def test_global_and_local_crops():
    """Of an image whose colours say where they lie."""
    place = torch.linspace(0, 1, 128)
    image = torch.stack([place.expand(128, 128), place[:, None].expand(128, 128)])
    settings = {**OFF, "scale": (0.3, 1.0), "local_views": 2, "local_size": (16, 24), "local_scale": (0.05, 0.3)}
    transform = ready(size=32, channels=2, views=4, **settings, ratio=(3 / 4, 4 / 3))
    for view, (size, low, high) in enumerate([((32, 32), 0.3, 1.0)] * 2 + [((16, 24), 0.05, 0.3)] * 2):
        found = seen(transform, image, view)
        assert found.shape[2:] == size
        width = (found[:, 0].amax((1, 2)) - found[:, 0].amin((1, 2))) * (1 + 1 / size[1])
        height = (found[:, 1].amax((1, 2)) - found[:, 1].amin((1, 2))) * (1 + 1 / size[0])
        area = width * height
        assert low * 0.8 < area.min() < low * 1.35
        assert high * 0.8 < area.max() < high * 1.1
        assert float(area.mean()) == pytest.approx((low + high) / 2, rel=0.12)
    data = make(image_size=32, views=4, view_transform=ImageViews(local_views=2, local_size=16))
    batch = next(iter(data.train_dataloader()))
    assert [tuple(view["image"].shape[2:]) for view in batch["views"]] == [(32, 32)] * 2 + [(16, 16)] * 2
    assert all(view["image"].dtype == torch.float32 for view in batch["views"])


def test_global_views_of_their_own_size():
    """Local views and validation have the data's."""
    data = make(image_size=32, views=2, view_transform=ImageViews(global_size=(16, 24), local_views=1))
    shapes = [tuple(view["image"].shape[2:]) for view in next(iter(data.train_dataloader()))["views"]]
    assert shapes == [(16, 24), (32, 32)]
    assert next(iter(data.val_dataloader()))["image"].shape[2:] == (32, 32)


def test_files_are_decoded_large_enough():
    assert make().smallest == 68  # 32 / sqrt(0.3 * 3/4)
    assert make(views=2).smallest == 131  # 32 / sqrt(0.08 * 3/4)
    local = ImageViews(scale=(0.3, 1.0), local_views=1, local_size=16, local_scale=(0.01, 0.3))
    assert make(views=2, view_transform=local).smallest == 185  # 16 / sqrt(0.01 * 3/4)
    assert make(views=2, view_transform=ImageViews(global_size=16)).smallest == 66  # 16 / sqrt(0.08 * 3/4)


def test_normalised_as_ever():
    data = make(views=2, view_transform=ImageViews(**OFF, **WHOLE), mean=[0.0] * 3, std=[1.0] * 3)
    batch = next(iter(data.train_dataloader()))
    assert 0 <= batch["views"][1]["image"].min() < batch["views"][1]["image"].max() <= 1
    assert torch.equal(*(view["image"] for view in batch["views"]))  # nothing is drawn


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_channels(channels):
    images = TensorDataset(torch.randint(0, 256, (24, channels, 36, 36), dtype=torch.uint8), torch.arange(24) % 3)
    data = make(dataset=images, channels=channels, views=2)
    assert next(iter(data.train_dataloader()))["views"][1]["image"].shape == (8, channels, 32, 32)
    if channels != 1:
        with pytest.raises(
            DataError, match=f"1 or 3 channels to change colours, got {channels}: set .*jitter to 0 and"
        ):
            make(dataset=images, channels=channels, views=2, view_transform=ImageViews()).setup()


def test_floats_of_another_range():
    images = TensorDataset(3 * torch.randn(24, 3, 36, 36))
    data = make(dataset=images, views=2)
    with pytest.raises(DataError, match=r"values of 8 bits or from 0 to 1 to change colours, got -.*jitter.*solarise"):
        next(iter(data.train_dataloader()))
    quiet = make(dataset=images, views=2, view_transform=ImageViews(jitter=0, solarise=0))
    assert next(iter(quiet.train_dataloader()))["image"].abs().max() > 10


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"scale": (0.5, 0.2)}, "expected scale as two rising shares"),
        ({"local_scale": (0.0, 0.2)}, "expected local_scale as two rising shares"),
        ({"ratio": (0.0, 1.0)}, "expected ratio as two rising numbers above 0"),
        ({"sigma": (2.0, 1.0)}, "expected sigma as two rising numbers above 0"),
        ({"jitter": 1.5}, "expected jitter as a probability from 0 to 1, or a list of one a view, got 1.5"),
        ({"blur": []}, "expected blur as a probability"),
        ({"hue": 0.7}, "expected hue from 0 to 0.5, got 0.7"),
        ({"local_views": -1}, "expected local_views of at least 0"),
        ({"local_size": 0}, "expected local_size of at least 1 pixel"),
        ({"global_size": (16, 0)}, r"expected global_size of at least 1 pixel, got \(16, 0\)"),
    ],
)
def test_settings_out_of_range(settings, says):
    with pytest.raises(DataError, match=says):
        ImageViews(**settings)


def test_the_first_view_is_never_local():
    with pytest.raises(
        DataError, match=r"more views than local_views, .* got views 2 and local_views 2: raise data.views"
    ):
        make(views=2, view_transform=ImageViews(local_views=2)).setup()


@pytest.mark.parametrize("kind", [Shards, ShardStream])
def test_shards_and_streams(tmp_path, kind):
    pytest.importorskip("webdataset")
    with tarfile.open(tmp_path / "train-000000.tar", "w") as tar:
        for i in range(24):
            file = io.BytesIO()
            PILImage.fromarray(noise(40).permute(1, 2, 0).numpy() // 2 + i).save(file, "png")
            for name, data in ((f"{i:03d}.png", file.getvalue()), (f"{i:03d}.cls", b"1")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    more = {"epoch_samples": 24} if kind is ShardStream else {}

    def batch(workers, **settings):
        data = make(dataset=kind(urls=str(tmp_path / "train-000000.tar")), num_workers=workers, **more, **settings)
        return next(iter(data.train_dataloader()))

    found, one = batch(0, views=2), batch(0, view_transform=ImageViews())
    assert torch.equal(found["image"], one["image"])
    assert not torch.equal(*(view["image"] for view in found["views"]))
    if kind is Shards:
        assert torch.equal(batch(2, views=2)["views"][1]["image"], found["views"][1]["image"])
    else:
        assert torch.equal(batch(1, views=2)["views"][1]["image"], found["views"][1]["image"])


def test_a_masked_jepa_trains_as_with_one_view(make_jepa, make_data, make_trainer):
    """Bit for bit: what it sees is the first view."""

    def trained(**settings):
        jepa, losses = make_jepa(), []
        jepa.on_train_batch_end = lambda out, batch, index: losses.append((out["loss"].item(), "views" in batch))
        trainer = make_trainer(max_steps=6)
        trainer.fit(jepa, datamodule=make_data(view_transform=ImageViews(local_views=0), **settings))
        return losses, jepa.state_dict()

    (one, weights), (two, others) = trained(), trained(views=2)
    assert [loss for loss, _ in one] == [loss for loss, _ in two]
    assert [views for _, views in one + two] == [False] * 6 + [True] * 6
    assert all(torch.equal(value, others[name]) for name, value in weights.items())
