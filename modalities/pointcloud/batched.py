"""Clouds of a whole batch: points are chosen, turned, scaled and jittered on the device that trains."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jepa_lightning.data.batched import BatchTransform
from jepa_lightning.data.views import view_seeds
from jepa_lightning.modality import Batch
from jepa_lightning.randomness import normals_at, permutations_at, uniforms, uniforms_at
from modalities.pointcloud.transforms import Augment, Rotation, stretched_normals

_NUMBERS = 6  # of a cloud: its scale, its dropout, and four of its rotation


class BatchAugment(BatchTransform):
    """`Augment` for whole batches of clouds of one size, on any device; with more views, each by draws of its own.

    What is drawn has the distribution of `Augment`. Where the clouds' coordinates are float32 or less, the values
    differ by rounding.

    Args:
        augment: whose settings are taken.
        shape: (P, 3 + F or more) of the clouds, whose numbers are finite.
        views: of each cloud.

    Examples:
        >>> import numpy as np, torch
        >>> from modalities.pointcloud.batched import BatchAugment
        >>> from modalities.pointcloud.transforms import Augment
        >>> batched = BatchAugment(Augment(128, rotation="so3"), (512, 3))
        >>> batched({"points": torch.randn(2, 512, 3)}, batched.draw(np.array([5, 6])))["points"].shape
        torch.Size([2, 128, 3])
    """

    def __init__(self, augment: Augment, shape: tuple[int, int], *, views: int = 1) -> None:
        self.augment = augment
        self.shape = shape
        self.views = views

    def draw(self, seeds: NDArray[np.int64]) -> dict[str, Tensor]:
        """Draw for each cloud and view its `seeds` (B, V), `turns` (B, V, 3, 3), `factors` and `different` (B, V).

        `different` is the number of points that are taken without repeats. Which ones, and the noise, are drawn from
        the seeds on the device.
        """
        settings = self.augment
        own = view_seeds(seeds, self.views)
        drawn = uniforms(own.reshape(-1), _NUMBERS).reshape(*own.shape, _NUMBERS)
        low, high = settings.scale
        most = min(self.shape[0], settings.points)
        left = np.maximum(1, most - (drawn[..., 1] * settings.dropout * settings.points).astype(np.int64))
        return {
            "seeds": torch.from_numpy(own),
            "turns": torch.from_numpy(rotations(settings.rotation, drawn[..., 2:]).astype(np.float32)),
            "factors": torch.from_numpy((low + (high - low) * drawn[..., 0]).astype(np.float32)),
            "different": torch.from_numpy(left),
        }

    def __call__(self, batch: Batch, draws: dict[str, Tensor]) -> Batch:
        """Turn a batch with `points` (B, P, 3 + F or more) into its first view (B, N, 3 + F) float32.

        With more, all of them are at `views`.
        """
        clouds = batch["points"][..., : 3 + self.augment.features]
        views = [self._view(clouds, {name: v[:, view] for name, v in draws.items()}) for view in range(self.views)]
        batch["points"] = views[0]
        if len(views) > 1:
            batch["views"] = [{"points": view} for view in views]
        return batch

    def _view(self, clouds: Tensor, drawn: dict[str, Tensor]) -> Tensor:
        settings = self.augment
        count, have = clouds.shape[:2]
        places = self.choose(drawn["seeds"], drawn["different"])
        places = places + torch.arange(count, device=places.device)[:, None] * have
        taken = clouds.flatten(0, 1).index_select(0, places.flatten()).unflatten(0, (count, -1)).float()
        turns = drawn["turns"].mT
        xyz, radius = centred(taken[..., :3])
        factors = self._stretch(drawn["seeds"]) if settings.stretch != 1 else None
        if factors is not None:
            xyz *= factors
        xyz = torch.bmm(xyz, turns * (drawn["factors"] / radius)[:, None, None])
        if settings.jitter:
            noise = normals_at(drawn["seeds"], 3 * settings.points, first=_NUMBERS + have + settings.points)
            noise = noise.mul_(settings.jitter).clamp_(-settings.jitter_clip, settings.jitter_clip)
            xyz += noise.view_as(xyz)
        if taken.shape[2] == 3:
            return xyz
        features = taken[..., 3:]
        if settings.normals and (factors is not None or settings.rotation != "none"):
            normals = features[..., :3] if factors is None else stretched_normals(features[..., :3], factors)
            features = torch.cat([torch.bmm(normals, turns), features[..., 3:]], dim=2)
        return torch.cat([xyz, features], dim=2)

    def _stretch(self, seeds: Tensor) -> Tensor:
        """Draw the factors of the axes, (B, 1, 3), by numbers behind all others of a cloud."""
        points, base = self.augment.points, self.augment.stretch
        behind = _NUMBERS + self.shape[0] + points + 3 * points + 1
        return (base ** (2 * uniforms_at(seeds, 3, first=behind) - 1)).unsqueeze(1)

    def choose(self, seeds: Tensor, different: Tensor) -> Tensor:
        """Choose points of P: (B, N) places, the first `different` (B,) of a permutation, then random ones of these."""
        have, points = self.shape[0], self.augment.points
        taken = permutations_at(seeds, have, first=_NUMBERS)[:, :points]
        if not self.augment.dropout and have >= points:
            return taken
        again = uniforms_at(seeds, points, first=_NUMBERS + have) * different[:, None]
        again = torch.minimum(again.long(), different[:, None] - 1)  # a product may round up
        place = torch.arange(points, device=seeds.device)[None]
        return taken.gather(1, torch.where(place < different[:, None], place, again))


def centred(xyz: Tensor) -> tuple[Tensor, Tensor]:
    """Move clouds (B, N, 3) to mean 0 each, and give the distance (B,) of the farthest point of each.

    As `unit_sphere`, a cloud of equal points is 0 everywhere, its distance 1. Means are taken in float64 where the
    device has it.
    """
    wide = xyz if xyz.device.type == "mps" else xyz.double()
    moved = (wide - wide.mean(1, keepdim=True)).float()
    x, y, z = moved.unbind(2)
    radius = (x * x + y * y + z * z).amax(1).sqrt()
    equal = (radius <= 1e-7 * xyz.abs().amax((1, 2))) | (radius == 0)
    return moved.masked_fill(equal[:, None, None], 0.0), radius.masked_fill(equal, 1.0)


def rotations(kind: Rotation, drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Make rotation matrices (..., 3, 3) of uniform numbers (..., 4), distributed as `random_rotation` draws them.

    Any rotation is a uniform point of the unit sphere in four dimensions, a quaternion (Shoemake 1992).
    """
    turn = 2 * np.pi * drawn
    zero, one = np.zeros(drawn.shape[:-1]), np.ones(drawn.shape[:-1])
    if kind == "so3":
        inner, outer = np.sqrt(1 - drawn[..., 0]), np.sqrt(drawn[..., 0])
        w, x = outer * np.cos(turn[..., 2]), inner * np.sin(turn[..., 1])
        y, z = inner * np.cos(turn[..., 1]), outer * np.sin(turn[..., 2])
        rows = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    else:
        cos, sin = (one, zero) if kind == "none" else (np.cos(turn[..., 0]), np.sin(turn[..., 0]))
        about_z = [[cos, -sin, zero], [sin, cos, zero], [zero, zero, one]]
        moved = {"x": 1, "y": 2}.get(kind, 0)  # z, x, y in turn
        rows = [[about_z[(i - moved) % 3][(j - moved) % 3] for j in range(3)] for i in range(3)]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
