"""Clouds to groups: what a token holds, and on what it depends."""

import math

import pytest
import torch

from modalities.pointcloud.tokenizer import PointTokenizer


def clouds(batch=3, points=200, features=0, seed=0):
    return torch.randn(batch, points, 3 + features, generator=torch.Generator().manual_seed(seed))


def tokenize(points, *, training=False, **settings):
    features = points.shape[2] - 3
    tokenizer = PointTokenizer(**{"groups": 12, "group_size": 8, "features": features, **settings})
    return tokenizer.train(training)({"points": points})


def test_groups_are_the_nearest_points_relative_to_centres_of_the_cloud():
    points = clouds(features=2)
    tokens = tokenize(points)
    assert tokens.values.shape == (3, 12, 8, 5)
    assert tokens.positions.shape == (3, 12, 3)
    assert tokens.grid is None
    assert tokens.valid is None
    for b in range(3):
        distance = torch.cdist(tokens.positions[b].double(), points[b, :, :3].double())
        assert (distance.min(1).values == 0).all()  # centres are points
        near = distance.argsort(1)[:, :8]
        expected = points[b][near]
        expected[..., :3] -= tokens.positions[b][:, None]
        torch.testing.assert_close(tokens.values[b], expected, rtol=0, atol=0)
        assert (tokens.values[b, :, 0, :3] == 0).all()


def test_tokens_come_in_the_greedy_order():
    for centres in tokenize(clouds()).positions.double().tolist():
        assert sum(centres[0]) == min(map(sum, centres))
        for i in range(len(centres) - 1):
            following = [math.dist(centres[i], other) for other in centres[i + 1 :]]
            assert following[0] == min(following)


def test_radius_is_the_unit_of_length_in_a_group():
    points = clouds(features=1)
    plain, scaled = tokenize(points), tokenize(points, radius=0.25)
    torch.testing.assert_close(scaled.values[..., :3], 4 * plain.values[..., :3])
    assert torch.equal(scaled.values[..., 3:], plain.values[..., 3:])
    assert torch.equal(scaled.positions, plain.positions)


def test_the_order_of_points_does_not_matter_in_evaluation():
    points = clouds(points=300)
    shuffled = points[:, torch.randperm(300, generator=torch.Generator().manual_seed(5))]
    one, two = tokenize(points), tokenize(shuffled)
    assert torch.equal(one.positions, two.positions)
    assert torch.equal(one.values, two.values)


def test_training_starts_at_random_and_evaluation_does_not():
    points = clouds()
    before = torch.get_rng_state()
    tokenize(points)
    with torch.no_grad():
        still = tokenize(points, training=True)
    assert torch.equal(torch.get_rng_state(), before)  # neither draws
    assert torch.equal(still.positions, tokenize(points).positions)
    torch.manual_seed(0)
    drawn = [tokenize(points, training=True).positions for _ in range(2)]
    assert not torch.equal(drawn[0], drawn[1])
    torch.manual_seed(0)
    assert torch.equal(tokenize(points, training=True).positions, drawn[0])


def test_random_starts_are_any_points_of_each_cloud():
    """With one group, the start is the centre."""
    points = torch.arange(10.0).view(1, 10, 1).expand(2000, 10, 3)
    torch.manual_seed(0)
    centres = tokenize(points, training=True, groups=1, group_size=1).positions[:, 0, 0]
    counts = torch.bincount(centres.long(), minlength=10)
    assert (counts - 200).abs().max() < 5 * math.sqrt(200)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("places", [1, 2, 5])
def test_fewer_places_than_groups(places, training):
    points = clouds(points=places).repeat(1, 60, 1)[:, :60]
    tokens = tokenize(points, training=training)
    assert torch.isfinite(tokens.values).all()
    for cloud, centres in zip(points, tokens.positions, strict=True):
        assert {tuple(p.tolist()) for p in centres} == {tuple(p.tolist()) for p in cloud}


def test_half_precision_points_are_measured_in_float32():
    points = clouds(features=1).bfloat16()
    half, full = tokenize(points), tokenize(points.float())
    assert half.positions.dtype == torch.float32
    assert torch.equal(half.positions, full.positions)
    assert half.values.dtype == torch.bfloat16
    # Copies and ties of rounded coordinates may come in any order: compare what a group holds as a set.
    torch.testing.assert_close(half.values.float().amax(2), full.values.bfloat16().float().amax(2), rtol=0, atol=0)


def test_double_precision_stays():
    tokens = tokenize(clouds().double())
    assert tokens.values.dtype == tokens.positions.dtype == torch.float64


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"groups": 0}, "groups must be at least 1, got 0"),
        ({"group_size": 0}, "group_size must be at least 1, got 0"),
        ({"features": -1}, "features must be at least 0, got -1"),
        ({"radius": 0.0}, "radius must be positive or null, got 0"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        PointTokenizer(**settings)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"image": torch.zeros(2, 3)}, r"needs the key 'points', this one has \['image'\]"),
        ({"points": torch.zeros(2, 100, 6)}, r"expected points \(B, N, 3\).*got \(2, 100, 6\)"),
        ({"points": torch.zeros(100, 3)}, r"expected points \(B, N, 3\).*got \(100, 3\)"),
        ({"points": torch.zeros(2, 63, 3)}, "clouds of 63 points are too small for 64 groups of 32: use at least 64"),
    ],
)
def test_batches_that_do_not_fit(batch, message):
    with pytest.raises(ValueError, match=message):
        PointTokenizer()(batch)


def test_whole_numbers_are_cut_as_floats():
    points = torch.randint(0, 9, (2, 12, 3), generator=torch.Generator().manual_seed(0))
    tokens = PointTokenizer(groups=3, group_size=4, radius=2.0)({"points": points})
    assert tokens.values.dtype == torch.float32
    assert (tokens.values % 1 != 0).any()
