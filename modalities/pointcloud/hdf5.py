"""Point clouds in HDF5 files of ModelNet's layout."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from jepa_lightning.data import DataError
from jepa_lightning.data.arrays import native
from jepa_lightning.data.files.hdf5 import ENDINGS, open_hdf5, read_array
from jepa_lightning.data.files.split_names import SPLITS, plain_split_of
from modalities.pointcloud.reading import points_first

_CLASS_NAMES = "shape_names.txt"  # beside ModelNet40's HDF5 files: a class a line


class HDF5Clouds(Dataset[dict[str, Any]]):
    """The clouds of one split in HDF5 files of ModelNet's layout, as dicts: `points` (P, 3 + F) and `labels`.

    A file holds `data` (n, P, 3 or more) and perhaps `normal` (n, P, 3), which then are the first features, and `label`
    (n,) or (n, 1), whole numbers. All are read into memory when the set is built, in the type that they are stored in.

    Args:
        paths: of the files.
        classes: names of the classes, or None.

    Raises:
        DataError: a file is damaged or holds other things; h5py is not installed.
    """

    def __init__(self, paths: Sequence[Path], *, classes: list[str] | None = None) -> None:
        read_all = [_read_hdf5(path) for path in paths]
        self.names = [path.name for path in paths]
        self.arrays = [torch.from_numpy(data) for data, _ in read_all]
        self.starts = np.cumsum([0, *(len(data) for data in self.arrays)])
        labels = [label for _, label in read_all if label is not None]
        if labels and len(labels) < len(read_all):
            without = next(path for path, (_, label) in zip(paths, read_all, strict=True) if label is None)
            raise DataError(f"expected labels in all files or in none, got no dataset label in {without}")
        self.targets = np.concatenate(labels) if labels else None
        known = classes is not None and self.targets is not None and self.targets.max(initial=-1) < len(classes)
        self.classes = classes if known else None

    def __len__(self) -> int:
        return int(self.starts[-1])

    def sample_id(self, index: int) -> str:
        """Name of the file and place in it of cloud `index`: train.h5[12]."""
        file = int(np.searchsorted(self.starts, index, side="right")) - 1
        return f"{self.names[file]}[{index - self.starts[file]}]"

    def __getitem__(self, index: int) -> dict[str, Any]:
        file = int(np.searchsorted(self.starts, index, side="right")) - 1
        labels = {} if self.targets is None else {"label": self.targets[index]}
        return {"points": self.arrays[file][index - int(self.starts[file])], "labels": labels}

    @cached_property
    def input_shape(self) -> tuple[int, ...] | None:
        """(P, 3 + F) where all files have it, and no number is NaN or infinite."""
        first = self.arrays[0]
        same = all(a.shape[1:] == first.shape[1:] and a.dtype == first.dtype for a in self.arrays)
        return tuple(first.shape[1:]) if same and all(bool(a.isfinite().all()) for a in self.arrays) else None

    def take(self, indices: NDArray[np.int64]) -> dict[str, Any]:
        """Clouds (B, P, 3 + F) and labels of many samples."""
        files = np.searchsorted(self.starts, indices, side="right") - 1
        points = torch.empty((len(indices), *self.arrays[0].shape[1:]), dtype=self.arrays[0].dtype)
        for file in np.unique(files):
            (places,) = np.nonzero(files == file)
            points[places] = self.arrays[file][indices[places] - self.starts[file]]
        labels = {} if self.targets is None else {"label": self.targets[indices]}
        return {"points": points.numpy(), "labels": labels}

    def clouds(self) -> Iterator[NDArray[Any]]:
        """Give all clouds."""
        return (cloud.numpy() for array in self.arrays for cloud in array)


def find_hdf5(root: str | None) -> dict[str, list[Path]]:
    """Find the HDF5 files that `root` is, or holds, by split; none where it holds none.

    The split stands in the file's name (train*.h5, ply_data_test0.h5, x_val.h5) or is its folder's. A single file, or
    files none of which names a split, are training data.

    Raises:
        DataError: some files name a split and others do not; there are test files, but none for training.
    """
    base = Path(root or "").expanduser()
    if root is None or not base.exists():
        return {}
    if base.is_file():
        return {"train": [base]} if base.suffix.lower() in ENDINGS else {}
    folders = [base, *(f for f in sorted(base.iterdir()) if f.is_dir() and plain_split_of(f.name))]
    files = [f for folder in folders for f in sorted(folder.iterdir()) if f.suffix.lower() in ENDINGS and f.is_file()]
    files = [f for f in files if not f.name.startswith(".")]
    found: dict[str, list[Path]] = {}
    for file in files:
        named = [SPLITS[word] for word in re.findall("[a-z]+", file.stem.lower()) if word in SPLITS]
        if not named and file.parent != base:
            named = [str(plain_split_of(file.parent.name))]
        found.setdefault(named[-1] if named else "", []).append(file)
    if set(found) == {""}:
        return {"train": found[""]}
    if "" in found:
        raise DataError(
            f"expected HDF5 files in {root} that all have train, val or test in their names, or none of them, got "
            f"also {found[''][0].name}: move it away, or name a single file as data.root"
        )
    if found and "train" not in found:
        raise DataError(f"expected HDF5 files for training in {root}, got {files[0].name}: name one train.h5")
    return found


def class_names(folder: Path) -> list[str] | None:
    """Read the classes' names in a folder of HDF5 files (shape_names.txt, a line a class), where they are."""
    file = folder / _CLASS_NAMES
    return file.read_text(encoding="utf-8").split() if file.is_file() else None


def _read_hdf5(path: Path) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    try:
        with open_hdf5(path, extra="pointcloud") as file:
            there = list(file)  # by name alone: asking for one that is a link would open what it names
            found = {name: read_array(file, name) for name in ("data", "normal", "label") if name in there}
    except OSError as error:
        raise DataError(f"expected an HDF5 file, got {path}, which cannot be read: {error}") from None
    names = ", ".join(there[:10])
    data, normal, label = (found.get(name) for name in ("data", "normal", "label"))
    if data is not None and data.ndim == 3 and data.dtype.kind in "iuf":
        data = native(points_first(data))
    if normal is not None:
        normal = points_first(normal)
    if data is None or data.ndim != 3 or data.shape[2] < 3 or data.dtype.kind not in "iuf":
        what = f"the datasets {names}" if data is None else f"data of {data.dtype} {data.shape}"
        raise DataError(f"expected in {path} a dataset data (clouds, points, 3 or more) of numbers, got {what}")
    if normal is not None:
        if normal.shape != (*data.shape[:2], 3):
            raise DataError(f"expected in {path} normal {(*data.shape[:2], 3)}, as data, got {normal.shape}")
        data = np.concatenate([data[..., :3], normal.astype(data.dtype), data[..., 3:]], axis=2)
    if label is None:
        return data, None
    if label.size != len(data) or label.dtype.kind not in "iu":
        raise DataError(
            f"expected in {path} a whole number as label for each of {len(data)} clouds, got {label.dtype} "
            f"{label.shape}: write labels (clouds,)"
        )
    return data, label.reshape(-1).astype(np.int64)
