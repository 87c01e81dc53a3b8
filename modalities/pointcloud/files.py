"""Data sets of point clouds: files of class folders or a CSV file, HDF5 in ModelNet's layout, any torch dataset."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from os.path import join
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from jepa_lightning.data import DataError, FileList, MemoryCache, find_files, known_targets
from jepa_lightning.data.arrays import native
from jepa_lightning.data.files.split_names import SPLITS, plain_split_of, split_of
from jepa_lightning.data.files.tree import read_tree
from modalities.pointcloud.reading import EXTENSIONS, INSTALL, Cloud, points_first, read

HDF5 = (".h5", ".hdf5")
_DEFLATED = 1100  # times its size, what compression can unpack to at most
_SYNSETS = "synsetoffset2category.txt"  # beside ShapeNetPart's class folders
_NO_CLOUD = re.compile(
    r"readme|licen[cs]e|names|classes|categor|labels?\b|list|synset|notes?\b|info|index", re.IGNORECASE
)
_CLASS_NAMES = "shape_names.txt"  # beside ModelNet40's HDF5 files: a class a line


class CloudFiles(Dataset[dict[str, Any]]):
    """The cloud files of one split, as dicts: `points` (n, 3 + F) float32, and `labels`.

    Args:
        files: where they lie, and their labels.
        surface: number of points that meshes are sampled to.
        features: F, how many further values of each point are kept, as far as a file has them.
    """

    def __init__(self, files: FileList, *, surface: int, features: int = 0) -> None:
        self.files = files
        self.surface = surface
        self.columns = 3 + features
        self.targets = files.targets
        self.classes = files.classes
        self.unreadable: dict[int, str] = {}
        self._cache: MemoryCache | None = None

    def __len__(self) -> int:
        return len(self.files)

    def sample_id(self, index: int) -> str:
        """Path of file `index`, from the folder that holds `root` on, or as the CSV file has it."""
        return self.files.sample_id(index)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"points": self.cloud(index), "labels": self.files.labels_of(index)}

    def cloud(self, index: int) -> Cloud:
        """Cloud `index`; errors as `modalities.pointcloud.reading.read`."""
        return self._read(index) if self._cache is None else self._cache[index]

    def clouds(self) -> Iterator[Cloud]:
        """All that can be read."""
        return (self.cloud(index) for index in range(len(self)) if index not in self.unreadable)

    def bytes_in_memory(self) -> float:
        """Estimate of the whole set's size in memory, from 16 of the clouds."""
        sizes = []
        for index in np.linspace(0, len(self) - 1, min(16, len(self))).astype(int).tolist():
            try:
                sizes.append(self._read(index).nbytes)
            except OSError:  # met again, and reported, when the file is read
                continue
        return float(np.mean(sizes)) * len(self) if sizes else 0.0

    def cache(self) -> None:
        """Read every cloud into memory; those that cannot be read are listed in `unreadable`."""
        self._cache = MemoryCache(len(self), self._read)
        self.unreadable = self._cache.unreadable

    def _read(self, index: int) -> Cloud:
        return read(self.files.regular(index), surface=self.surface)[:, : self.columns]


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

    def clouds(self) -> Iterator[NDArray[Any]]:
        """All clouds."""
        return (cloud.numpy() for array in self.arrays for cloud in array)


