"""Pictures of clouds: sizes, depth order, colours, views."""

from __future__ import annotations

import torch

from jepa_lightning.pictures.drawing import GAP, PANEL
from modalities.pointcloud.pictures import clouds

RED, BLUE = torch.tensor([1.0, 0, 0]), torch.tensor([0, 0, 1.0])


def coloured(picture, which):
    """Pixels in which a channel stands out, (H, W)."""
    others = [channel for channel in range(3) if channel != which]
    return (picture[which].int() - picture[others].int().amax(0)) > 60


def test_two_views_a_panel():
    points = torch.randn(3, 200, 6)
    pictures = clouds(points, [torch.rand(3, 200, 3), torch.zeros(3, 200, 3)])
    assert [picture.shape for picture in pictures] == [(3, PANEL, 4 * PANEL + 3 * GAP)] * 3
    assert pictures[0].dtype == torch.uint8
    for i in range(3):
        assert (pictures[0][:, :, (i + 1) * PANEL + i * GAP :][:, :, :GAP] == 255).all()
    assert (pictures[0][:, 0] == 255).all()  # nothing touches the edge
    second = pictures[0][:, :, 2 * (PANEL + GAP) :]
    assert (second.amax(0) == second.amin(0)).all()  # grey, or white
    assert second.min() < 20


def test_the_nearest_point_is_on_top():
    xyz = torch.tensor([[0.0, 0, 1], [0, 0, -1], [0, 0, 0]])
    middle = PANEL // 2
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        colours = torch.stack([RED, BLUE, torch.ones(3)])
        picture = clouds(xyz[order][None], [colours[order][None]])[0]
        assert picture[:, middle, middle].tolist() == [255, 0, 0]


def test_up_is_up_and_right_is_right():
    xyz = torch.tensor([[[0.0, 1, 0], [0, -1, 0], [-1, 0, 0], [1, 0, 0]]])
    colours = torch.stack([RED, torch.zeros(3), torch.zeros(3), BLUE])[None]
    front = clouds(xyz, [colours])[0][:, :, :PANEL]
    rows, columns = torch.nonzero(coloured(front, 0), as_tuple=True)
    assert rows.max() < 10
    assert (columns - PANEL / 2).abs().max() < 4
    rows, columns = torch.nonzero(coloured(front, 2), as_tuple=True)
    assert columns.min() > PANEL - 12
    assert (rows - PANEL / 2).abs().max() < 4


def test_the_second_view_is_from_above_and_aside():
    xyz = torch.tensor([[[0.0, 0, 1], [0, 0, -1]]])
    colours = torch.stack([RED, BLUE])[None]
    picture = clouds(xyz, [colours])[0]
    front, aside = picture[:, :, :PANEL], picture[:, :, PANEL + GAP :]
    assert coloured(front, 0).any()
    assert not coloured(front, 2).any()  # behind
    near, far = (torch.nonzero(coloured(aside, which)).float().mean(0) for which in (0, 2))
    assert near[0] > far[0] + 10  # seen from above, what is near is lower
    assert (near[1] - far[1]).abs() > 10


def test_every_cloud_fills_its_view():
    points = torch.randn(300, 3)
    colours = [torch.rand(1, 300, 3)]
    small, large = (clouds((points * size + 5 * size)[None], colours)[0] for size in (0.01, 100.0))
    differ = (small != large).any(0).float().mean()
    assert differ < 0.02  # rounding
    assert (small < 255).any(0).float().mean() > 0.1


def test_clouds_of_one_place_and_single_points():
    for points in (torch.zeros(2, 50, 3), torch.ones(2, 1, 3)):
        picture = clouds(points, [torch.zeros(2, points.shape[1], 3)])[0]
        assert (picture[0, :, :PANEL] < 255).sum() == 21  # one disc
