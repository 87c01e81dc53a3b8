"""The same numbers give the same batch, whatever type, file format or byte order they are stored in."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from jepa_lightning.data import DataError
from modalities.image.data import ImageData
from modalities.image.values import Values, values_of

SETTINGS = {"image_size": 16, "batch_size": 4, "num_workers": 0, "val_fraction": 0.0}
RAMP = np.random.default_rng(0).integers(0, 256, (8, 16, 16)).astype(np.float64)
RAMP[:, 0, 0] = 255


def batch_of(channels=1, **kwargs):
    data = ImageData(channels=channels, **SETTINGS, **kwargs)
    data.setup()
    return torch.stack([data.part("probe").read(i)["image"].float() for i in range(4)]), data


def unit(images):
    """In 0 to 1, whether of 8 bits or not."""
    return images / 255 if images.max() > 1.5 else images


@pytest.mark.parametrize("kind", ["npy", "npz", "dataset", "arrays", "tif", "png"])
@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<i2", ">i4", "<i8", "<u4", "<f4", ">f8", "<f2"])
def test_numbers_of_8_bits_in_any_type(tmp_path, kind, dtype):
    check(tmp_path, kind, RAMP.astype(dtype), RAMP / 255)


@pytest.mark.parametrize("kind", ["npy", "npz", "tif", "png"])
@pytest.mark.parametrize(
    ("dtype", "bits"), [("<u2", 12), (">u2", 12), ("<i4", 12), ("<u2", 16), ("<i4", 16), ("<u2", 10)]
)
def test_numbers_of_more_bits(tmp_path, kind, dtype, bits):
    values = np.rint(RAMP / 255 * (2**bits - 1))
    check(tmp_path, kind, values.astype(dtype), RAMP / 255)


@pytest.mark.parametrize("kind", ["npy", "npz", "dataset", "arrays", "tif"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8"])
def test_floats_from_0_to_1(tmp_path, kind, dtype):
    check(tmp_path, kind, (RAMP / 255).astype(dtype), RAMP / 255)


@pytest.mark.parametrize("kind", ["npy", "npz", "dataset", "arrays"])
@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"])
def test_arrays_of_other_floats_stay_as_they_are(tmp_path, kind, dtype):
    values = (RAMP / 127.5 - 1).astype(dtype)
    check(tmp_path, kind, values, values.astype("f4"), tolerance=1e-6)


@pytest.mark.parametrize("kind", ["npy", "npz", "dataset", "arrays"])
def test_numbers_of_one_bit_and_of_7_with_a_sign(tmp_path, kind, caplog):
    check(tmp_path, kind, RAMP > 127, (RAMP > 127).astype("f4"), tolerance=0)
    assert "images: " not in caplog.text
    for file in tmp_path.iterdir():
        file.unlink()
    values = np.rint(RAMP) - 128
    values[:, 0, 1] = -128
    check(tmp_path, kind, values.astype("i1"), (values + 128) / 255)
    assert "images: int8 from -128 to 127 are spread over the range" in caplog.text


def test_tensors_of_bfloat16():
    values = torch.from_numpy(RAMP).bfloat16()
    got, _ = batch_of(dataset=TensorDataset(values))
    np.testing.assert_array_equal(got[:, 0].numpy(), values[:4].float())


@pytest.mark.parametrize("kind", ["npy", "npz", "arrays"])
def test_numbers_that_no_signed_type_holds_are_refused(tmp_path, kind):
    with pytest.raises(
        DataError, match=r"whole numbers below 2\*\*63, got 18446744073709551615: store them as float64"
    ):
        check(tmp_path, kind, np.full((8, 16, 16), 2**64 - 1, np.uint64), None)


@pytest.mark.parametrize("kind", ["tif", "npy"])
def test_numbers_below_0_are_spread_over_their_range(tmp_path, kind, caplog):
    values = RAMP * 16 - 1024
    values[:, 0, 1] = -1024
    check(tmp_path, kind, values.astype("<i4"), (values + 1024) / (255 * 16))
    assert "are spread over the range from -1024 to 3056; set data.value_range" in caplog.text


class Arrays(list):
    """A dataset of what is in a list."""


def check(tmp_path, kind, values, expected, *, tolerance=0.5 / 255 + 1e-3):
    dtype = values.dtype
    if kind in ("tif", "png"):
        if (kind == "png" and dtype.itemsize != 2) or (dtype.kind == "f" and dtype.itemsize == 2):
            pytest.skip("not a type of this format")
        stored = values.astype(
            "f4"
            if dtype.kind == "f"
            else "u1"
            if dtype == "u1"
            else "<u2"
            if dtype.kind == "u" and dtype.itemsize == 2
            else "<i4"
        )
        if kind == "png":
            stored = values.astype("<u2")
        for i, image in enumerate(stored):
            Image.fromarray(image).save(tmp_path / f"{i}.{kind}")
        got, _ = batch_of(root=str(tmp_path))
    elif kind == "npy":
        for i, image in enumerate(values):
            np.save(tmp_path / f"{i}.npy", image)
        got, _ = batch_of(root=str(tmp_path))
    elif kind == "npz":
        np.savez(tmp_path / "train.npz", image=values)
        got, _ = batch_of(root=str(tmp_path))
    elif kind == "arrays":
        got, _ = batch_of(dataset=Arrays(values))
    else:
        if values.dtype.byteorder == ">":
            pytest.skip("torch has no such type")
        got, _ = batch_of(dataset=TensorDataset(torch.from_numpy(values)))
    np.testing.assert_allclose(unit(got)[:, 0], expected[:4], atol=tolerance)


def test_a_range_that_is_given(tmp_path):
    for i in range(8):
        Image.fromarray((RAMP[i] * 3).astype("f4")).save(tmp_path / f"{i}.tif")
    got, _ = batch_of(root=str(tmp_path), value_range=(0, 1530))
    np.testing.assert_allclose(unit(got)[:, 0], RAMP[:4] / 510, atol=1 / 255)
    with pytest.raises(DataError, match="expected value_range as two rising numbers"):
        ImageData(value_range=(3, 3))


def test_values_outside_of_those_of_the_others_are_no_silent_loss(tmp_path):
    for i in range(200):
        Image.fromarray(np.full((8, 8), 60000 if i == 1 else 4000, np.uint16)).save(tmp_path / f"{i:03}.png")
    data = ImageData(root=str(tmp_path), channels=1, **SETTINGS)
    list(data.train_dataloader())
    [reason] = data.unreadable.values()
    assert "lie outside of those of the other images, 0 to 4095: set data.value_range" in reason


def test_complex_images_are_refused(tmp_path):
    for i in range(4):
        np.save(tmp_path / f"{i}.npy", np.zeros((8, 8), complex))
    with pytest.raises(DataError, match="got complex128"):
        ImageData(root=str(tmp_path), channels=1, **SETTINGS).setup()
    np.savez(tmp_path / "train.npz", image=np.zeros((8, 8, 8), complex))
    with pytest.raises(DataError, match="real numbers, got an array of complex128: store the magnitude"):
        ImageData(root=str(tmp_path), channels=1, **SETTINGS).setup()
    with pytest.raises(DataError, match=r"got torch\.complex64"):
        ImageData(dataset=TensorDataset(torch.zeros(8, 1, 8, 8, dtype=torch.complex64)), channels=1, **SETTINGS).setup()


def test_rules():
    def of(*values, dtype="f8"):
        found = values_of([np.array(values, dtype)])
        return found and (found.low, found.high)

    assert of(0, 255, dtype="u1") is None
    assert of(0, 100, dtype="i4") == of(0, 255, dtype="u2") == of(0.0, 255.0) == of(3.5, 250.5) == (0, 255)
    assert of(0, 1023, dtype="u2") == (0, 1023)
    assert of(0, 4095, dtype="u2") == of(0, 2000, dtype="i8") == (0, 4095)
    assert of(0, 16383, dtype="u2") == (0, 16383)
    assert of(0, 65535, dtype="u2") == (0, 65535)
    assert of(0, 65536, dtype="i4") == (0, 65536)
    assert of(0.0, 1.0) == of(0.2, 0.3) == (0, 1)
    assert of(-1.0, 1.0) == (-1, 1)
    assert of(0.5, 5.25) == (0.5, 5.25)
    assert of(np.nan, 0.5) == (0, 1)
    assert Values(0, 255).byte(np.array([0.4, 254.6])).tolist() == [0, 255]
    with pytest.raises(OSError, match="NaN"):
        Values(0, 1).byte(np.array([np.nan]))
