"""Views of point clouds."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset
from view_checks import check_views

from jepa_lightning.data import DataError
from modalities.pointcloud import PointCloudData, PointCloudViews
from modalities.pointcloud.batched import BatchAugment
from modalities.pointcloud.transforms import Augment, stretched_normals, unit_sphere

OFF = {"rotation": "none", "scale": (1.0, 1.0), "jitter": 0.0, "dropout": 0.0}


class One(Dataset):
    """The same cloud of 64 points, with normals, again and again."""

    cloud = torch.cat(
        [torch.randn(64, 3, generator=torch.Generator().manual_seed(0)), torch.eye(3).repeat(22, 1)[:64]], 1
    )

    def __len__(self):
        return 16

    def __getitem__(self, i):
        return self.cloud


def make(**settings):
    few = {"samples": 16, "batch_size": 4, "points": 64, "features": 0, "num_workers": 0}
    return PointCloudData(**{**few, **settings})


def seen(count=300, data=None, **settings):
    """(count, 64, 3 + F) views, the points in the cloud's own order, and the cloud in the unit sphere."""
    data = make(dataset=One(), views=2, view_transform=PointCloudViews(**{**OFF, **settings}), **(data or {}))
    data.setup()
    transform = data.training_transform
    torch.manual_seed(0)
    return torch.stack([transform({"points": One.cloud})["points"] for _ in range(count)])


def radius(points):
    return points[..., :3].norm(dim=-1).amax(-1)


def test_views_are_draws_of_one_pipeline():
    assert check_views(partial(make, batched=False))["points"].shape == (4, 64, 3)
    assert isinstance(make(views=2).viewing, PointCloudViews)


def test_nothing_on_is_the_cloud_in_another_order():
    whole = unit_sphere(One.cloud[:, :3])
    for view in seen(5):
        assert torch.allclose(view[view[:, 0].argsort()], whole[whole[:, 0].argsort()], atol=1e-6)


def test_scale_is_uniform():
    factors = radius(seen(scale=(0.5, 1.5)))
    assert factors.min() == pytest.approx(0.5, abs=0.02)
    assert factors.max() == pytest.approx(1.5, abs=0.02)
    assert float(factors.mean()) == pytest.approx(1.0, abs=0.06)


def test_jitter_has_its_deviation_and_is_clipped():
    whole = unit_sphere(One.cloud[:, :3])
    found = seen(50, jitter=0.001, jitter_clip=0.002)
    nearest = torch.cdist(found, whole).argmin(-1)
    noise = found - whole[nearest]
    assert float(noise.std()) == pytest.approx(0.00096, abs=0.00003)  # less than 0.001, since the ends are cut off
    assert noise.abs().max() <= 0.002 + 1e-6


def test_dropout_repeats_other_points():
    counts = torch.tensor([len(view.unique(dim=0)) for view in seen(dropout=0.5)])
    assert counts.min() in (33, 34, 35)
    assert counts.max() == 64
    assert float(counts.float().mean()) == pytest.approx(48, abs=2)


@pytest.mark.parametrize("rotation", ["y", "so3"])
def test_rotation_turns_points_and_normals(rotation):
    found = seen(rotation=rotation, data={"features": 3, "normals": True})
    assert torch.allclose(radius(found), torch.ones(300), atol=1e-5)
    normals = found[:, :, 3:]
    assert torch.allclose(normals.norm(dim=-1), torch.ones(300, 64), atol=1e-5)
    up = normals[..., 1].abs().amax(-1)
    assert bool((up > 1 - 1e-5).all()) == (rotation == "y")


@pytest.mark.parametrize("batched", [False, True])
def test_stretch_scales_each_axis_by_itself_before_the_turn(batched):
    """Log-uniform and independent factors, of the axes as stored; a box turned about z keeps its stretched height."""
    whole = unit_sphere(One.cloud[:, :3])
    extent = whole.amax(0) - whole.amin(0)

    def views(count=400, **settings):
        if not batched:
            return seen(count, stretch=2.0, **settings)[..., :3]
        one = BatchAugment(Augment(64, **{**OFF, **settings}, stretch=2.0), (64, 3))
        return one({"points": One.cloud[None, :, :3].expand(count, 64, 3)}, one.draw(np.arange(count)))["points"]

    found = views()
    logs = ((found.amax(1) - found.amin(1)) / extent).log2()
    levels = torch.linspace(0, 1, 11)
    for axis in range(3):
        assert torch.allclose(logs[:, axis].quantile(levels), torch.linspace(-1, 1, 11), atol=0.16)
    assert logs.T.corrcoef().fill_diagonal_(0).abs().max() < 0.16
    turned = views(rotation="z")
    heights = ((turned[..., 2].amax(1) - turned[..., 2].amin(1)) / extent[2]).log2()
    assert torch.allclose(heights.quantile(levels), torch.linspace(-1, 1, 11), atol=0.16)


def test_normals_of_a_stretched_surface():
    """Against the cross product of two stretched tangents, in float64."""
    rng = np.random.default_rng(0)
    first, second, factors = rng.normal(size=(3, 50, 3))
    factors = np.exp(factors)
    before, after = np.cross(first, second), np.cross(first * factors, second * factors)
    unit, expected = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (before, after))
    found = stretched_normals(torch.from_numpy(unit), torch.from_numpy(factors)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert not stretched_normals(torch.zeros(2, 3), torch.ones(3)).any()


def test_the_rotation_of_the_data_unless_another_is_named():
    for given, expected in ((None, "x"), ("so3", "so3")):
        data = make(rotation="x", views=2, view_transform=PointCloudViews(rotation=given))
        data.setup()
        assert data.training_transform.augment.rotation == expected


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"rotation": "w"}, "expected rotation to be none, x, y, z or so3, got 'w'"),
        ({"scale": (0.0, 1.0)}, "expected scale as a lower and an upper factor above 0"),
        ({"stretch": 0.5}, "expected stretch, the largest factor of an axis, of at least 1, got 0.5"),
        ({"jitter": -1.0}, "expected jitter and jitter_clip of at least 0"),
        ({"dropout": 1.0}, "expected dropout from 0 to below 1"),
    ],
)
def test_settings_out_of_range(settings, says):
    with pytest.raises(DataError, match=says):
        PointCloudViews(**settings)
