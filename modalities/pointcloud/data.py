"""Point clouds for training: HDF5 in ModelNet's layout, class folders, a CSV file, any torch dataset, or generated."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from jepa_lightning.data import DataError, FileDataModule, Sample, cache_sets
from jepa_lightning.data.batched import BatchTransform
from jepa_lightning.data.shared import FileSettings, Unpack
from jepa_lightning.data.sources.records import Decode
from jepa_lightning.modality import Batch
from modalities.pointcloud.batched import BatchAugment
from modalities.pointcloud.files import CloudFiles, GivenClouds, find_clouds, read_cloud
from modalities.pointcloud.generated import GeneratedClouds
from modalities.pointcloud.hdf5 import HDF5Clouds, class_names, find_hdf5
from modalities.pointcloud.transforms import Augment, PointCloudViews, Rotation, TakePoints

_SURFACE = 4  # points sampled on a mesh, in N
_log = logging.getLogger(__name__)


class PointCloudData(FileDataModule):
    """Batches of point clouds: `points` (B, N, 3 + F) float32, x, y and z, then features; `labels`; `id`.

    Each cloud is moved to mean 0 and scaled to radius 1. Of larger clouds N points are taken: random ones in training,
    always the same in evaluation. Of smaller ones all, some of them repeatedly. Points that are NaN or infinite (also
    in a feature) are left out, and a cloud of equal points passes, as zeros; of data in memory, the numbers of such
    clouds are logged. Clouds without any point, empty and damaged files are unreadable samples: counted, named, and
    replaced.

    `root` is an HDF5 file of ModelNet's layout (`data`, `label`, perhaps `normal`), or a folder of them with train, val
    or test in their names; or a folder of .npy, .npz, .ply, .off, .obj, .stl, .xyz, .pts or .txt files, with or without
    class folders, or a CSV file (`FileDataModule`), or ModelNet's `root/CLASS/train/*`. Meshes are sampled over their
    surface, once. A `dataset` gives clouds (n, 3 + F), tensors or arrays; n may differ.

    Args:
        points: N. None: the model's.
        features: F, the values of each point beside x, y and z that are used. None: the model's.
        normals: the first three features are directions, and turn with the cloud.
        rotation: in training, the axis about which each cloud is turned by a random angle (ModelNet's HDF5 files have y
            upwards, its meshes z); "so3": any rotation; "none".
        scale: in training, range of the factor that each cloud is scaled by.
        jitter: in training, standard deviation of the noise on each coordinate, in radii of the cloud.
        jitter_clip: largest noise either way.
        dropout: in training, the largest share of the points that is left out (others are repeated in their place).
        cache: keep the clouds of files in memory, so that each file is read once, at the start (test clouds are not
            kept). None: when they take less than 1 GiB. HDF5 files are always read into memory.
        cache_folder: keep them in files in this folder instead, which later runs find: each file is read once, for all
            runs, and the set may be larger than memory. What is no longer asked for is not removed.
        samples: number of generated training clouds (an eighth as many for validation).
        **shared: root, csv, labels, dataset, val_dataset and test_dataset (`FileDataModule`); batch_size, num_workers,
            seed and so on (`JEPADataModule`).

    Raises:
        DataError: arguments that do not fit each other or the data.

    Examples:
        >>> from modalities.pointcloud import PointCloudData
        >>> data = PointCloudData(points=128, features=0, samples=64, batch_size=16, num_workers=0)
        >>> batch = next(iter(data.train_dataloader()))
        >>> batch["points"].shape, sorted(batch["labels"])
        (torch.Size([16, 128, 3]), ['elongation', 'flatness', 'noise', 'shape'])
    """

    name = "points"
    takes_at_once = "of one size and without NaN"

    def __init__(
        self,
        *,
        points: int | None = None,
        features: int | None = None,
        normals: bool = False,
        rotation: Rotation = "y",
        scale: tuple[float, float] = (0.8, 1.2),
        jitter: float = 0.0,
        jitter_clip: float = 0.05,
        dropout: float = 0.0,
        cache: bool | None = None,
        cache_folder: str | None = None,
        samples: int = 4000,
        **shared: Unpack[FileSettings],
    ) -> None:
        super().__init__(samples=samples, **shared)
        if rotation not in ("none", "x", "y", "z", "so3"):
            raise DataError(f"expected rotation to be none, x, y, z or so3, got {rotation!r}")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] < float("inf"):
            raise DataError(f"expected scale as a lower and an upper factor above 0, got {list(scale)}")
        if not (0 <= jitter < float("inf") and 0 <= jitter_clip < float("inf")):
            raise DataError(f"expected jitter and jitter_clip of at least 0, got {jitter:g} and {jitter_clip:g}")
        if not 0 <= dropout < 1:
            raise DataError(f"expected dropout from 0 to below 1, got {dropout:g}")
        self.points = points
        self.features = features
        self.normals = normals
        self.rotation: Rotation = rotation
        self.scale = scale
        self.jitter = jitter
        self.jitter_clip = jitter_clip
        self.dropout = dropout
        self.cache = cache
        self.cache_folder = cache_folder
        self.only_for_files(cache_folder=cache_folder)

    @property
    def size(self) -> tuple[int, int]:
        """N and F of a batch's `points` (B, N, 3 + F)."""
        points, features = (int(self.or_model(name, getattr(self, name))) for name in ("points", "features"))
        if points < 1 or features < 0:
            raise DataError(f"expected at least 1 point and 0 features, got {points} and {features}")
        if self.normals and features < 3:
            raise DataError(f"expected at least 3 features where the first three are normals, got {features}")
        return points, features

    def decoding(self) -> Decode:
        """Read a cloud of any format from its file; of .npy files in shards and tables, the array."""
        points, features = self.size
        return partial(read_cloud, surface=_SURFACE * points, features=features)

    def wrap(self, dataset: Dataset[Any]) -> Dataset[Any]:
        """Wrap anyone's dataset, its labels as numbers."""
        return GivenClouds(dataset)

    def load_files(self) -> dict[str, Dataset[Any]]:
        """Load the clouds in HDF5 files, folders or a CSV file, by split."""
        points, features = self.size
        hdf5 = find_hdf5(self.root) if self.csv is None else {}
        if hdf5:
            return self._hdf5(hdf5)
        sets = {
            split: CloudFiles(files, surface=_SURFACE * points, features=features)
            for split, files in find_clouds(self.root, csv=self.csv, labels=self.labels).items()
        }
        kept = {split: clouds for split, clouds in sets.items() if split != "test"}
        if cache_sets(kept.values(), self.cache, self.cache_folder):
            for split, clouds in kept.items():
                report(split, clouds.clouds(), points=points, features=features)
            self.in_memory = True
        return dict(sets)

    def generate(self) -> dict[str, Dataset[Any]]:
        """Draw solids; see `GeneratedClouds`."""
        points, features = self.size
        if features not in (0, 3):
            raise DataError(f"expected 0 features, or 3 (normals), of the generated clouds, got {features}")
        counts = {"train": self.samples, "val": self.samples // 8}
        return {
            split: GeneratedClouds(count, points=points, normals=features == 3, seed=self.seed, split=split)
            for split, count in counts.items()
        }

    def transforms(self) -> tuple[Callable[[Sample], Sample], Callable[[Sample], Sample]]:
        """Take random points and augment for training; take the same points on the unit sphere for evaluation."""
        points, features = self.size
        augment = Augment(
            points,
            features=features,
            rotation=self.rotation,
            scale=self.scale,
            jitter=self.jitter,
            jitter_clip=self.jitter_clip,
            dropout=self.dropout,
            normals=self.normals,
        )
        return augment, TakePoints(points, features=features)

    def default_views(self) -> PointCloudViews:
        """Turn, scale, jitter and thin clouds."""
        return PointCloudViews()

    def batch_augmentation(
        self, shape: tuple[int, ...], *, one: Callable[[Sample], Sample] | None, batch: Callable[[Batch], Batch] | None
    ) -> BatchTransform | None:
        """Augment clouds, or make views of them, by `BatchAugment`, where they have all features."""
        if batch is not None or len(shape) != 2 or -1 in shape or shape[1] < 3 + self.size[1]:
            return None
        size = shape[0], shape[1]
        if type(one) is Augment:
            return BatchAugment(one, size)
        return BatchAugment(one.augment, size, views=self.views) if type(one) is PointCloudViews else None

    def _hdf5(self, found: dict[str, list[Path]]) -> dict[str, Dataset[Any]]:
        if self.labels is not None:
            raise DataError(f"expected labels only beside a CSV file, got HDF5 files in {self.root}: leave labels out")
        names = class_names(found["train"][0].parent)
        sets = {split: HDF5Clouds(paths, classes=names) for split, paths in found.items()}
        for split, clouds in sets.items():
            report(split, clouds.clouds(), points=self.size[0], features=self.size[1])
        self.in_memory = True
        return dict(sets)


def report(split: str, clouds: Iterable[np.ndarray], *, points: int, features: int = 0) -> dict[str, int]:
    """Count, and log where there are any, the clouds that are not used as they are. Unreadable ones are not counted.

    Args:
        split: named in the log.
        clouds: (n, 3 + F) each.
        points: N.
        features: F that are used.

    Returns:
        Numbers of clouds by what is odd: points that are NaN, too few points, points that are all equal.
    """
    odd = {"NaN or infinite points, which are left out": 0, f"fewer than {points} points, which are repeated": 0}
    odd["points that are all equal"] = 0
    broken, few, equal = odd
    total = 0
    for cloud in clouds:
        total += 1
        finite = np.isfinite(cloud[:, : 3 + features]).all(1)
        if not finite.any():
            continue
        kept = cloud if finite.all() else cloud[finite]
        odd[broken] += not finite.all()
        odd[few] += len(kept) < points
        odd[equal] += bool((kept[:, :3] == kept[0, :3]).all())
    for what, count in odd.items():
        if count:
            _log.warning("%s: %d of %d clouds have %s", split, count, total, what)
    return odd
