"""Pictures of every mode of Pillow, in memory and in every file format that holds it, have their true values."""

import colorsys
import io
import math
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from modalities.image import ImageData, ImageViews
from modalities.image.reading import EXTENSIONS

HEIGHT, WIDTH = 5, 7
SETTINGS = {"image_size": (HEIGHT, WIDTH), "batch_size": 4, "num_workers": 0, "val_fraction": 0.0}
FORMATS = {  # that keep every value
    "1": ["png", "tif", "tga", "bmp", "dib", "pcx", "pbm"],
    "L": ["png", "tif", "tga", "bmp", "dib", "pcx", "pgm", "sgi", "jp2", "gif", "webp"],
    "LA": ["png", "tif", "tga", "jp2", "webp"],
    "P": ["png", "tif", "tga", "bmp", "pcx", "gif", "webp"],
    "PA": ["tif", "webp"],
    "RGB": ["png", "apng", "tif", "tga", "bmp", "dib", "pcx", "ppm", "sgi", "qoi", "jp2", "webp"],
    "RGBA": ["png", "tif", "tga", "sgi", "qoi", "jp2", "webp"],
    "RGBX": ["tif"],
    "CMYK": ["tif", "jp2"],
    "YCbCr": ["tif"],
    "LAB": ["tif"],
    "HSV": [],
    "La": [],
    "RGBa": [],
}
CASES = [
    (mode, ending)
    for mode, endings in FORMATS.items()
    for ending in ("", *endings)
    if f".{ending}" in EXTENSIONS or not ending
]


def drawn(mode):
    """A picture of random numbers."""
    rng = np.random.default_rng(0)
    if mode == "1":
        return Image.fromarray(rng.integers(0, 2, (HEIGHT, WIDTH)).astype(bool))
    numbers = rng.integers(0, 256, (HEIGHT, WIDTH, len(Image.new(mode, (1, 1)).getbands())), dtype=np.uint8)
    if mode == "LAB":  # colours that a screen has; two of the numbers have a sign
        numbers = numbers // [3, 10, 10] + [100, -12, -12]
        numbers = numbers.astype(np.uint8)
    if mode in ("La", "RGBa"):  # no colour is brighter than its alpha
        numbers[..., -1] |= 128
        numbers[..., :-1] //= 2
    image = Image.frombytes(mode, (WIDTH, HEIGHT), numbers.tobytes())
    if mode in ("P", "PA"):
        image.putpalette(rng.integers(0, 256, 768, dtype=np.uint8).tobytes())
    return image


def of_lab(numbers):
    """CIE L*a*b* under D50 to sRGB."""
    light = numbers[..., 0] * 100 / 255
    a, b = (numbers[..., place].astype(np.uint8).view(np.int8).astype(float) for place in (1, 2))
    y = (light + 16) / 116
    cubes = np.stack([y + a / 500, y, y - b / 200], axis=-1)
    xyz = np.where(cubes > 6 / 29, cubes**3, 3 * (6 / 29) ** 2 * (cubes - 4 / 29)) * [0.96422, 1, 0.82521]
    linear = (
        xyz @ np.linalg.inv([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.7141]]).T
    )
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def true(image):
    """Red, green, blue, alpha and grey of each pixel, from 0 to 255, by the modes' own formulas."""
    mode = image.mode
    numbers = np.frombuffer(image.tobytes(), np.uint8)
    if mode == "1":
        numbers = np.unpackbits(numbers.reshape(HEIGHT, -1), axis=1)[:, :WIDTH] * 255
    numbers = numbers.reshape(HEIGHT, WIDTH, -1).astype(float)
    alpha = numbers[..., -1:] if mode[-1] in "Aa" else np.full((HEIGHT, WIDTH, 1), 255.0)
    if mode in ("1", "L", "LA", "La"):
        colours = numbers[..., :1].repeat(3, axis=2)
    elif mode in ("P", "PA"):
        colours = np.array(image.getpalette("RGB")).reshape(-1, 3)[numbers[..., 0].astype(int)]
    elif mode == "CMYK":
        colours = (255 - numbers[..., :3]) * (255 - numbers[..., 3:]) / 255
    elif mode == "YCbCr":
        y, blue, red = numbers[..., 0], numbers[..., 1] - 128, numbers[..., 2] - 128
        colours = np.stack([y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue], axis=2)
    elif mode == "HSV":
        colours = np.array([[colorsys.hsv_to_rgb(*pixel) for pixel in row] for row in numbers / 255]) * 255
    elif mode == "LAB":
        colours = of_lab(numbers)
    else:
        colours = numbers[..., :3]
    if mode in ("La", "RGBa"):
        colours = colours * 255 / alpha
    colours = colours.clip(0, 255)
    grey = colours @ [0.299, 0.587, 0.114] if mode != "YCbCr" else numbers[..., 0]
    return np.concatenate([colours, alpha, grey[..., None]], axis=2)