class GivenClouds(Dataset[Any]):
    """Anyone's dataset; a tuple's first entry is the cloud, its second the label.

    Args:
        dataset: gives a cloud (n, 3 + F), tensor or array; (cloud, label); or a dict with `points`.
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset
        self.targets = known_targets(dataset)
        self.classes = getattr(dataset, "classes", None)
        if hasattr(dataset, "sample_id"):
            self.sample_id = dataset.sample_id

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        item = self.dataset[index]
        if isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[1], Tensor | np.ndarray):
            return item[0], item[1].reshape(()) if np.prod(item[1].shape) == 1 else item[1]  # ModelNet's (1,)
        return item


def find_hdf5(root: str | None) -> dict[str, list[Path]]:
    """The HDF5 files that `root` is, or holds, by split; none where it holds none.

    The split stands in the file's name (train*.h5, ply_data_test0.h5, x_val.h5) or is its folder's. A single file, or
    files none of which names a split, are training data.

    Raises:
        DataError: some files name a split and others do not; there are test files, but none for training.
    """
    base = Path(root or "").expanduser()
    if root is None or not base.exists():
        return {}
    if base.is_file():
        return {"train": [base]} if base.suffix.lower() in HDF5 else {}
    folders = [base, *(f for f in sorted(base.iterdir()) if f.is_dir() and plain_split_of(f.name))]
    files = [f for folder in folders for f in sorted(folder.iterdir()) if f.suffix.lower() in HDF5 and f.is_file()]
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


def find_clouds(root: str | None, *, csv: str | None = None, labels: list[str] | None = None) -> dict[str, FileList]:
    """The cloud files under a folder, or in a CSV file, by split; see `jepa_lightning.data.find_files`.

    Files that end in .txt count where there are none (or a few strays) of another format, but for lists and notes.
    Known are ModelNet's own layout, `root/CLASS/train/*` and `root/CLASS/test/*`, or CLASS/* with modelnet40_train.txt
    and modelnet40_test.txt; and ShapeNetPart's, with the lists of train_test_split and the names of
    synsetoffset2category.txt.

    Raises:
        DataError: as `find_files`.
    """
    options: dict[str, Any] = {"kind": "point cloud", "csv": csv, "labels": labels, "is_sample": _is_cloud}
    base = Path(root or "").expanduser()
    texts = csv is None and base.is_dir() and _of_texts(str(base))
    endings = EXTENSIONS if texts else tuple(ending for ending in EXTENSIONS if ending != ".txt")
    found = find_files(root, extensions=endings, **options)
    names = _synsets(Path(found["train"].root))
    for files in found.values():
        if files.classes is not None and set(files.classes) <= set(names):
            files.classes = [names[name] for name in files.classes]
    return found


def _of_texts(folder: str) -> bool:
    """Whether the clouds are .txt files: those of other formats are none, or a few strays beside ten times as many."""
    tree, _ = read_tree(folder, lambda where, name: name.lower().endswith(EXTENSIONS) and _is_cloud(join(where, name)))
    paths = list(tree.paths(folder))
    texts = [path for path in paths if path.lower().endswith(".txt")]
    others = len(paths) - len(texts)
    return not others or (len(texts) >= 10 * others and _is_points(texts[0]))


def _is_cloud(path: str) -> bool:
    """Whether a file is a cloud: one called train.txt, README.txt or shape_names.txt may be a list instead."""
    stem, ending = os.path.splitext(os.path.basename(path))
    if ending.lower() != ".txt" or not (_NO_CLOUD.search(stem) or split_of(stem)):
        return True
    return _is_points(path)


def _is_points(path: str) -> bool:
    """Whether the first line of a text file holds numbers of a point."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = (re.split(r"[\s,;]+", line.strip()) for line in file if line.strip() and line[0] not in "#/")
            return len([float(word) for word in next(lines, []) if word]) >= 3
    except (OSError, ValueError):
        return False


def _synsets(folder: Path) -> dict[str, str]:
    """Names of ShapeNet's classes by folder (synsetoffset2category.txt: Airplane 02691156), where the file is there."""
    file = folder / _SYNSETS
    try:
        pairs = [line.split() for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []
    except (OSError, ValueError):
        return {}
    return {pair[1]: pair[0] for pair in pairs if len(pair) == 2}


def class_names(folder: Path) -> list[str] | None:
    """The classes' names in a folder of HDF5 files (shape_names.txt, a line a class), where they are."""
    file = folder / _CLASS_NAMES
    return file.read_text(encoding="utf-8").split() if file.is_file() else None


def _own(file: Any, name: str) -> Any:
    """A dataset that lies in the file itself: others would show any file that the user may read.

    Raises:
        OSError: it is a link, or its values lie in other files.
    """
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise OSError(f"expected the dataset {name}, got a link, which was not followed: store the values in the file")
    dataset = file[name]
    if dataset.is_virtual or dataset.external:
        raise OSError(f"expected the values of {name} in the file, got some in other files: store them in the file")
    return dataset


def _stored(dataset: Any) -> NDArray[Any]:
    """The array in a dataset of an HDF5 file; errors of any kind where the file is damaged."""
    size, stored = dataset.nbytes, dataset.id.get_storage_size()
    if size > _DEFLATED * stored + _DEFLATED:  # the rest would be filled in, however much it is
        raise OSError(f"{dataset.name} {dataset.shape} should hold {size} bytes, and {stored} are there")
    return dataset[()]


def _read_hdf5(path: Path) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    try:
        import h5py
    except ImportError:
        raise DataError(f"HDF5 files need h5py, which is not installed: {INSTALL}") from None
    try:
        with h5py.File(path) as file:
            there = list(file)  # by name alone: asking for one that is a link would open what it names
            found = {name: _stored(_own(file, name)) for name in ("data", "normal", "label") if name in there}
            names = ", ".join(there[:10])
    except Exception as error:  # h5py has one of its own for each thing that can be wrong inside a file
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise DataError(f"expected an HDF5 file, got {path}, which cannot be read: {reason}") from None
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
