"""Images in NumPy archives."""

import numpy as np
import pytest
import torch

from jepa_lightning.data import DataError
from modalities.image import ArrayImages, ImageData, ImageViews
from modalities.video import ArrayClips


def archive(folder, name="train", count=20, shape=(12, 10, 3), key="image", **labels):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
    np.savez(folder / f"{name}.npz", **{key: images}, **labels)
    return images


def data(**settings):
    given = {"image_size": (12, 10), "channels": 3, "num_workers": 0, "batch_size": 4, "mean": [0.0], "std": [1.0]}
    if settings.get("channels", 3) == 3:
        given |= {"mean": [0.0] * 3, "std": [1.0] * 3}
    return ImageData(**{**given, **settings})


def test_a_folder_of_archives(tmp_path):
    count, depth = np.arange(20) % 3, np.linspace(0, 1, 20, dtype=np.float32)
    images = archive(tmp_path, count=20, **{"objects": count, "depth": depth, "of_another_length": np.zeros(3)})
    archive(tmp_path, "test", count=4, objects=count[:4], depth=depth[:4])
    module = data(root=str(tmp_path), labels=["objects", "depth"])
    batch = next(iter(module.test_dataloader()))
    assert batch["labels"]["objects"].dtype == torch.int64
    assert batch["labels"]["depth"].dtype == torch.float32
    assert batch["id"] == [f"test[{number}]" for number in range(4)]
    train = module.probe_dataloader()
    first = next(iter(train))
    numbers = [int(name.removeprefix("train[").removesuffix("]")) for name in first["id"]]
    torch.testing.assert_close(first["image"], torch.from_numpy(images[numbers]).permute(0, 3, 1, 2) / 255)
    assert first["labels"]["objects"].tolist() == count[numbers].tolist()
    assert module.label == "objects"


def test_grey_images_without_an_axis_for_channels(tmp_path):
    images = archive(tmp_path, shape=(12, 10), key="imgs")
    module = data(root=str(tmp_path / "train.npz"), channels=1)
    batch = next(iter(module.val_dataloader()))
    number = int(batch["id"][0].removeprefix("train[").removesuffix("]"))
    torch.testing.assert_close(batch["image"][0, 0], torch.from_numpy(images[number]) / 255)
    assert not module.labelled
    clips = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5)
    np.savez(tmp_path / "clips.npz", video=clips)
    np.testing.assert_array_equal(ArrayClips(str(tmp_path / "clips.npz")).inputs, clips[..., None])


@pytest.mark.parametrize("settings", [{}, {"views": 2, "view_transform": ImageViews(global_size=12, blur=0.0)}])
def test_grey_images_are_augmented_in_whole_batches_with_or_without_an_axis_for_channels(settings, tmp_path):
    images = archive(tmp_path, shape=(12, 12))
    (tmp_path / "with").mkdir()
    np.savez(tmp_path / "with" / "train.npz", images=images[..., None])
    found = []
    for root in (tmp_path / "train.npz", tmp_path / "with" / "train.npz"):
        module = data(root=str(root), channels=1, batched=True, image_size=12, **settings)
        found.append(next(iter(module.train_dataloader()))["image"])
    assert found[0].shape[-3:] == (1, 12, 12)
    assert torch.equal(*found)


def test_channels_before_height_and_width(tmp_path, caplog):
    images = archive(tmp_path)
    np.savez(tmp_path / "first.npz", image=images.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(ArrayImages(str(tmp_path / "first.npz")).inputs, images)
    assert "(20, 3, 12, 10) are read with their channels moved to the end" in caplog.text
    np.savez(tmp_path / "many.npz", image=np.zeros((4, 12, 10, 7)))  # no one knows better
    assert ArrayImages(str(tmp_path / "many.npz")).inputs.shape == (4, 12, 10, 7)
    clips = np.arange(2 * 3 * 2 * 4 * 5).reshape(2, 2, 4, 5, 3)
    for name, axes in (("tc", (0, 1, 4, 2, 3)), ("ct", (0, 4, 1, 2, 3))):
        np.savez(tmp_path / f"{name}.npz", video=clips.transpose(axes))
        np.testing.assert_array_equal(ArrayClips(str(tmp_path / f"{name}.npz")).inputs, clips)


def test_arrays_that_are_no_labels_are_named(tmp_path, caplog):
    classes = np.arange(20) % 3
    words = {"column": classes[:, None], "names": np.array(["a cat", "b"])[classes % 2], "few": np.zeros(3)}
    archive(tmp_path, **words)
    path = str(tmp_path / "train.npz")
    found = ArrayImages(path)
    assert found.targets.tolist() == found.labels["column"].tolist() == classes.tolist()
    assert list(found.labels) == ["column"]
    assert f"{path}: left out: names <U5 (20,), few float64 (3,), no numbers for each of the 20 entries" in caplog.text
    with pytest.raises(DataError, match=r"a label 'names' in .*got <U5 \(20,\); store classes as whole numbers"):
        ArrayImages(path, labels=["names"])
    archive(tmp_path, large=np.full(20, 2**63, np.uint64))
    with pytest.raises(DataError, match=r"expected whole numbers below 2\*\*63, got 9223372036854775808"):
        ArrayImages(path)


def test_archives_that_do_not_fit(tmp_path):
    archive(tmp_path, objects=np.arange(20))
    with pytest.raises(DataError, match=r"a label 'object' in .*did you mean objects\?"):
        data(root=str(tmp_path), labels=["object"]).setup()
    np.savez(tmp_path / "x.npz", video=np.zeros((2, 3, 3, 3)))
    with pytest.raises(DataError, match=r"an array 'image' \(N, H, W\) or .*got video \(2, 3, 3, 3\)"):
        ArrayImages(str(tmp_path / "x.npz"))
    with pytest.raises(DataError, match="images with 1 channels, got 3"):
        data(root=str(tmp_path), channels=1).setup()
