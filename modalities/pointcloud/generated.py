"""A labelled data set of solids, so that everything runs with no data on disk."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from jepa_lightning.data import DataError
from jepa_lightning.data.generation import fill
from jepa_lightning.names.shown import Shown

Array = NDArray[Any]  # float

CLASSES = ("ellipsoid", "box", "cylinder", "cone", "pyramid", "prism", "capsule", "torus")

_CHUNK = 80  # solids drawn at a time, a multiple of the number of classes. Another number draws other solids
_STRETCH = 0.5  # of each axis: its length is 2 to the power of this, or less, either way
_NOISE = 0.005, 0.015  # range of the noise's standard deviation, in radii
_HIDDEN = 0.1  # largest share of the surface that is not seen


class GeneratedClouds(Shown, Dataset[dict[str, Any]]):
    """Points on the surface of an upright solid, under noise; the class is the solid, eight in all.

    Each solid is stretched along its axes and turned about the vertical, which is y, at random. Points are drawn
    uniformly over its area (also after the stretch); a random part at one side is not seen, and each point is moved by
    normal noise. No point lies far off: farthest point sampling would make every outlier a centre. All clouds are drawn
    when the set is built and kept as float16, in the unit sphere but for the noise. Cloud i depends on the seed, the
    split and i alone (and on the number of points), and the classes are equally frequent.

    Args:
        samples: number of clouds.
        points: of a cloud, at least 16.
        normals: add the surface's directions, outwards, as features.
        seed: of the set.
        split: "train", "val" or "test"; the clouds of different splits are drawn independently.

    A sample is `points` (points, 3 or 6) float16 and `labels`: `shape` (class); `elongation` and `flatness`, the
    base-2 logarithms of longest to middle and of middle to shortest extent of the whole solid along its own axes; and
    `noise` (standard deviation, in radii).

    Raises:
        DataError: an argument out of range.

    Examples:
        >>> from modalities.pointcloud.generated import GeneratedClouds
        >>> clouds = GeneratedClouds(16, points=64, seed=1)
        >>> clouds
        GeneratedClouds(samples=16, points=64, seed=1)
        >>> clouds[0]["points"].shape, sorted(clouds[0]["labels"])
        ((64, 3), ['elongation', 'flatness', 'noise', 'shape'])
    """

    def __init__(
        self,
        samples: int = 4000,
        *,
        points: int = 1024,
        normals: bool = False,
        seed: int = 0,
        split: str = "train",
    ) -> None:
        if samples < 1:
            raise DataError(f"expected at least 1 sample, got {samples}")
        if points < 16:
            raise DataError(f"expected clouds of at least 16 points, got {points}: fewer show no shape")
        self.classes = list(CLASSES)
        self.points = np.empty((samples, points, 6 if normals else 3), dtype=np.float16)
        self.targets = np.empty(samples, dtype=np.int64)
        self.labels = {name: np.empty(samples, dtype=np.float32) for name in ("elongation", "flatness", "noise")}
        columns: tuple[Array, ...] = (self.points, self.targets, *self.labels.values())

        def draw(rng: np.random.Generator) -> tuple[Array, ...]:
            cloud, *labels = _draw(rng, points)
            return cloud[..., : self.points.shape[2]], *labels

        fill(columns, draw, size=_CHUNK, seed=seed, split=split)

    def __len__(self) -> int:
        return len(self.points)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(points, 3 or 6)."""
        return self.points.shape[1:]

    def take(self, indices: NDArray[np.int64]) -> dict[str, Any]:
        """Clouds (B, points, 3 or 6) and labels of many samples."""
        return self[indices]  # type: ignore[index]

    def __getitem__(self, index: int) -> dict[str, Any]:
        labels = {"shape": self.targets[index], **{name: column[index] for name, column in self.labels.items()}}
        return {"points": self.points[index], "labels": labels}


def _draw(rng: np.random.Generator, points: int) -> tuple[Array, ...]:
    """Draw one chunk: clouds (n, P, 6) of points and normals, classes, elongations, flatnesses and noises."""
    n = _CHUNK
    shapes = rng.permutation(np.arange(n) % len(CLASSES))
    triangles = _solids()[shapes]  # (n, T, 3 corners, 3)
    stretch = 2 ** rng.uniform(-_STRETCH, _STRETCH, (n, 1, 1, 3))
    triangles = (triangles * stretch).astype(np.float32)
    extents = np.sort(triangles.max((1, 2)) - triangles.min((1, 2)), axis=1)
    angle = rng.uniform(0, 2 * np.pi, n)
    turn = np.zeros((n, 3, 3))  # upright: the solids' own third axis becomes y
    turn[:, 0, 0], turn[:, 0, 2] = np.cos(angle), np.sin(angle)
    turn[:, 1, 0], turn[:, 1, 2] = np.sin(angle), -np.cos(angle)
    turn[:, 2, 1] = 1
    triangles = (triangles.reshape(n, -1, 3) @ turn.astype(np.float32)).reshape(triangles.shape)
    radius = np.sqrt((triangles**2).sum(-1).max((1, 2)))
    triangles /= radius[:, None, None, None]
    cloud = _sample(rng, triangles, points)
    noise = rng.uniform(*_NOISE, n)
    cloud[..., :3] += rng.normal(size=(n, points, 3)).astype(np.float32) * noise[:, None, None]
    low, middle, high = extents.T
    return cloud, shapes, np.log2(high / middle), np.log2(middle / low), noise


