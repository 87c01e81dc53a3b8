"""Clouds of points to groups of neighbours around far-apart centres, in an order that follows the surface."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_lightning.modality import Batch, Tokenizer
from jepa_lightning.tokens import Tokens, take
from modalities.pointcloud.geometry import farthest_points, greedy_order, nearest


class PointTokenizer(Tokenizer):
    """Groups of the nearest points around centres that lie far apart (Point-BERT, Yu et al. 2022, section 3.1).

    Centres are points of the cloud, chosen by farthest point sampling. Coordinates in a group are relative to its
    centre, so a token says what its piece looks like, and its position where it is; further features of a point, such
    as its normal or colour, stay as they are. Groups overlap.

    Tokens come in Point-JEPA's order (`greedy_order`): neighbours in the order are neighbours in space, mostly, and
    `OrderedRuns` hides runs of it.

    In training, sampling starts at a random point of each cloud, drawn from torch's global generator on the device
    (which the module seeds at each step), so the same cloud is cut differently at each step. In evaluation it starts at
    the point farthest from the centroid, and the tokens of a cloud do not depend on the order of its points (where no
    two distances are equal). Training is training mode with gradients switched on: probes and pictures during a run get
    what evaluation gives.

    Args:
        groups: number of tokens G.
        group_size: points k in a group, its centre among them.
        features: numbers F of a point besides its coordinates.
        radius: what is length one inside a group: relative coordinates are divided by it; None leaves them.

    Raises:
        ValueError: a setting is out of range; when called: the batch holds no clouds, or clouds of too few points or
            of another number of features.
    """

    def __init__(
        self, *, groups: int = 64, group_size: int = 32, features: int = 0, radius: float | None = None
    ) -> None:
        super().__init__()
        for name, value, least in (("groups", groups, 1), ("group_size", group_size, 1), ("features", features, 0)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if radius is not None and not 0 < radius < float("inf"):
            raise ValueError(f"radius must be positive or null, got {radius:g}")
        self.groups = groups
        self.group_size = group_size
        self.features = features
        self.radius = radius

    def forward(self, batch: Batch) -> Tokens:
        """Tokens with values (B, G, k, 3 + F) and positions (B, G, 3) from `batch["points"]` (B, N, 3 + F).

        Distances are taken in float32 at least, and so are the positions; values have the type of the points.
        """
        points = self._checked(batch)
        cloud = points.to(torch.promote_types(points.dtype, torch.float32))
        xyz = cloud[..., :3].contiguous()
        start = None
        if self.training and torch.is_grad_enabled():
            start = torch.randint(xyz.shape[1], (len(xyz),), device=xyz.device)
        centres = take(xyz, farthest_points(xyz, self.groups, start))
        centres = take(centres, greedy_order(centres))
        grouped = take(cloud, nearest(xyz, centres, self.group_size))  # (B, G, k, 3 + F)
        relative = grouped[..., :3] - centres.unsqueeze(2)
        if self.radius is not None:
            relative = relative / self.radius
        values = torch.cat([relative, grouped[..., 3:]], dim=-1)
        values = values.to(points.dtype if points.is_floating_point() else cloud.dtype)
        return Tokens(values=values, positions=centres)

    def _checked(self, batch: Batch) -> Tensor:
        if "points" not in batch:
            raise ValueError(f"a batch of point clouds needs the key 'points', this one has {sorted(batch)}")
        points = batch["points"]
        width = 3 + self.features
        if points.ndim != 3 or points.shape[2] != width:
            raise ValueError(
                f"expected points (B, N, {width}), 3 coordinates and {self.features} features, got "
                f"{tuple(points.shape)}: make the modality's features those of the data"
            )
        least = max(self.groups, self.group_size)
        if points.shape[1] < least:
            raise ValueError(
                f"clouds of {points.shape[1]} points are too small for {self.groups} groups of {self.group_size}: "
                f"use at least {least} points, or fewer or smaller groups"
            )
        return points
