"""Farthest points, nearest points and the order, against plain loops in float64."""

import math

import pytest
import torch

from modalities.pointcloud.geometry import farthest_points, greedy_order, nearest


def clouds(batch=4, points=60, seed=0):
    return torch.randn(batch, points, 3, generator=torch.Generator().manual_seed(seed))


def farthest_loop(xyz, count, start):
    chosen = [start]
    while len(chosen) < count:
        best, best_distance = None, -1.0
        for i, point in enumerate(xyz):
            distance = min(math.dist(point, xyz[j]) for j in chosen)
            if distance > best_distance:
                best, best_distance = i, distance
        chosen.append(best)
    return chosen


def order_loop(centres):
    left = list(range(len(centres)))
    here = min(left, key=lambda i: sum(centres[i]))
    order = []
    while True:
        left.remove(here)
        order.append(here)
        if not left:
            return order
        here = min(left, key=lambda i: math.dist(centres[i], centres[here]))


def test_farthest_points_from_given_starts():
    xyz, start = clouds(), torch.tensor([3, 0, 59, 17])
    found = farthest_points(xyz, 20, start)
    assert found.dtype == torch.int64
    assert found.is_contiguous()
    for cloud, row, first in zip(xyz.double().tolist(), found.tolist(), start.tolist(), strict=True):
        assert row == farthest_loop(cloud, 20, first)


def test_farthest_points_start_far_from_the_centroid():
    xyz = clouds()
    for cloud, row in zip(xyz.double(), farthest_points(xyz, 20).tolist(), strict=True):
        start = int((cloud - cloud.mean(0)).norm(dim=1).argmax())
        assert row == farthest_loop(cloud.tolist(), 20, start)


def test_all_points_can_be_chosen():
    found = farthest_points(clouds(), 60)
    assert (found.sort(1).values == torch.arange(60)).all()
    assert farthest_points(clouds(), 1).shape == (4, 1)


def test_nearest():
    xyz, centres = clouds(), clouds(points=7, seed=1)
    found = nearest(xyz, centres, 9)
    assert found.shape == (4, 7, 9)
    for b in range(4):
        cloud = xyz[b].double().tolist()
        for g, centre in enumerate(centres[b].double().tolist()):
            expected = sorted(range(60), key=lambda i: math.dist(cloud[i], centre))[:9]
            assert found[b, g].tolist() == expected


def test_greedy_order():
    centres = clouds(points=40)
    found = greedy_order(centres)
    for row, cloud in zip(found.tolist(), centres.double().tolist(), strict=True):
        assert row == order_loop(cloud)


def test_far_from_the_origin_distances_keep_their_digits():
    """The expanded square |a|^2 + |b|^2 - 2 a b of these coordinates has no correct digit in float32."""
    steps = torch.randint(0, 200, (2, 50, 3), generator=torch.Generator().manual_seed(0)) / 1024
    far = steps + 1000  # exact: multiples of 2^-10 below 2^10
    assert torch.equal(far.double() - 1000, steps.double())
    start = torch.tensor([0, 5])
    assert torch.equal(farthest_points(far, 12, start), farthest_points(steps, 12, start))
    near = [
        (cloud[index] - cloud[0]).norm(dim=1)
        for cloud in (far[0], steps[0])
        for index in [nearest(cloud[None], cloud[None, :1], 10)[0, 0]]
    ]
    assert torch.equal(near[0], near[1])
    assert near[0][0] == 0


@pytest.mark.parametrize(
    "cloud",
    [
        torch.zeros(1, 30, 3),  # all the same
        torch.full((1, 30, 3), 7.0),
        torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]).repeat(10, 1)[None],  # three places
        torch.full((1, 30, 3), 1e30),  # squares overflow
    ],
)
def test_degenerate_clouds(cloud):
    """No index twice, none out of range."""
    chosen = farthest_points(cloud, 12)
    assert len(set(chosen[0].tolist())) == 12
    assert greedy_order(cloud)[0].sort().values.tolist() == list(range(30))
    assert len(set(nearest(cloud, cloud[:, :2], 5)[0, 0].tolist())) == 5


def test_the_order_is_a_permutation_even_of_nan():
    centres = clouds(batch=1)
    centres[0, ::3] = math.nan
    assert greedy_order(centres)[0].sort().values.tolist() == list(range(60))


def test_distinct_places_come_before_copies():
    places = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 2, 0]]).repeat(10, 1)[None]
    assert {tuple(places[0, i].tolist()) for i in farthest_points(places, 3)[0]} == {(0, 0, 0), (1, 0, 0), (0, 2, 0)}


def test_samples_do_not_depend_on_each_other():
    xyz = clouds()
    assert torch.equal(farthest_points(xyz, 9)[2:3], farthest_points(xyz[2:3], 9))
    assert torch.equal(greedy_order(xyz)[2:3], greedy_order(xyz[2:3]))


def test_too_few_points():
    with pytest.raises(ValueError, match="61 points cannot be chosen of clouds of 60"):
        farthest_points(clouds(), 61)
    with pytest.raises(ValueError, match="a cloud of 60 points has no 61 nearest"):
        nearest(clouds(), clouds(), 61)
