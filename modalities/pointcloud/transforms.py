"""From a cloud to N points in a batch: unreadable points left out, the unit sphere, augmentation and views."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from jepa_lightning.data import DataError, Sample, ViewTransform
from jepa_lightning.data.arrays import native
from modalities.pointcloud.reading import points_first

Rotation = Literal["none", "x", "y", "z", "so3"]
"""The axis that clouds are turned about by a random angle; "so3": any rotation, each as likely as another."""

_AXES = {"x": 0, "y": 1, "z": 2}


def as_cloud(value: Any, *, features: int = 0) -> Tensor:
    """Convert what a data set gave to (n, 3 + features) float32, without the points that are not finite.

    Args:
        value: tensor or array (n, 3 + F) of numbers: x, y, z, then further values of each point.
        features: how many of these are kept; the first ones.

    Raises:
        DataError: another type or shape, or fewer features.
        OSError: no point is left.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind in "iufb":
        value = torch.from_numpy(native(points_first(value)))
    elif isinstance(value, Tensor) and value.ndim == 2 and not value.is_complex():
        numbers = value.detach().cpu()
        numbers = numbers.float() if numbers.dtype is torch.bfloat16 else numbers  # which NumPy does not know
        value = torch.from_numpy(points_first(numbers.numpy()))
    if not isinstance(value, Tensor) or value.ndim != 2 or value.shape[1] < 3 or value.is_complex():
        what = f"shape {tuple(value.shape)}" if hasattr(value, "shape") else type(value).__name__
        raise DataError(
            f"expected clouds as tensors or arrays of numbers (n, 3 + features), got {what}: have the dataset return "
            "these, or give it a transform"
        )
    if value.shape[1] < 3 + features:
        raise DataError(
            f"expected clouds with {features} features beside x, y and z, got {value.shape[1] - 3}: lower features, "
            "or use data that have them"
        )
    cloud = value.detach()[:, : 3 + features].cpu().float()
    if not len(cloud):
        raise OSError("there are no points in it")
    finite = cloud.isfinite()
    if finite.all():
        return cloud
    rows = finite.all(1)
    if not rows.any():
        raise OSError("all its points are NaN or infinite")
    return cloud[rows]


def unit_sphere(xyz: Tensor) -> Tensor:
    """Move points (n, 3) to mean 0 and scale them so that the farthest has distance 1; all 0 where all are equal."""
    wide = xyz.double()
    largest = wide.abs().max()
    centred = wide - wide.mean(0)
    radius = centred.norm(dim=1).max()
    if radius <= 1e-7 * largest or radius == 0:  # rounding errors of one point
        return torch.zeros_like(xyz)
    return (centred / radius).to(xyz.dtype)


def random_rotation(kind: Rotation) -> Tensor:
    """Draw a rotation matrix (3, 3) by torch's global generator; `x @ matrix.T` turns points."""
    if kind == "none":
        return torch.eye(3)
    if kind == "so3":
        # A normal quaternion, normalised, is a uniform rotation.
        w, x, y, z = (q := torch.randn(4, dtype=torch.float64)).div(q.norm()).tolist()
        rows = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
        return torch.tensor(rows)
    axis = _AXES[kind]
    first, second = (axis + 1) % 3, (axis + 2) % 3
    angle = torch.rand(()) * 2 * torch.pi
    matrix = torch.eye(3)
    matrix[first, first] = matrix[second, second] = angle.cos()
    matrix[second, first] = angle.sin()
    matrix[first, second] = -angle.sin()
    return matrix


class TakePoints:
    """For evaluation: replaces a cloud (n, 3 + F) by N of its points (N, 3 + F), in the unit sphere.

    The same cloud always gives the same points. A cloud of fewer than N gives all of them, again and again.

    Args:
        points: N.
        features: F, further values of each point that are kept.
    """

    def __init__(self, points: int, *, features: int = 0) -> None:
        self.points = points
        self.features = features

    def choose(self, have: int) -> Tensor:
        """Choose which of `have` points are taken, (N,)."""
        return _order(have)[torch.arange(self.points) % have]

    def __call__(self, sample: Sample) -> Sample:
        """Take N points of the sample; errors as `as_cloud`."""
        cloud = as_cloud(sample["points"], features=self.features)
        cloud = cloud[self.choose(len(cloud))]  # a copy, which may be changed
        cloud[:, :3] = unit_sphere(cloud[:, :3])
        sample["points"] = self.augment(cloud)
        return sample

    def augment(self, cloud: Tensor) -> Tensor:
        """Return the cloud (N, 3 + F), as it is."""
        return cloud


