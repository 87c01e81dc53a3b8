"""The same numbers give the same batch, whatever type, file format or byte order they are stored in."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from jepa_lightning.data import DataError, Encoded
from modalities.image.data import ImageData
from modalities.image.reading import read_image
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


@pytest.mark.parametrize("kind", ["npy", "npz", "dataset", "tif", "png"])
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


@pytest.mark.parametrize("kind", ["npy", "npz", "dataset", "tif"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8"])
def test_floats_from_0_to_1(tmp_path, kind, dtype):
    check(tmp_path, kind, (RAMP / 255).astype(dtype), RAMP / 255)


@pytest.mark.parametrize("kind", ["tif", "npy"])
def test_numbers_below_0_are_spread_over_their_range(tmp_path, kind, caplog):
    values = RAMP * 16 - 1024
    values[:, 0, 1] = -1024
    check(tmp_path, kind, values.astype("<i4"), (values + 1024) / (255 * 16))
    assert "are spread over the range from -1024 to 3056; set data.value_range" in caplog.text


def check(tmp_path, kind, values, expected):
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
    else:
        if values.dtype.byteorder == ">":
            pytest.skip("torch has no such type")
        got, _ = batch_of(dataset=TensorDataset(torch.from_numpy(values)))
    np.testing.assert_allclose(unit(got)[:, 0], expected[:4], atol=0.5 / 255 + 1e-3)


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


MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I;16B", "I", "F")


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_pillow(mode, channels):
    """A grey picture in every mode, in memory and in a file that can hold it, is the grey picture."""
    grey = np.tile(np.arange(0, 256, 5, dtype=np.uint8), (4, 1))
    grey[:, 0] = 255
    plain = Image.fromarray(grey)
    if mode in ("I", "F"):
        image = plain.convert(mode)
    elif mode.startswith("I;16"):
        image = Image.frombytes(mode, plain.size, grey.astype(">u2" if mode.endswith("B") else "<u2").tobytes())
    else:
        image = plain.convert(mode if mode != "CMYK" else "RGB").convert(mode)
    file = io.BytesIO()
    image.save(file, format="TIFF" if mode not in ("P", "LA", "I;16B") else "PNG" if mode != "I;16B" else "TIFF")
    got = np.asarray(read_image(Encoded("x.tif", file.getvalue()), channels=channels))
    assert (got.dtype, got.shape) == (np.uint8, (*grey.shape, channels))
    if mode == "1":  # dithered
        assert set(np.unique(got)) <= {0, 255}
        return
    tolerance = 2 if mode == "YCbCr" else 0
    np.testing.assert_allclose(got[:, :, 0].astype(int), grey.astype(int), atol=tolerance)
    if channels == 4:
        assert (got[:, :, 3] == 255).all()


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