def stored(image, ending):
    file = io.BytesIO()
    kind = Image.registered_extensions()[f".{ending}"]
    image.save(file, format=kind, **({"lossless": True, "exact": True} if ending == "webp" else {}))
    return file.getvalue()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_mode_in_memory_and_in_files(channels, tmp_path):
    kept = {1: [4], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[channels]
    pictures = [drawn(mode) for mode, _ in CASES]
    for number, (picture, (_, ending)) in enumerate(zip(pictures, CASES, strict=True)):
        (tmp_path / f"{number:03}.{ending or 'png'}").write_bytes(
            stored(picture if ending else drawn("L"), ending or "png")
        )
    in_memory = ImageData(dataset=pictures, channels=channels, **SETTINGS)
    in_files = ImageData(root=str(tmp_path), channels=channels, **SETTINGS)
    for number, (mode, ending) in enumerate(CASES):
        data = in_files if ending else in_memory
        found = data.part("probe").read(number)["image"].permute(1, 2, 0).numpy()
        assert found.dtype == np.uint8
        most = {"YCbCr": 1.5, "CMYK": 1.5, "LAB": 3, "La": 2, "RGBa": 2}.get(mode, 1)
        np.testing.assert_allclose(found, true(pictures[number])[..., kept], atol=most, err_msg=f"{mode} {ending}")
    assert not in_files.unreadable


WIDE = {"I": "<i4", "F": "<f4", "I;16": "<u2", "I;16B": ">u2", "I;16L": "<u2", "I;16N": "=u2"}
LEVELS = (100, 500, 1000, 4095)


@pytest.mark.parametrize("kind", [*WIDE, "array", "tensor"])
def test_grey_of_more_bits_in_a_dataset_has_one_range(kind, caplog):
    """Not each image its own; training views have that of the evaluation."""
    numbers = [np.full((HEIGHT, WIDTH), level) for level in LEVELS]
    if kind in WIDE:
        images = [Image.frombytes(kind, (WIDTH, HEIGHT), one.astype(WIDE[kind]).tobytes()) for one in numbers]
    else:
        images = [one.astype("<u2") if kind == "array" else torch.from_numpy(one) for one in numbers]
    plain = ImageViews(jitter=0, grey=0, blur=0, solarise=0)
    data = ImageData(dataset=images, channels=1, mean=[0.0], std=[1.0], views=2, view_transform=plain, **SETTINGS)
    batch = next(iter(data.train_dataloader()))
    for sample_id, seen in zip(batch["id"], batch["image"], strict=True):
        number = int(sample_id[len("train[") : -1])
        read = data.part("probe").read(number)["image"]
        read = read / 255 if read.dtype == torch.uint8 else read
        for found in (seen, read):
            np.testing.assert_allclose(found, LEVELS[number] / 4095, atol=0.6 / 255)
    assert "from 100 to 4095 are read as 12-bit values" in caplog.text


def tiff(numbers, *, colour=1):
    """The plainest TIFF file of (H, W) or (H, W, 3), as its specification has it (Pillow does not write these kinds).

    Args:
        numbers: in it.
        colour: 0 where 0 is white, 1 where it is black, 2 for red, green and blue.
    """
    kind = {"u": 1, "i": 2, "f": 3}[numbers.dtype.kind]
    data, bands = numbers.tobytes(), math.prod(numbers.shape[2:])
    data += struct.pack("<3H", *[8 * numbers.itemsize] * 3)  # where three do not fit into the entry
    bits = (258, 3, bands, 8 * numbers.itemsize if bands == 1 else 8 + len(data) - 6)
    tags = [(256, 3, 1, numbers.shape[1]), (257, 3, 1, numbers.shape[0]), bits, (259, 3, 1, 1), (262, 3, 1, colour),
            (273, 4, 1, 8), (277, 3, 1, bands), (278, 3, 1, numbers.shape[0]), (279, 4, 1, numbers.nbytes)]  # fmt: skip
    tags += [(339, 3, 1, kind)] if bands == 1 else []
    entries = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + entries + bytes(4)


def png(numbers):
    """A PNG file of (H, W, 3), 16 bits."""
    lines = b"".join(b"\0" + line.tobytes() for line in numbers)
    head = struct.pack(">IIBBBBB", *numbers.shape[1::-1], 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


@pytest.mark.parametrize(
    ("dtype", "low", "high", "white_is_zero"),
    [("u1", 0, 255, False), ("u1", 0, 255, True), ("i1", -128, 127, False), ("<u2", 0, 65535, False),
     ("<u2", 0, 65535, True), ("<i2", -300, 2000, False), ("<u4", 0, 2**32 - 1, False), ("<i4", -5, 2**31 - 1, False)],
)  # fmt: skip
def test_grey_tiff_files_of_every_type(dtype, low, high, white_is_zero, tmp_path):
    shares = np.random.default_rng(0).random((HEIGHT, WIDTH))
    shares[0, :2] = 0, 1
    numbers = np.rint(low + shares * (high - low)).astype(dtype)
    for name in "ab":
        (tmp_path / f"{name}.tif").write_bytes(tiff(numbers, colour=0 if white_is_zero else 1))
    data = ImageData(root=str(tmp_path), channels=1, **SETTINGS)
    found = data.part("probe").read(0)["image"][0].numpy() / 255
    np.testing.assert_allclose(found, 1 - shares if white_is_zero else shares, atol=1 / 255)


@pytest.mark.parametrize("ending", ["png", "tif", "ppm", "sgi"])
def test_colours_of_16_bits_are_said_to_be_cut(ending, tmp_path, caplog):
    colours = np.random.default_rng(0).integers(0, 65536, (HEIGHT, WIDTH, 3)).astype(">u2")
    if ending == "ppm":
        data = b"P6 %d %d 65535\n" % (WIDTH, HEIGHT) + colours.tobytes()
    elif ending == "sgi":
        data = struct.pack(">hBBHHHH", 474, 0, 2, 3, WIDTH, HEIGHT, 3).ljust(512, b"\0")
        data += colours[::-1].transpose(2, 0, 1).tobytes()
    elif ending == "png":
        data = png(colours)
    else:
        data = tiff(colours.astype("<u2"), colour=2)
    for name in "ab":
        (tmp_path / f"{name}.{ending}").write_bytes(data)
    read = ImageData(root=str(tmp_path), channels=3, **SETTINGS)
    found = read.part("probe").read(0)["image"].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, colours / 257, atol=1)
    assert "of 16-bit colour images 8 bits are read; store them as .npy to keep all" in caplog.text


@pytest.mark.parametrize("ending", ["gif", "tif", "png", "webp"])
@pytest.mark.parametrize("count", [1, 3])
def test_files_of_several_images_are_said_to_give_the_first(ending, count, tmp_path, caplog):
    frames = [Image.fromarray(np.full((HEIGHT, WIDTH), 40 + 60 * number, np.uint8)) for number in range(count)]
    for name in "ab":
        frames[0].save(
            tmp_path / f"{name}.{ending}",
            save_all=True,
            append_images=frames[1:],
            **({"lossless": True} if ending == "webp" else {}),
        )
    read = ImageData(root=str(tmp_path), channels=1, **SETTINGS)
    found = read.part("probe").read(0)["image"]
    np.testing.assert_allclose(found, 40, atol=1)
    assert ("of files that hold several images" in caplog.text) == (count > 1)
    assert "the first is read: store each" in caplog.text or count == 1


def test_photographs_with_a_preview_hold_one_image(tmp_path, caplog):
    """Cameras and telephones write JPEG files of the kind MPO: a photograph, and previews or depth beside it."""
    frames = [Image.fromarray(np.full((HEIGHT, WIDTH, 3), value, np.uint8)) for value in (40, 100)]
    for name in "ab":
        frames[0].save(tmp_path / f"{name}.jpg", format="MPO", save_all=True, append_images=frames[1:])
    read = ImageData(root=str(tmp_path), channels=3, **SETTINGS)
    np.testing.assert_allclose(read.part("probe").read(0)["image"], 40, atol=2)
    assert "several images" not in caplog.text
