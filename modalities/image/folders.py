"""Folders of images: which layout it is, reading a file, and keeping small sets in memory."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from jepa_lightning.data import DataError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".npy")
"""File name endings that are read, in any case. `.npy` holds an array (C, H, W), (H, W, C) or (H, W)."""

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's mode for a channel count; other counts need .npy files."""

_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_CHUNK = 4096  # images in one block of the cache


def read_image(path: str, *, channels: int, smallest: int = 0) -> NDArray[np.uint8] | Tensor:
    """Read one file.

    Args:
        path: an image or .npy file.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA); any number for .npy.
        smallest: a JPEG larger than this on its short side may be decoded at 1/2, 1/4 or 1/8 of its size, as long as
            it stays at least so large.

    Returns:
        (H, W, C) uint8 for images, turned as their EXIF data say; a tensor (C, H, W) of the file's type for .npy.

    Raises:
        OSError: the file is damaged, truncated or of no known format.
        ValueError: an .npy file of another shape.
    """
    if path.lower().endswith(".npy"):
        return _read_array(path, channels)
    mode = MODES[channels]
    try:
        with Image.open(path) as image:
            if smallest:
                image.draft("L" if channels == 1 else None, (smallest, smallest))
            image.load()
            # Looking for an orientation costs as much as decoding a small JPEG; most have no place for one.
            upright = image.format == "JPEG" and not image.info.keys() & {"exif", "xmp"}
            pixels = np.asarray(convert(image if upright else ImageOps.exif_transpose(image), mode))
    except (OSError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders fail in many ways on damaged files
        raise OSError(f"{type(error).__name__}: {error}") from error
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def convert(image: Image.Image, mode: str) -> Image.Image:
    """An image in another mode; 16-bit grey is scaled to 8 bits, which Pillow would clip."""
    if image.mode == mode:
        return image
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) // 256).clip(0, 255).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert(mode)


def _read_array(path: str, channels: int) -> Tensor:
    array = np.load(path, allow_pickle=False)
    shape = array.shape
    if array.ndim == 2:
        array = array[None]
    elif array.ndim == 3 and array.shape[0] != channels and array.shape[2] == channels:
        array = array.transpose(2, 0, 1)
    if array.ndim != 3 or array.shape[0] != channels or array.dtype.kind not in "buif":
        raise ValueError(
            f"expected numbers of shape ({channels}, H, W) or (H, W, {channels}), got {array.dtype} {shape}"
        )
    if array.dtype == np.uint16:  # torch can do little with it
        array = array.astype(np.float32) / 65535
    return torch.from_numpy(np.ascontiguousarray(array))


class FolderImages(Dataset[Any]):
    """The images under one folder: in one folder a class, or unlabelled.

    Args:
        root: the folder; `sample_id` gives paths below its parent.
        paths: paths of the files below `root`.
        targets: class of each, or None.
        classes: names of the classes, or None.
    """

    def __init__(
        self, root: Path, *, paths: list[str], targets: list[int] | None = None, classes: list[str] | None = None
    ) -> None:
        self._base, self._name = str(root), root.name
        self.targets = None if targets is None else np.asarray(targets, dtype=np.int64)
        self.classes = classes
        self.channels = 3
        self.smallest = 0
        self.unreadable: dict[int, str] = {}
        # Bytes in one array, not a list of strings: reference counts would copy a list into every worker.
        self._paths = np.array([os.fsencode(path) for path in paths])
        self._blocks: list[Tensor] = []  # the cache, _CHUNK images each, one behind the other
        self._spans = np.zeros((0, 3), dtype=np.int64)  # (N, 3): offset in the block, height, width

    def __len__(self) -> int:
        return len(self._paths)

    def path(self, index: int) -> str:
        """Full path of file `index`."""
        return os.path.join(self._base, os.fsdecode(self._paths[index]))

    def sample_id(self, index: int) -> str:
        """Path of file `index`, from the folder that holds `root` on."""
        return os.path.join(self._name, os.fsdecode(self._paths[index]))

    def configure(self, *, channels: int, smallest: int) -> None:
        """Set how files are read (see `read_image`).

        Raises:
            DataError: image files cannot give that number of channels.
        """
        if channels not in MODES and not self.arrays:
            raise DataError(
                f"expected 1 (grey), 3 (RGB) or 4 (RGBA) channels for image files, got {channels}: "
                "set channels to one of these, or store the images as .npy arrays"
            )
        self.channels, self.smallest = channels, smallest

    @property
    def arrays(self) -> bool:
        """Whether the files are .npy."""
        return self.path(0).lower().endswith(".npy")

    def read(self, index: int) -> NDArray[np.uint8] | Tensor:
        """Image `index` from its file."""
        return read_image(self.path(index), channels=self.channels, smallest=self.smallest)

    def __getitem__(self, index: int) -> Any:
        image = self._cached(index) if self._blocks else self.read(index)
        return image if self.targets is None else (image, int(self.targets[index]))

    def _cached(self, index: int) -> NDArray[np.uint8]:
        if index in self.unreadable:
            raise OSError(self.unreadable[index])
        offset, height, width = self._spans[index].tolist()
        flat = self._blocks[index // _CHUNK].numpy()[offset : offset + height * width * self.channels]
        return flat.reshape(height, width, self.channels)

    def decoded_bytes(self) -> float:
        """Estimate of the whole set's size in memory, from the headers of 64 files; infinite for .npy."""
        if self.arrays:
            return float("inf")  # reading these costs little, and their type may be any
        sizes = []
        for index in np.linspace(0, len(self) - 1, min(64, len(self))).astype(int):
            try:
                with Image.open(self.path(index)) as image:
                    if self.smallest:
                        image.draft(None, (self.smallest, self.smallest))
                    sizes.append(image.width * image.height * self.channels)
            except Exception:  # a damaged header: met again, and reported, when the file is read
                continue
        return float(np.mean(sizes)) * len(self) if sizes else 0.0

    def cache(self) -> None:
        """Decode every image into memory; those that cannot be read are listed in `unreadable`."""
        spans = np.zeros((len(self), 3), dtype=np.int64)
        blocks: list[Tensor] = []
        with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 8)) as pool:
            for start in range(0, len(self), _CHUNK):
                pieces, offset = [], 0
                for index, image in enumerate(pool.map(self._try, range(start, min(start + _CHUNK, len(self)))), start):
                    if isinstance(image, str):
                        self.unreadable[index] = image
                        continue
                    spans[index] = offset, *image.shape[:2]
                    pieces.append(image.reshape(-1))
                    offset += image.size
                # A tensor and not an array: where workers are spawned, tensors travel as shared memory.
                blocks.append(torch.from_numpy(np.concatenate(pieces) if pieces else np.zeros(0, np.uint8)))
        self._blocks, self._spans = blocks, spans

    def _try(self, index: int) -> NDArray[np.uint8] | str:
        try:
            return np.asarray(self.read(index))
        except (OSError, ValueError) as error:
            return f"{type(error).__name__}: {error}"


