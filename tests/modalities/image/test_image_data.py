"""Folder layouts, reading, augmentation, normalisation and the ways to name a data set."""

from __future__ import annotations

import logging
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from PIL import Image
from torch.utils.data import TensorDataset
from torchvision.datasets import FakeData

from jepa_lightning.data import DataError
from modalities.image.data import ImageData
from modalities.image.files import find_images
from modalities.image.reading import EXTENSIONS, read_image
from modalities.image.transforms import CentreCrop, RandomCrop, central_box, random_box

COLOURS = {"ant": (200, 40, 40), "bee": (220, 200, 30), "cat": (30, 60, 210)}


def write(path, colour=(90, 120, 150), size=(40, 30), mode="RGB"):
    """A smooth image in one colour, brighter to the right; JPEG or PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(0.6, 1.0, size[0])[None, :, None]
    pixels = (np.array(colour) * ramp * np.ones((size[1], 1, 1))).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def classes(folder, count, suffix=".jpg", names=tuple(COLOURS)):
    for name in names:
        for i in range(count):
            write(folder / name / f"{i}{suffix}", COLOURS[name])


def truncate(path):
    path.write_bytes(path.read_bytes()[: os.path.getsize(path) // 2])


def make(root=None, **kwargs):
    return ImageData(**{"root": root and str(root), "image_size": 16, "channels": 3, "batch_size": 4,
                        "num_workers": 0} | kwargs)  # fmt: skip


def everything(loader):
    batches = list(loader)
    return torch.cat([batch["image"] for batch in batches]), [i for batch in batches for i in batch["id"]]


# Layouts


def test_class_folders_with_all_splits(tmp_path):
    classes(tmp_path / "train", 4)
    classes(tmp_path / "validation", 2, names=("ant", "cat"))
    classes(tmp_path / "test", 3)
    data = make(tmp_path)
    assert data.classes == list(COLOURS)
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (4, 3, 16, 16)
    assert batch["image"].dtype == torch.float32
    assert [data.classes[i] for i in batch["labels"]["label"]] == [name.split(os.sep)[1] for name in batch["id"]]
    images, ids = everything(data.val_dataloader())
    assert len(images) == 4
    assert ids[-1] == os.path.join("validation", "cat", "1.jpg")
    labels = torch.cat([batch["labels"]["label"] for batch in data.val_dataloader()])
    assert labels.tolist() == [0, 0, 2, 2]  # numbered as in the training data
    assert len(everything(data.test_dataloader())[0]) == 9


def test_validation_comes_from_train_not_from_test(tmp_path):
    classes(tmp_path / "train", 10)
    classes(tmp_path / "test", 2)
    data = make(tmp_path, val_fraction=0.2)
    _, held = everything(data.val_dataloader())
    assert len(held) == 6
    assert all(name.startswith("train") for name in held)
    assert [sum(f"{os.sep}{name}{os.sep}" in i for i in held) for name in COLOURS] == [2, 2, 2]
    assert not set(held) & set(everything(data.probe_dataloader())[1])


def test_class_folders_without_splits_and_with_subfolders(tmp_path):
    classes(tmp_path, 3)
    write(tmp_path / "ant" / "more" / "deep" / "x.PNG")
    write(tmp_path / ".hidden" / "y.jpg")
    (tmp_path / "README.txt").write_text("not an image")
    images = find_images(str(tmp_path))["train"]
    assert (images.classes, len(images)) == (list(COLOURS), 10)


@pytest.mark.parametrize("where", ["", "images", "train", "train/all", "a/b"])
def test_flat_folders_are_unlabelled(tmp_path, where):
    for i in range(9):
        write(tmp_path / where / f"{i}.jpg")
    write(tmp_path / where / "nested" / "9.jpg")
    data = make(tmp_path)
    assert not data.labelled
    assert data.probe_dataloader() is None
    batch = next(iter(data.train_dataloader()))
    assert batch["labels"] == {}
    assert len(data.train_dataloader().dataset) + len(data.val_dataloader().dataset) == 10


@pytest.mark.parametrize("suffix", [".jfif", ".JPE", ".jp2", ".avif", ".tga", ".pnm", ".apng", ".dib"])
def test_rarer_endings_are_read_where_pillow_can(tmp_path, suffix):
    if suffix not in EXTENSIONS and suffix.lower() not in EXTENSIONS:
        pytest.skip("this Pillow was built without")
    for name in ("ant", "bee"):
        write(tmp_path / name / "x.png", COLOURS[name])
        with Image.open(tmp_path / name / "x.png") as image:
            image.save(tmp_path / name / f"x{suffix}", format=Image.registered_extensions()[suffix.lower()])
        (tmp_path / name / "x.png").unlink()
    images = find_images(str(tmp_path))["train"]
    assert len(images) == 2
    assert images.read(0).mean((0, 1)) == pytest.approx(np.array(COLOURS["ant"]) * 0.8, abs=4)


def test_a_wrapper_folder_is_looked_into(tmp_path):
    classes(tmp_path / "archive", 2)
    assert find_images(str(tmp_path))["train"].classes == list(COLOURS)


# CSV files


def table(folder):
    """Twelve images in a folder, named in a CSV file beside it: two label columns, every third for validation."""
    lines = ["path,colour,width,split"]
    for i in range(12):
        name, width = list(COLOURS)[i % 4 % 3], 20 + 2 * i
        write(folder / "images" / f"{i:02}.png", COLOURS[name], size=(width, 20))
        lines.append(f"{i:02}.png,{name},{width}.0,{'val' if i % 3 == 2 else 'train'}")
    (folder / "list.csv").write_text("\n".join(lines))
    return {"csv": str(folder / "list.csv"), "root": str(folder / "images")}


@pytest.mark.parametrize("cache", [False, True])
def test_csv_with_two_labels_and_splits(tmp_path, cache):
    data = make(**table(tmp_path), labels=["colour", "width"], cache=cache)
    assert data.label == "colour"
    assert data.classes == list(COLOURS)
    seen = set()
    for loader in (data.train_dataloader(), data.val_dataloader()):
        for batch in loader:
            assert batch["labels"]["width"].dtype == torch.float32
            for image, name, label, width in zip(batch["image"], batch["id"], *batch["labels"].values(), strict=True):
                number = int(name.removesuffix(".png"))
                assert width == 20 + 2 * number
                assert label == number % 4 % 3
                brightest = (image.mean((1, 2)) * torch.tensor([0.229, 0.224, 0.225]) +
                             torch.tensor([0.485, 0.456, 0.406])).argmax()  # fmt: skip
                assert brightest == np.argmax(COLOURS[data.classes[label]])
                seen.add(number)
    assert seen == set(range(12))
    assert [int(name[:2]) for name in everything(data.val_dataloader())[1]] == [2, 5, 8, 11]
    assert not data.has_test


def test_csv_column_that_is_not_there(tmp_path):
    message = r"expected the label column 'color' in .*list.csv \(did you mean colour\?\), got the columns path, colour"
    with pytest.raises(DataError, match=message):
        make(**table(tmp_path), labels=["color"]).setup()


def test_labels_name_columns_not_class_folders(tmp_path):
    classes(tmp_path, 2)
    with pytest.raises(DataError, match="expected labels only beside a CSV file, got the folder"):
        make(tmp_path, labels=["colour"]).setup()


# Mistakes


def broken_layout(folder, kind):
    if kind == "file":
        write(folder / "only.jpg")
        return folder / "only.jpg"
    if kind == "missing":
        (folder / "digits").mkdir()
        return folder / "digit"
    if kind == "no images":
        (folder / "notes.txt").write_text("x")
    elif kind == "empty splits":
        (folder / "train" / "ant").mkdir(parents=True)
    elif kind == "extra class":
        classes(folder / "train", 2, names=("ant", "bee"))
        classes(folder / "val", 2)
    elif kind == "mixed":
        write(folder / "a.jpg")
        np.save(folder / "b.npy", np.zeros((3, 8, 8)))
    return folder


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"there is no folder .*digit \(there is .*digits\): check data.root"),
        ("file", "expected a folder of images, got the file .*only.jpg"),
        ("empty", "got an empty one: files that are read end in .jpg, .jpeg, .png"),
        ("no images", "got no image in it: files that are read end in .jpg"),
        ("empty splits", "expected images in .*ant, got an empty one"),
        ("extra class", "got also cat: rename or remove them"),
        ("mixed", r"expected either image files or .npy files in .*, got 1 and 1"),
    ],
)
def test_broken_layouts(tmp_path, kind, message):
    with pytest.raises(DataError, match=message):
        make(broken_layout(tmp_path, kind)).setup()


def test_a_crop_scale_that_does_not_rise():
    message = r"expected crop_scale as two rising shares from above 0 to 1, got \(0.5, 0.3\)"
    with pytest.raises(DataError, match=message):
        ImageData(crop_scale=(0.5, 0.3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": None}, "expected image_size, got none and there is no model to take it from"),
        ({"channels": None}, "expected channels, got none"),
        (
            {"channels": 5, "root": True},
            r"expected 1 \(grey\), 3 \(RGB\) or 4 \(RGBA\) channels for image files, got 5",
        ),
        ({"mean": [0.5]}, "expected mean with one value for each of 3 channels, got 1"),
        ({"std": [0.1, 0.0, 0.1]}, "expected std above 0"),
        ({"image_size": 0}, "expected image_size of at least 1 pixel, got 0"),
    ],
)
def test_settings_that_do_not_fit_the_data(tmp_path, options, message):
    if options.get("root"):
        write(tmp_path / "a.jpg")
        options = options | {"root": tmp_path}
    with pytest.raises(DataError, match=message):
        make(**{"samples": 50} | options).setup()


def test_size_and_channels_come_from_the_model():
    data = make(samples=50, image_size=None, channels=None)
    model = SimpleNamespace(modality=SimpleNamespace(image_size=(24, 16), channels=1))
    data.trainer = SimpleNamespace(lightning_module=model, num_devices=1, world_size=1)
    assert next(iter(data.train_dataloader()))["image"].shape == (4, 1, 24, 16)


# Broken files


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache", [False, True])
def test_broken_jpeg_is_counted_and_named(tmp_path, workers, cache, caplog):
    for i in range(100):
        write(tmp_path / f"{i:03}.jpg", size=(8, 8))
    truncate(tmp_path / "042.jpg")
    data = make(tmp_path, num_workers=workers, cache=cache, val_fraction=0)
    with caplog.at_level(logging.WARNING):
        batches = [batch for _ in range(2) for batch in data.train_dataloader()]
    name = os.path.join(tmp_path.name, "042.jpg")
    assert [len(batch["image"]) for batch in batches] == [4] * 50
    assert all(name not in batch["id"] for batch in batches)
    assert list(data.unreadable) == [name]
    assert "truncated" in data.unreadable[name].lower()
    assert sum(name in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("cache", [False, True])
def test_more_than_one_in_a_hundred_ends_the_run_with_the_list(tmp_path, cache):
    for i in range(50):
        write(tmp_path / f"{i:03}.jpg", size=(8, 8))
    (tmp_path / "007.jpg").write_bytes(b"no image at all")
    with pytest.raises(DataError, match=r"1 of 50 samples cannot be read.*\n.*007.jpg \(.*UnidentifiedImageError"):
        list(make(tmp_path, cache=cache, val_fraction=0).train_dataloader())


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"GIF89a", b"\xff\xd8\xff\xe0"])
def test_damage_of_any_kind_is_an_os_error(tmp_path, content):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(OSError):
        read_image(str(path), channels=3)


# Reading


@pytest.mark.parametrize(("channels", "modes"), [(1, "L RGB RGBA"), (3, "L RGB RGBA P 1"), (4, "RGB RGBA LA")])
def test_any_mode_to_any_channel_count(tmp_path, channels, modes):
    for mode in modes.split():
        write(tmp_path / f"{mode}.png", mode=mode)
        assert read_image(str(tmp_path / f"{mode}.png"), channels=channels).shape == (30, 40, channels)


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    Image.fromarray(np.array([[0, 256, 32768, 65535]], dtype=np.uint16)).save(tmp_path / "x.png")
    assert read_image(str(tmp_path / "x.png"), channels=1)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_photographs_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.new("RGB", (40, 20)).save(tmp_path / "x.jpg", exif=exif)
    assert read_image(str(tmp_path / "x.jpg"), channels=3).shape == (40, 20, 3)


def test_large_jpegs_are_decoded_smaller_but_never_too_small(tmp_path):
    write(tmp_path / "x.jpg", size=(800, 400))
    assert read_image(str(tmp_path / "x.jpg"), channels=3, smallest=90).shape == (100, 200, 3)
    assert read_image(str(tmp_path / "x.jpg"), channels=3, smallest=110).shape == (200, 400, 3)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((5, 20, 24), np.float32), ((20, 24, 5), np.uint8), ((20, 24, 5), np.uint16)]
)
def test_five_channel_arrays(tmp_path, shape, dtype):
    scale = {np.float32: 1, np.uint8: 255, np.uint16: 65535}[dtype]
    for i in range(8):
        np.save(tmp_path / f"{i}.npy", np.full(shape, 0.6 * scale).astype(dtype))
    batch = next(iter(make(tmp_path, channels=5).train_dataloader()))
    assert batch["image"].shape == (4, 5, 16, 16)
    assert torch.allclose(batch["image"], torch.tensor((0.6 - 0.5) / 0.25), atol=0.02)


def test_array_of_another_shape_is_unreadable(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4, 20, 24)))
    with pytest.raises(ValueError, match=r"of shape \(5, H, W\) or \(H, W, 5\), got float64 \(4, 20, 24\)"):
        read_image(str(tmp_path / "x.npy"), channels=5)


def test_values_far_from_their_range_are_pointed_out(tmp_path, caplog):
    for i in range(8):
        np.save(tmp_path / f"{i}.npy", np.full((2, 20, 20), 5000.0))
    with caplog.at_level(logging.WARNING):
        make(tmp_path, channels=2).setup()
    assert "set data.mean to auto" in caplog.text


def test_cache_changes_nothing(tmp_path):
    classes(tmp_path, 5, suffix=".png")
    for i, size in enumerate([(50, 20), (20, 50), (300, 200)]):
        write(tmp_path / "bee" / f"odd{i}.jpg", size=size)
    kept, read = make(tmp_path, cache=True, drop_last=False), make(tmp_path, cache=False, drop_last=False)
    stored, again = (make(tmp_path, cache_folder=str(tmp_path.parent / "kept"), drop_last=False) for _ in range(2))
    assert torch.equal(everything(kept.val_dataloader())[0], everything(read.val_dataloader())[0])
    got = []
    for data in (kept, read, stored, again):
        data.setup()
        torch.manual_seed(0)
        got.append(everything(data.train_dataloader()))
    assert all(torch.equal(got[0][0], other[0]) and got[0][1] == other[1] for other in got[1:])


def test_files_are_decoded_once_for_all_runs_until_one_of_them_or_a_setting_changes(tmp_path, monkeypatch):
    classes(tmp_path / "images", 4)
    opened = []

    def counting(path, **settings):
        opened.append(path)
        return read_image(path, **settings)

    monkeypatch.setattr("modalities.image.files.read_image", counting)

    def decoded(**settings):
        opened.clear()
        make(tmp_path / "images", cache_folder=str(tmp_path / "kept"), val_fraction=0, **settings).setup()
        return len(opened)

    assert [decoded(), decoded(), decoded(channels=1), decoded(channels=1)] == [12, 0, 12, 0]
    write(next((tmp_path / "images").rglob("*.jpg")), size=(31, 33))
    assert [decoded(), decoded()] == [12, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cache_folder": "x"}, "expected cache_folder only for files"),
        ({"root": "files", "cache_folder": "x", "cache": False}, "expected cache: true or null with cache_folder x"),
        ({"root": "arrays", "cache_folder": "x"}, "no cache_folder for .npy files"),
    ],
)
def test_a_cache_folder_that_does_not_fit(tmp_path, monkeypatch, settings, message):
    monkeypatch.chdir(tmp_path)
    classes(tmp_path / "files", 2)
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays" / "a.npy", np.zeros((3, 40, 40), np.uint8))
    with pytest.raises(DataError, match=message):
        make(**settings).setup()
    assert not (tmp_path / "x").exists()


def test_small_sets_are_kept_in_memory_by_default(tmp_path, monkeypatch):
    classes(tmp_path, 4)
    data = make(tmp_path)
    data.setup()
    assert data.in_memory
    for path in tmp_path.rglob("*.jpg"):
        path.unlink()
    assert len(everything(data.train_dataloader())[0]) == 8
    classes(tmp_path, 4)
    monkeypatch.setattr("jepa_lightning.data.files.file_set.CACHE_BYTES", 12 * 40 * 30 * 3)
    data = make(tmp_path)
    data.setup()
    assert not data.in_memory


# Crops and normalisation


def test_random_box_has_the_asked_areas_and_shapes():
    torch.manual_seed(0)
    boxes = torch.tensor([random_box(100, 120, scale=(0.3, 1.0), ratio=(3 / 4, 4 / 3)) for _ in range(4000)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    area, shape = width * height / 12000, width / height
    assert boxes[:, :2].min() >= 0
    assert boxes[:, 2].max() <= 120.001
    assert boxes[:, 3].max() <= 100.001
    assert 0.3 <= area.min() < 0.31
    assert area.max() > 0.95
    assert 0.75 <= shape.min() + 1e-4 < 0.76
    assert 1.32 < shape.max() <= 4 / 3 + 1e-4
    assert (boxes[:, 0] / (120 - width)).mean() == pytest.approx(0.5, abs=0.02)


def test_random_box_of_a_very_long_image_is_central():
    assert random_box(10, 1000, scale=(0.9, 1.0), ratio=(3 / 4, 4 / 3)) == pytest.approx(
        (493.333, 0, 506.667, 10), 1e-4
    )


def test_centre_crop_takes_the_middle():
    assert central_box(30, 50, ratio=1.0) == (10, 0, 40, 30)
    image = Image.new("RGB", (50, 30), (255, 0, 0))
    image.paste((0, 0, 255), (10, 0, 40, 30))
    got = CentreCrop((30, 30), channels=3)({"image": image})["image"]
    assert torch.equal(got, torch.tensor([0, 0, 255], dtype=torch.uint8)[:, None, None].expand(3, 30, 30))


def test_arrays_and_images_are_cropped_alike():
    pixels = np.asarray(Image.effect_noise((64, 64), 40).resize((96, 96)))
    array = np.stack([pixels, 255 - pixels, pixels // 2], 2)
    crop = CentreCrop((24, 24), channels=3)
    expected = crop({"image": Image.fromarray(array)})["image"]
    assert torch.equal(crop({"image": array})["image"], expected)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    assert torch.equal(crop({"image": tensor})["image"], expected)
    assert (crop({"image": tensor.float()})["image"] - expected).abs().max() < 2  # torch's path, not rounded


def test_flip_mirrors_half_of_the_images():
    torch.manual_seed(0)
    image = Image.fromarray(np.tile(np.arange(32, dtype=np.uint8), (32, 1)))
    crop = RandomCrop((16, 16), channels=1, flip=True)
    mirrored = [bool((lambda x: x[0, 0, 0] > x[0, 0, -1])(crop({"image": image})["image"])) for _ in range(400)]
    assert 160 < sum(mirrored) < 240
    plain = RandomCrop((16, 16), channels=1)
    assert not any((lambda x: x[0, 0, 0] > x[0, 0, -1])(plain({"image": image})["image"]) for _ in range(50))


@pytest.mark.parametrize(("mean", "std"), [(None, None), ([0.1, 0.2, 0.3], [0.5, 0.6, 0.7])])
def test_normalisation_is_plain_arithmetic(tmp_path, mean, std):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    data = make(tmp_path, mean=mean, std=std, val_fraction=0, drop_last=False)
    data.setup()
    got = next(iter(data._loader("probe")))["image"][0]
    mean, std = mean or [0.485, 0.456, 0.406], std or [0.229, 0.224, 0.225]
    expected = (pixels / 255 - np.array(mean)) / np.array(std)
    assert torch.allclose(got, torch.from_numpy(expected).permute(2, 0, 1).float(), atol=1e-5)
    assert got.is_contiguous()


def test_auto_normalisation_gives_mean_0_and_std_1():
    data = make(samples=400, image_size=32, mean="auto", batch_size=50, probe_samples=400)
    images, _ = everything(data.probe_dataloader())
    assert torch.allclose(images.mean((0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(images.std((0, 2, 3)), torch.ones(3), atol=1e-3)


# Data sets by class path


def test_generated_by_default():
    data = make(samples=400, image_size=32)
    assert data.label == "stripes"
    assert len(data.classes) == 8
    assert len(data.train_dataloader().dataset) == 400
    assert len(data.val_dataloader().dataset) == 50
    assert data.train_dataloader().num_workers == 0
    big = make(samples=16, image_size=(96, 192))
    assert next(iter(big.train_dataloader()))["image"].shape == (4, 3, 96, 192)
    assert big.train_dataloader().dataset.dataset.images.shape[1:3] == (32, 64)


def test_torchvision_dataset():
    data = make(dataset=FakeData(40, (3, 20, 28), 5), test_dataset=FakeData(10, (3, 20, 28), 5), channels=1)
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (4, 1, 16, 16)
    assert batch["labels"]["label"].dtype == torch.int64
    assert batch["id"][0].startswith("train[")
    assert len(everything(data.probe_dataloader())[0]) == 36
    assert len(everything(data.test_dataloader())[0]) == 10


def test_tensor_dataset_without_labels():
    data = make(dataset=TensorDataset(torch.rand(20, 3, 16, 16)), mean=[0.0] * 3, std=[1.0] * 3)
    images, _ = everything(data.val_dataloader())
    assert torch.allclose(images, torch.stack([image for image, in data.val_dataloader().dataset.dataset])[
        data.val_dataloader().dataset.indices], atol=1e-6)  # fmt: skip
    assert not data.labelled


def test_tensors_with_another_channel_count():
    with pytest.raises(DataError, match=r"expected images with 3 channels, got 2 .*: set the model's and the data's"):
        make(dataset=TensorDataset(torch.rand(20, 2, 16, 16))).setup()


def test_from_yaml(tmp_path):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(ImageData, "data")
    config = tmp_path / "c.yaml"
    config.write_text(
        "data:\n"
        "  dataset:\n"
        "    class_path: torchvision.datasets.FakeData\n"
        "    init_args: {size: 30, image_size: [3, 20, 20], num_classes: 4}\n"
        "  image_size: [16, 24]\n"
        "  channels: 3\n"
        "  mean: auto\n"
        "  crop_scale: [0.5, 1.0]\n"
        "  batch_size: 8\n"
        "  num_workers: 0\n"
    )
    data = parser.instantiate_classes(parser.parse_args(["--config", str(config)])).data
    assert isinstance(data.dataset, FakeData)
    assert next(iter(data.train_dataloader()))["image"].shape == (8, 3, 16, 24)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_arrays_without_usable_values_are_unreadable(tmp_path, value):
    for name in "abc":
        image = np.zeros((3, 16, 16), np.float32)
        image[0, 2, 3] = value if name == "b" else 0.5
        np.save(tmp_path / f"{name}.npy", image)
    data = ImageData(
        root=str(tmp_path), image_size=8, channels=3, batch_size=3, num_workers=0, val_fraction=0, max_unreadable=1.0
    )
    (batch,) = list(data.train_dataloader())
    assert batch["image"].isfinite().all()
    assert ["b.npy" in name for name in data.unreadable] == [True]


def test_a_picture_that_asks_for_more_memory_than_there_is_cannot_be_read(tmp_path, monkeypatch):
    def out_of_memory(self):
        raise MemoryError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", out_of_memory)
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", out_of_memory)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(OSError, match="more memory than there is"):
        read_image(str(tmp_path / "a.png"), channels=3)


@pytest.mark.parametrize("content", [b"PK\x03\x04", b"no zip", b"", b"\x93NUMPY\x01\x00"])
def test_a_damaged_archive_is_refused(tmp_path, content):
    (tmp_path / "train.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"train\.npz to be a \.npz file"):
        ImageData(root=str(tmp_path), image_size=8, channels=3, batch_size=1).setup()


def test_statistics_that_are_nan_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((1, 8, 8), np.float32))
    with pytest.raises(DataError, match="finite means"):
        ImageData(
            root=str(tmp_path), image_size=8, channels=1, mean=[float("nan")], val_fraction=0, batch_size=1
        ).setup()


# Small files of large images.


def test_an_image_of_too_many_pixels(tmp_path, monkeypatch):
    Image.new("1", (12_000, 12_000)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 30_000
    with pytest.raises(OSError, match=r"at most 64,000,000 pixels, got 12000 x 12000: .* raise data\.max_pixels"):
        read_image(str(tmp_path / "bomb.png"), channels=3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    Image.new("L", (100, 100)).save(tmp_path / "a.png")
    assert read_image(str(tmp_path / "a.png"), channels=1).shape == (100, 100, 1)  # the setting, above Pillow's own
    with pytest.raises(OSError, match="at most 9,999 pixels"):
        read_image(str(tmp_path / "a.png"), channels=1, max_pixels=9_999)
    Image.new("RGB", (800, 800)).save(tmp_path / "a.jpg")
    assert read_image(str(tmp_path / "a.jpg"), channels=3, smallest=100, max_pixels=10_000).shape == (100, 100, 3)


@pytest.mark.parametrize("cache", [True, False])
def test_max_pixels_is_a_setting(tmp_path, cache):
    for number in range(8):
        Image.new("RGB", (20, 20)).save(tmp_path / f"{number}.png")
    Image.new("RGB", (40, 40)).save(tmp_path / "large.png")
    for limit, count in ((1600, 0), (1599, 1)):
        settings = {"image_size": 16, "channels": 3, "batch_size": 2, "num_workers": 0, "max_unreadable": 0.5}
        data = ImageData(root=str(tmp_path), max_pixels=limit, cache=cache, **settings)
        for loader in (data.train_dataloader, data.val_dataloader):
            data.setup()
            list(loader())
        assert len(data.unreadable) == count
    with pytest.raises(DataError, match="max_pixels of at least 1"):
        ImageData(max_pixels=0)
