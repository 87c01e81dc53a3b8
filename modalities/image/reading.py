"""Reading one image file."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, features
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT
from torch import Tensor

from jepa_lightning.data import Encoded
from jepa_lightning.data.arrays import native
from modalities.image.values import EIGHT, Values, values_of

_OPTIONAL = {  # what Pillow reads where it was built with the library
    "webp": (".webp",),
    "avif": (".avif", ".avifs"),
    "jpg_2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
}
EXTENSIONS = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".npy"),
    *(".jpe", ".jfif", ".mpo", ".apng", ".dib", ".pbm", ".pnm", ".pfm", ".tga", ".pcx", ".qoi", ".sgi", ".ras"),
    *(ending for library, endings in _OPTIONAL.items() if features.check(library) for ending in endings),
)
"""File name endings that are read, in any case. `.npy` holds an array (C, H, W), (H, W, C) or (H, W)."""

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's mode for a channel count; other counts need .npy files."""

_FIRST = {"La": "LA", "RGBa": "RGBA", "LAB": "RGB"}  # to other modes, Pillow converts these darker or not at all
_SIGNED, _WHITE_IS_ZERO = (2,), 0  # values of the tags of a TIFF file

MAX_PIXELS = 64_000_000
"""Pixels of an image that is decoded, by default: those of the largest cameras; 192 MB as RGB."""


def read_image(
    path: str | Encoded, *, channels: int, smallest: int = 0, max_pixels: int = MAX_PIXELS, values: Values | None = None
) -> NDArray[np.uint8] | Tensor:
    """Read one file.

    Args:
        path: an image or .npy file, or one that is in memory.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA); any number for .npy.
        smallest: a JPEG larger than this on its short side may be decoded at 1/2, 1/4 or 1/8 of its size, as long as
            it stays at least so large.
        max_pixels: an image that is decoded to more is refused: a file of a few kB may hold any number.
        values: which of them become 0 and 255, of image files with other than 8 bits; None: by the file itself
            (`values_of`).

    Returns:
        (H, W, C) uint8 for images, turned as their EXIF data say; a tensor (C, H, W) of the file's type for .npy.

    Raises:
        OSError: the file is damaged, truncated, of no known format, or has too many pixels.
        ValueError: an .npy file of another shape.
    """
    name, file = (path.name, path.open()) if isinstance(path, Encoded) else (path, path)
    if name.lower().endswith(".npy"):
        return _read_array(file, channels)  # whose values are scaled later, with those of other arrays
    mode = MODES[channels]
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels  # Pillow's own limit, of the process, gives way to a higher one of the user
    try:
        with Image.open(file) as image:
            if smallest:
                image.draft("L" if channels == 1 else None, (smallest, smallest))
            _check_size(image, max_pixels)
            stored = as_stored(image)
            # Looking for an orientation costs as much as decoding a small JPEG; most have no place for one.
            upright = image.format == "JPEG" and not image.info.keys() & {"exif", "xmp"}
            pixels = np.asarray(convert(stored if upright else ImageOps.exif_transpose(stored), mode, values))
    except OSError:
        raise
    except MemoryError as error:  # most often a damaged header, and not a large picture
        raise OSError("it asks for more memory than there is") from error
    except Exception as error:  # Pillow's decoders fail in many ways on damaged files
        raise OSError(f"{type(error).__name__}: {error}") from error
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def convert(image: Image.Image, mode: str, values: Values | None = None) -> Image.Image:
    """Convert an image to a mode; grey of 16 or 32 bits and floats are scaled to 8 bits, where Pillow would clip them.

    Raises:
        OSError: values that are not finite, or outside of `values`.
    """
    image = as_stored(image)
    if image.mode == mode:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        pixels = np.asarray(image)
        image = Image.fromarray((values or values_of([pixels]) or EIGHT).byte(pixels))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode in _FIRST:
        image = image.convert(_FIRST[image.mode])
    return image.convert(mode)


def is_wide(image: Image.Image) -> bool:
    """Tell whether an opened image is grey of other than 8 unsigned bits."""
    signed = image.mode == "L" and getattr(image, "tag_v2", {}).get(SAMPLEFORMAT) == _SIGNED
    return image.mode.startswith("I") or image.mode == "F" or signed


def as_stored(image: Image.Image) -> Image.Image:
    """Load an image; of TIFF files, put right the grey values that Pillow takes for others.

    It gives signed numbers of 8 bits as unsigned, unsigned ones of 32 bits as signed, and those of 16 bits of which 0
    is white as if 0 were black.
    """
    image.load()
    tags = getattr(image, "tag_v2", None)
    if tags is None or not is_wide(image):
        return image
    pixels = np.asarray(image)
    if image.mode == "L":
        return Image.fromarray(pixels.view(np.int8).astype(np.int32))
    if image.mode == "I" and tags.get(SAMPLEFORMAT) != _SIGNED and pixels.min() < 0:
        return Image.fromarray(pixels.view(np.uint32).astype(np.float32))
    if image.mode.startswith("I;16") and tags.get(PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO:
        return Image.fromarray(65535 - pixels.astype(np.uint16))
    return image


def loses_bits(image: ImageFile.ImageFile) -> bool:
    """Tell whether an opened image, not yet loaded, has more than 8 bits a channel, of which Pillow reads 8."""
    if not image.tile or is_wide(image):
        return False
    decoder, *_, arguments = image.tile[0]
    if decoder.startswith("ppm") and isinstance(arguments, tuple):
        return int(arguments[-1]) > 255  # the largest value
    return decoder == "SGI16" or ";16" in str(arguments)


def _check_size(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise OSError(
            f"expected an image of at most {max_pixels:,} pixels, got {image.width} x {image.height}: if it is meant "
            "to be so large, raise data.max_pixels"
        )


def _read_array(file: str | BytesIO, channels: int) -> Tensor:
    try:
        array = np.load(file, allow_pickle=False)
        shape = array.shape
    except OSError:
        raise
    except Exception as error:  # damaged ones raise many things; MemoryError where the header lies about the size
        raise OSError(f"not an array: {str(error)[:200] or type(error).__name__}") from None
    if array.ndim == 2:
        array = array[None]
    elif array.ndim == 3 and array.shape[0] != channels and array.shape[2] == channels:
        array = array.transpose(2, 0, 1)
    if array.ndim != 3 or array.shape[0] != channels or array.dtype.kind not in "buif":
        raise ValueError(
            f"expected numbers of shape ({channels}, H, W) or (H, W, {channels}), got {array.dtype} {shape}"
        )
    return torch.from_numpy(np.ascontiguousarray(native(array)))
