"""Data sets of point clouds: files of class folders or a CSV file, and anyone's torch dataset."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cached_property
from os.path import join
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from jepa_lightning.data import CachedFileSet, Encoded, FileList, find_files
from jepa_lightning.data.files.split_names import split_of
from jepa_lightning.data.files.tree import read_tree
from jepa_lightning.data.sources.given import WrappedDataset
from jepa_lightning.data.sources.records import decode_array
from modalities.pointcloud.reading import EXTENSIONS, Cloud, read

_SYNSETS = "synsetoffset2category.txt"  # beside ShapeNetPart's class folders
_NO_CLOUD = re.compile(
    r"readme|licen[cs]e|names|classes|categor|labels?\b|list|synset|notes?\b|info|index", re.IGNORECASE
)


class CloudFiles(CachedFileSet):
    """The cloud files of one split, as dicts: `points` (n, 3 + F) float32, and `labels`.

    Args:
        files: where they lie, and their labels.
        surface: number of points that meshes are sampled to.
        features: F, how many further values of each point are kept, as far as a file has them.
    """

    key = "points"
    examined = 16

    def __init__(self, files: FileList, *, surface: int, features: int = 0) -> None:
        super().__init__(files)
        self.surface = surface
        self.columns = 3 + features

    @cached_property
    def input_shape(self) -> tuple[int, ...] | None:
        """(n, 3 + F) of every cloud, where all are in memory, of one size, and no number is NaN or infinite."""
        return self._cache.shape if self._cache is not None and self._cache.finite() else None

    def read(self, index: int) -> Cloud:
        """Read cloud `index` from its file; errors as `modalities.pointcloud.reading.read`."""
        return read(self.files.regular(index), surface=self.surface)[:, : self.columns]

    def clouds(self) -> Iterator[Cloud]:
        """Give all that can be read."""
        return (self.value(index) for index in range(len(self)) if index not in self.unreadable)


def read_cloud(file: str | Encoded, *, surface: int, features: int) -> NDArray[Any]:
    """Read the cloud in a file: of a path any format, of what a shard or a table holds an .npy array.

    Errors as `modalities.pointcloud.reading.read` and `decode_array`.
    """
    return decode_array(file) if isinstance(file, Encoded) else read(file, surface=surface)[:, : 3 + features]


class GivenClouds(WrappedDataset):
    """Anyone's dataset; a tuple's first entry is the cloud, its second the label.

    Args:
        dataset: gives a cloud (n, 3 + F), tensor or array; (cloud, label); or a dict with `points`.
    """

    def __getitem__(self, index: int) -> Any:
        item = self.dataset[index]
        if isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[1], Tensor | np.ndarray):
            return item[0], item[1].reshape(()) if np.prod(item[1].shape) == 1 else item[1]  # ModelNet's (1,)
        return item


def find_clouds(root: str | None, *, csv: str | None = None, labels: list[str] | None = None) -> dict[str, FileList]:
    """Find the cloud files under a folder, or in a CSV file, by split; see `jepa_lightning.data.find_files`.

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
    """Tell whether the clouds are .txt files: no others are there, or a few strays beside ten times as many."""
    tree, _ = read_tree(folder, lambda where, name: name.lower().endswith(EXTENSIONS) and _is_cloud(join(where, name)))
    paths = list(tree.paths(folder))
    texts = [path for path in paths if path.lower().endswith(".txt")]
    others = len(paths) - len(texts)
    return not others or (len(texts) >= 10 * others and _is_points(texts[0]))


def _is_cloud(path: str) -> bool:
    """Tell whether a file is a cloud: one called train.txt, README.txt or shape_names.txt may be a list instead."""
    stem, ending = os.path.splitext(os.path.basename(path))
    if ending.lower() != ".txt" or not (_NO_CLOUD.search(stem) or split_of(stem)):
        return True
    return _is_points(path)


def _is_points(path: str) -> bool:
    """Tell whether the first line of a text file holds numbers of a point."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = (re.split(r"[\s,;]+", line.strip()) for line in file if line.strip() and line[0] not in "#/")
            return len([float(word) for word in next(lines, []) if word]) >= 3
    except (OSError, ValueError):
        return False


def _synsets(folder: Path) -> dict[str, str]:
    """Read ShapeNet's classes by folder (synsetoffset2category.txt: Airplane 02691156), if the file is there."""
    file = folder / _SYNSETS
    try:
        pairs = [line.split() for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []
    except (OSError, ValueError):
        return {}
    return {pair[1]: pair[0] for pair in pairs if len(pair) == 2}
