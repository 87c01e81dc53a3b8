"""The generated solids: determinism, balance, uniform sampling, and a task that simple statistics do not solve."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jepa_lightning.data import DataError
from modalities.pointcloud import generated
from modalities.pointcloud.generated import CLASSES, GeneratedClouds


@pytest.fixture(scope="module")
def solids():
    return GeneratedClouds(1600, points=256)


def quiet(monkeypatch, **options):
    """No noise, nothing hidden."""
    for name, value in {"_NOISE": (0, 0), "_HIDDEN": 0, **options}.items():
        monkeypatch.setattr(generated, name, value)


def test_samples(solids):
    assert solids.points.shape == (1600, 256, 3)
    assert solids.points.dtype == np.float16
    assert np.isfinite(solids.points).all()
    sample = solids[3]
    assert list(sample["labels"]) == ["shape", "elongation", "flatness", "noise"]
    assert np.bincount(solids.targets).tolist() == [200] * len(CLASSES)
    assert len(solids.classes) == 8
    norms = np.linalg.norm(solids.points.astype(np.float32), axis=2).max(1)
    assert norms.max() < 1.2
    assert norms.min() > 0.5
    for name in ("elongation", "flatness"):
        assert solids.labels[name].min() >= 0
        assert solids.labels[name].std() > 0.2


def test_deterministic_by_seed_split_and_place(solids):
    again = GeneratedClouds(100, points=256)
    np.testing.assert_array_equal(again.points, solids.points[:100])
    np.testing.assert_array_equal(again.targets, solids.targets[:100])
    for other in (GeneratedClouds(100, points=256, seed=1), GeneratedClouds(100, points=256, split="val")):
        assert not np.isclose(other.points, again.points, atol=1e-3).all((1, 2)).any()
    with_normals = GeneratedClouds(100, points=256, normals=True)
    np.testing.assert_array_equal(with_normals.points[..., :3], again.points)


def test_solids_stand_upright_and_look_anywhere():
    """Cones and pyramids are wide below; the horizontal axes of boxes have no preferred direction."""
    solids = GeneratedClouds(1600, points=256)
    points = solids.points.astype(np.float64)
    radius = np.hypot(points[..., 0], points[..., 2])
    pointed = np.isin(solids.targets, [CLASSES.index("cone"), CLASSES.index("pyramid")])
    height = points[..., 1] - points[..., 1].mean(1, keepdims=True)
    slope = (radius * height).mean(1)[pointed]
    assert np.mean(slope < 0) > 0.95
    flat = points[solids.targets == CLASSES.index("box")][..., [0, 2]]
    flat = flat - flat.mean(1, keepdims=True)
    axes = np.linalg.eigh(np.einsum("bni,bnj->bij", flat, flat))[1][:, :, 1]
    np.testing.assert_allclose((axes**2).mean(0), 1 / 2, atol=0.1)


def test_ellipsoids_are_sampled_uniformly_and_their_extents_are_the_labels(monkeypatch):
    quiet(monkeypatch)
    solids = GeneratedClouds(80, points=8192, normals=True)
    for index in np.flatnonzero(solids.targets == CLASSES.index("ellipsoid"))[:4]:
        points, normals = np.split(solids.points[index].astype(np.float64), 2, axis=1)
        np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=2e-3)
        # By the divergence theorem, area times the mean of n x^T is the volume times the identity ...
        mean = np.einsum("ni,nj->ij", normals, points) / len(points)
        # ... only where points are uniform over the area.
        np.testing.assert_allclose(mean / (np.trace(mean) / 3), np.eye(3), atol=0.06)
        assert np.trace(mean) > 0  # outwards
        axes = np.linalg.eigh(points.T @ points)[1]
        low, middle, high = np.ptp(points @ axes, axis=0)
        assert np.log2(high / middle) == pytest.approx(solids.labels["elongation"][index], abs=0.04)
        assert np.log2(middle / low) == pytest.approx(solids.labels["flatness"][index], abs=0.04)


def test_all_solids_are_closed_and_face_outwards():
    for name, mesh in zip(CLASSES, generated._solids(), strict=True):
        across = np.cross(mesh[:, 1] - mesh[:, 0], mesh[:, 2] - mesh[:, 0])
        np.testing.assert_allclose(across.sum(0), 0, atol=1e-4, err_msg=name)
        volume = (across * mesh.mean(1)).sum() / 6
        assert volume > 0.2, name


def test_a_part_at_one_side_is_hidden(monkeypatch):
    quiet(monkeypatch, _HIDDEN=0.5)
    solids = GeneratedClouds(80, points=4096)
    ellipsoids = solids.points[solids.targets == CLASSES.index("ellipsoid")].astype(np.float32)
    assert (np.linalg.norm(ellipsoids.mean(1), axis=1) > 0.1).sum() >= 5
    quiet(monkeypatch)
    whole = GeneratedClouds(80, points=4096).points[solids.targets == CLASSES.index("ellipsoid")].astype(np.float32)
    assert (np.linalg.norm(whole.mean(1), axis=1) < 0.05).all()


def test_simple_statistics_do_not_solve_it(solids):
    """Sorted distances to the centroid: far above chance (1 in 8), far below all."""
    held = GeneratedClouds(400, points=256, split="val")

    def distances(data):
        points = data.points.astype(np.float32)
        found = np.sort(np.linalg.norm(points - points.mean(1, keepdims=True), axis=2), axis=1)
        return found[:, ::8] / found[:, -1:]

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200, C=0.1))
    accuracy = model.fit(distances(solids), solids.targets).score(distances(held), held.targets)
    assert 0.3 < accuracy < 0.75


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "at least 1 sample"),
        ({"points": 8}, "at least 16 points, got 8"),
        ({"split": "trian"}, "expected a split among train, val, test"),
    ],
)
def test_arguments_out_of_range(options, message):
    with pytest.raises(DataError, match=message):
        GeneratedClouds(**options)
