"""Images with random numbers of any type, in any file that holds them, against the documented rule in plain numbers."""

import numpy as np
import torch
from fuzz_helpers import bounded, folder, fuzz
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from modalities.image import ImageData

TYPES = {
    "npy": ["u1", "<u2", ">u2", "<i2", ">i4", "<i8", "<u4", "<f4", ">f8", "<f2"],
    "tif": ["u1", "<u2", "<i4", "<f4"],
    "png": ["u1", "<u2"],
}
BITS = (8, 10, 12, 14, 16)


def by_rule(values, kind, dtype):
    """The images from 0 to 1, as docs/own-data.md says; floats in arrays that are no such values as they are."""
    low, high = values.min(), values.max()
    floats = np.dtype(dtype).kind == "f"
    if np.dtype(dtype) == np.uint8:
        return values / 255
    whole = (values == np.rint(values)).all() and (high > 1 or not floats)
    if kind == "npy" and floats and (low < 0 or high > 255 or (not whole and 1 < high <= 127)):
        return values
    if low >= 0 and whole:
        fitting = [bits for bits in BITS if high < 2**bits]
        if fitting:
            return values / (2 ** fitting[0] - 1)
    elif low >= 0 and high <= 1:
        return values
    elif low >= 0 and 127 < high <= 255:
        return values / 255
    return (values - low) / (high - low)


@fuzz(40)
@given(st.data())
def test_the_same_numbers_are_the_same_image(data):
    kind = data.draw(st.sampled_from(list(TYPES)))
    dtype = data.draw(st.sampled_from(TYPES[kind]))
    floats, most = np.dtype(dtype).kind == "f", 2**17
    if not floats:
        most = min(most, np.iinfo(dtype).max)
    elif dtype == "<f2":
        most = 2**11  # whole numbers up to here are themselves
    high = data.draw(st.one_of(st.sampled_from([1, 2, 127, 128, 255]), st.integers(2, most)))
    low = data.draw(st.integers(-high, -1) | st.just(0)) if floats or np.dtype(dtype).kind == "i" else 0
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = rng.integers(low, high, (4, 8, 8), endpoint=True).astype(np.float64)
    values[:, 0, 0], values[:, 0, 1] = low, high
    if floats and data.draw(st.booleans()):
        values *= data.draw(st.sampled_from([0.5, 0.9, 1 / high]))
    images = values.astype(dtype)
    with folder() as root, bounded():
        for number, image in enumerate(images):
            if kind == "npy":
                np.save(root / f"{number}.npy", image)
            else:
                Image.fromarray(image).save(root / f"{number}.{kind}")
        settings = {"image_size": 8, "channels": 1, "batch_size": 4, "num_workers": 0, "val_fraction": 0.0}
        read = ImageData(root=str(root), **settings)
        read.setup()
        found = torch.stack([read.part("probe").read(number)["image"] for number in range(4)])[:, 0]
    found = found.double().numpy() / (255 if found.dtype == torch.uint8 else 1)
    expected = by_rule(images.astype(np.float64), kind, dtype)
    np.testing.assert_allclose(found, expected, atol=0.51 / 255 if kind != "npy" else 1e-6, rtol=1e-3)
