"""Views of point clouds."""

from __future__ import annotations

import math
from typing import Any

from jepa_lightning.data import DataError, Sample, ViewTransform
from modalities.pointcloud.transforms import Augment, Rotation


class PointCloudViews(ViewTransform):
    """Views of point clouds: N random points in the unit sphere, turned, scaled, jittered and thinned.

    Args:
        rotation: the axis to turn about, "so3" or "none". None: that of the data.
        scale: range of the factor of the whole cloud.
        jitter: standard deviation of the noise on each coordinate, in radii of the cloud.
        jitter_clip: largest noise either way.
        dropout: largest share of the N points that is left out; others are repeated in their place.

    Raises:
        DataError: a setting is out of range.

    Example:
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
        jitter: float = 0.01,
        jitter_clip: float = 0.05,
        dropout: float = 0.3,
    ) -> None:
        if rotation not in (None, "none", "x", "y", "z", "so3"):
            raise DataError(f"expected rotation to be none, x, y, z or so3, got {rotation!r}")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] < math.inf:
            raise DataError(f"expected scale as a lower and an upper factor above 0, got {list(scale)}")
        if not (0 <= jitter < math.inf and 0 <= jitter_clip < math.inf):
            raise DataError(f"expected jitter and jitter_clip of at least 0, got {jitter:g} and {jitter_clip:g}")
        if not 0 <= dropout < 1:
            raise DataError(f"expected dropout from 0 to below 1, got {dropout:g}")
        self.rotation: Rotation | None = rotation
        self.scale = scale
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
        )

    def __call__(self, sample: Sample, view: int = 0) -> Sample:
        """The sample with its `points` (N, 3 + F) as one view."""
        return self.augment(dict(sample))