class Augment(TakePoints):
    """For training: N random points in the unit sphere, then turned, scaled and jittered; drawn for each cloud.

    The points are drawn without repeats, where the cloud has N; else every point is there, and some more than once.
    All draws are by torch's global generator, which loaders seed in each worker.

    Args:
        points: N.
        features: F.
        rotation: the axis to turn about.
        scale: range of the factor that the whole cloud is scaled by.
        stretch: each axis of the cloud as it is stored, before the turn, is scaled by a factor of its own, from 1 /
            stretch to stretch, its logarithm uniform; 1 leaves shapes as they are.
        jitter: standard deviation of normal noise on each coordinate, in radii of the cloud.
        jitter_clip: largest noise either way.
        dropout: largest share of the N points that is left out; other points of the cloud are repeated in their
            place, so that N stays. The share is uniform from 0 to this.
        normals: the first three features are directions, and turn with the cloud.
    """

    def __init__(
        self,
        points: int,
        *,
        features: int = 0,
        rotation: Rotation = "y",
        scale: tuple[float, float] = (0.8, 1.2),
        jitter: float = 0.0,
        jitter_clip: float = 0.05,
        dropout: float = 0.0,
        normals: bool = False,
        stretch: float = 1.0,
    ) -> None:
        super().__init__(points, features=features)
        self.rotation: Rotation = rotation
        self.scale = tuple(scale)
        self.stretch = stretch
        self.jitter = jitter
        self.jitter_clip = jitter_clip
        self.dropout = dropout
        self.normals = normals

    def choose(self, have: int) -> Tensor:
        """Choose which of `have` points are taken, (N,)."""
        different = min(have, self.points)
        if self.dropout:
            different = max(1, different - int(float(torch.rand(())) * self.dropout * self.points))
        taken = torch.randperm(have)[:different]
        if different < self.points:
            taken = torch.cat([taken, taken[torch.randint(different, (self.points - different,))]])
        return taken

    def augment(self, cloud: Tensor) -> Tensor:
        """Stretch, turn, scale and jitter the cloud (N, 3 + F) in place."""
        if self.stretch != 1:
            factors = self.stretch ** (2 * torch.rand(3) - 1)
            cloud[:, :3] *= factors
            if self.normals:
                cloud[:, 3:6] = stretched_normals(cloud[:, 3:6], factors)
        if self.rotation != "none":
            turn = random_rotation(self.rotation).T
            cloud[:, :3] = cloud[:, :3] @ turn
            if self.normals:
                cloud[:, 3:6] = cloud[:, 3:6] @ turn
        low, high = self.scale
        cloud[:, :3] *= low + (high - low) * float(torch.rand(()))
        if self.jitter:
            noise = torch.randn(self.points, 3) * self.jitter
            cloud[:, :3] += noise.clamp(-self.jitter_clip, self.jitter_clip)
        return cloud


def stretched_normals(normals: Tensor, factors: Tensor) -> Tensor:
    """Turn normals (..., 3) as a stretch by `factors` (..., 3) of the axes turns their surface; lengths stay."""
    turned = normals / factors
    length = normals.norm(dim=-1, keepdim=True)
    return turned * (length / turned.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(turned.dtype).tiny))


@lru_cache(maxsize=64)
def _order(have: int) -> Tensor:
    """Give a fixed order of `have` points. Not their own: points of a file often lie in rows or parts."""
    return torch.from_numpy(np.random.default_rng(have).permutation(have))


class PointCloudViews(ViewTransform):
    """Views of point clouds: N random points in the unit sphere, stretched, turned, scaled, jittered and thinned.

    Args:
        rotation: the axis to turn about, "so3" or "none". None: that of the data.
        scale: range of the factor of the whole cloud.
        stretch: largest factor, either way, of each axis of the cloud by itself, before the turn: walls and beams are
            of one kind at any length. 1 leaves shapes as they are. (Point-MAE and its kin scale each axis by 2/3 to
            3/2: Pang et al. 2022.)
        jitter: standard deviation of the noise on each coordinate, in radii of the cloud.
        jitter_clip: largest noise either way.
        dropout: largest share of the N points that is left out; others are repeated in their place.

    Raises:
        DataError: a setting is out of range.

    Examples:
        ```yaml
        data:
          class_path: PointCloudData
          init_args: {views: 2, view_transform: {class_path: PointCloudViews, init_args: {rotation: so3, dropout: 0.5}}}
        ```
    """

    name = "points"
    augment: Augment

    def __init__(
        self,
        *,
        rotation: Rotation | None = None,
        scale: tuple[float, float] = (2 / 3, 3 / 2),
        stretch: float = 1.0,
        jitter: float = 0.01,
        jitter_clip: float = 0.05,
        dropout: float = 0.3,
    ) -> None:
        if rotation not in (None, "none", "x", "y", "z", "so3"):
            raise DataError(f"expected rotation to be none, x, y, z or so3, got {rotation!r}")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] < math.inf:
            raise DataError(f"expected scale as a lower and an upper factor above 0, got {list(scale)}")
        if not 1 <= stretch < math.inf:
            raise DataError(f"expected stretch, the largest factor of an axis, of at least 1, got {stretch:g}")
        if not (0 <= jitter < math.inf and 0 <= jitter_clip < math.inf):
            raise DataError(f"expected jitter and jitter_clip of at least 0, got {jitter:g} and {jitter_clip:g}")
        if not 0 <= dropout < 1:
            raise DataError(f"expected dropout from 0 to below 1, got {dropout:g}")
        self.rotation: Rotation | None = rotation
        self.scale = scale
        self.stretch = stretch
        self.jitter = jitter
        self.jitter_clip = jitter_clip
        self.dropout = dropout

    def configure(self, data: Any) -> None:
        """Take N and the features from the data module, and perhaps the axis."""
        points, features = data.size
        self.augment = Augment(
            points,
            features=features,
            rotation=self.rotation or data.rotation,
            scale=self.scale,
            jitter=self.jitter,
            jitter_clip=self.jitter_clip,
            dropout=self.dropout,
            normals=data.normals,
            stretch=self.stretch,
        )

    def __call__(self, sample: Sample, view: int = 0) -> Sample:
        """Make one view of the sample's `points` (N, 3 + F)."""
        return self.augment(dict(sample))