def find_images(root: str) -> dict[str, FolderImages]:
    """The image sets under a folder, by split: "train", and "val" and "test" where they exist.

    Layouts: `root/train/CLASS/*`, with `val` (or `validation`, `valid`) and `test` beside it where they exist;
    `root/CLASS/*`; either without class folders, then unlabelled. A class's images may lie in subfolders. A single
    folder in place of several classes is looked into. Hidden files and folders are left out.

    Raises:
        DataError: no such folder, no images, empty class folders, or splits whose classes do not fit.
    """
    base = Path(root).expanduser()
    if not base.is_dir():
        if base.exists():
            raise DataError(f"expected a folder of images, got the file {root}: name the folder that holds it")
        raise DataError(f"expected a folder of images, but there is no folder {root}{_nearest(base)}: check data.root")
    names = {_SPLITS[entry.name.lower()]: entry for entry in _folders(base) if entry.name.lower() in _SPLITS}
    if "train" not in names:
        return {"train": _scan(base)}
    sets = {"train": _scan(names["train"])}
    for split in ("val", "test"):
        if split in names:
            sets[split] = _scan(names[split], sets["train"].classes)
    return sets


def _scan(folder: Path, known: list[str] | None = None) -> FolderImages:
    flat = any(_is_image(entry.name) for entry in os.scandir(folder) if entry.is_file())
    inner = _folders(folder)
    if not flat and len(inner) == 1 and not known:
        return _scan(inner[0])
    if flat or not inner:
        paths = sorted(_walk(folder, folder))
        if not paths:
            what = "an empty one" if not any(folder.iterdir()) else "no image in it"
            raise DataError(
                f"expected images in {folder}, got {what}: files that are read end in {', '.join(EXTENSIONS)}"
            )
        _check_kinds(folder, paths)
        return FolderImages(folder, paths=paths)
    by_class = {entry.name: sorted(_walk(entry, folder)) for entry in inner}
    empty = [name for name, paths in by_class.items() if not paths]
    if empty:
        raise DataError(
            f"expected images in every class folder of {folder}, got none in {', '.join(empty[:10])}: remove these "
            f"folders or fill them; files that are read end in {', '.join(EXTENSIONS)}"
        )
    if known and not set(by_class) <= set(known):
        extra = sorted(set(by_class) - set(known))
        raise DataError(
            f"expected in {folder} the class folders of the training data, got also {', '.join(extra[:10])}: "
            "rename or remove them"
        )
    classes = known or sorted(by_class)
    paths = [path for name in sorted(by_class) for path in by_class[name]]
    targets = [classes.index(name) for name in sorted(by_class) for _ in by_class[name]]
    _check_kinds(folder, paths)
    return FolderImages(folder, paths=paths, targets=targets, classes=classes)


def _check_kinds(folder: Path, paths: list[str]) -> None:
    arrays = sum(path.lower().endswith(".npy") for path in paths)
    if 0 < arrays < len(paths):
        raise DataError(
            f"expected either image files or .npy files in {folder}, got {len(paths) - arrays} and {arrays}: "
            "their values have different ranges, so keep one kind"
        )


def _folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__")))


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def _walk(folder: Path, base: Path) -> Iterator[str]:
    for where, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        yield from (os.path.relpath(os.path.join(where, name), base) for name in files if _is_image(name))


def _nearest(missing: Path) -> str:
    parent = missing.absolute().parent
    if not parent.is_dir():
        return ""
    near = difflib.get_close_matches(missing.name, [entry.name for entry in _folders(parent)], n=1)
    return f" (there is {missing.parent / near[0]})" if near else ""