def _sample(rng: np.random.Generator, triangles: Array, points: int) -> Array:
    """Draw points over the area of triangles (n, T, 3, 3), less a part at one side, and normals: (n, P, 6)."""
    n, count = triangles.shape[:2]
    corner, first, second = triangles[:, :, 0], *np.moveaxis(triangles[:, :, 1:] - triangles[:, :, :1], 2, 0)
    across = np.cross(first, second)  # outwards; twice the area long
    areas = np.linalg.norm(across, axis=2)
    total = np.cumsum(areas, axis=1, dtype=np.float64)
    total = total / total[:, -1:] + np.arange(n)[:, None]  # row i goes from i to i + 1: one search for all rows
    drawn = int(np.ceil(points / (1 - _HIDDEN))) + 8
    wanted = rng.random((n, drawn)) * (1 - 1e-12) + np.arange(n)[:, None]
    chosen = np.searchsorted(total.ravel(), wanted.ravel(), side="right").reshape(n, drawn)
    chosen = np.minimum(chosen, np.arange(1, n + 1)[:, None] * count - 1)
    u, v = rng.random((2, n, drawn, 1), dtype=np.float32)
    over = u + v > 1  # the other half of the parallelogram
    u, v = np.where(over, 1 - u, u), np.where(over, 1 - v, v)
    place = corner.reshape(-1, 3)[chosen] + u * first.reshape(-1, 3)[chosen] + v * second.reshape(-1, 3)[chosen]
    normal = (across / np.maximum(areas, 1e-12)[..., None]).reshape(-1, 3)[chosen]
    # The farthest along one direction are the unseen ones; the others stay in the random order they were drawn in.
    direction = rng.normal(size=(n, 3, 1)).astype(np.float32)
    height = (place @ (direction / np.linalg.norm(direction, axis=1, keepdims=True)))[..., 0]
    hidden = (rng.uniform(0, _HIDDEN, size=(n,)) * drawn).astype(np.int64)
    edge = np.take_along_axis(np.sort(height, axis=1), drawn - 1 - hidden[:, None], axis=1)
    unseen = height > edge
    kept = np.argsort(unseen, axis=1, kind="stable")[:, :points, None]
    return np.take_along_axis(np.concatenate([place, normal], axis=2), kept, axis=1)


@cache
def _solids() -> Array:
    """Make the triangles of each class, (classes, T, 3 corners, 3), from -1 to 1; filled up with empty ones."""
    arc = np.linspace(-np.pi / 2, np.pi / 2, 15)
    half = np.linspace(0, np.pi / 2, 8)
    ring = np.linspace(0, 2 * np.pi, 17)
    cap = np.stack([0.5 * np.cos(half), 0.5 + 0.5 * np.sin(half)], axis=1)
    rod = [(0, -1), (1, -1), (1, 1), (0, 1)]
    spike = [(0, -1), (1, -1), (0, 1)]
    profiles: dict[str, tuple[Any, int]] = {
        "ellipsoid": (np.stack([np.cos(arc), np.sin(arc)], axis=1), 32),
        "box": (rod, 4),
        "cylinder": (rod, 32),
        "cone": (spike, 32),
        "pyramid": (spike, 4),
        "prism": (rod, 3),
        "capsule": (np.concatenate([(cap * (1, -1))[::-1], cap]), 32),
        "torus": (np.stack([0.7 + 0.3 * np.cos(ring), 0.3 * np.sin(ring)], axis=1), 32),
    }
    meshes = [_revolve(np.array(profile, dtype=np.float64), sides) for profile, sides in profiles.values()]
    solids = np.zeros((len(meshes), max(map(len, meshes)), 3, 3), dtype=np.float32)
    for row, mesh in zip(solids, meshes, strict=True):
        middle = (mesh.max((0, 1)) + mesh.min((0, 1))) / 2
        row[: len(mesh)] = mesh - middle
        row[len(mesh) :] = 0
    return solids


def _revolve(profile: Array, sides: int) -> Array:
    """Turn a profile (K, 2: radius, height) in `sides` into triangles (T, 3, 3), seen from outside anticlockwise."""
    angle = (np.arange(sides + 1) + 0.5) * (2 * np.pi / sides)
    radius, height = profile[:, :1], profile[:, 1:]
    grid = np.stack([radius * np.cos(angle), radius * np.sin(angle), height + 0 * angle], axis=-1)  # (K, sides + 1, 3)
    a, b, c, d = grid[:-1, :-1], grid[:-1, 1:], grid[1:, :-1], grid[1:, 1:]
    triangles = np.concatenate([np.stack([a, b, d], axis=-2), np.stack([a, d, c], axis=-2)]).reshape(-1, 3, 3)
    edges = triangles[:, 1:] - triangles[:, :1]
    return triangles[np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1) > 1e-9]
