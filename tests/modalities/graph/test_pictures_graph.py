"""Pictures of graphs: where nodes and lines lie, colours, odd graphs."""

from dataclasses import replace

import pytest
import torch
from patched_graphs import cut, join

from jepa_lightning.pictures.drawing import GAP, UNUSED
from modalities.graph.graphs import GraphBatch
from modalities.graph.pictures import SIDE, graphs, layout, type_colours

RED, BLUE = torch.tensor([1.0, 0, 0]), torch.tensor([0, 0, 1.0])


def ring(count):
    here = torch.arange(count)
    return torch.stack([here, (here + 1) % count])


def pixels(picture, colour):
    return (picture == (255 * colour).to(torch.uint8)[:, None, None]).all(0)


def test_a_row_of_panels_a_sample():
    batch = join(4, 1, 9)
    found = graphs(batch, [torch.rand(14, 3), torch.zeros(14, 3)])
    assert [picture.shape for picture in found] == [(3, SIDE, 2 * SIDE + GAP)] * 3
    assert found[0].dtype == torch.uint8
    assert (found[2][:, 0] == 255).all()  # nothing touches the edge
    second = found[2][:, :, SIDE + GAP :]
    assert (second.amax(0) == second.amin(0)).all()  # black, grey and white
    assert second.min() < 20


def test_each_graph_shows_its_own_nodes_and_edges():
    blank = GraphBatch.join([cut(torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.int64), None)])
    ends = torch.tensor([[0, 1], [1, 0]])
    edge = GraphBatch.join([cut(torch.zeros(2, 0), ends, None), cut(torch.zeros(1, 0), ends[:, :0], None)])
    without = graphs(blank, [torch.stack([RED, BLUE])])[0]
    line, dot = graphs(edge, [torch.stack([RED, BLUE, BLUE])])
    for picture in (without, line):
        assert pixels(picture, RED).sum() > 40
        assert pixels(picture, BLUE).sum() > 40
    assert not pixels(dot, RED).any()
    assert pixels(dot, BLUE)[SIDE // 2, SIDE // 2]
    grey = [(picture.amax(0) == picture.amin(0)) & (picture[0] > 180) & (picture[0] < 255) for picture in (line, dot)]
    assert grey[0].sum() > 100
    assert grey[1].sum() < 20  # the disc's rim


def test_the_node_that_a_sample_is_about_is_larger():
    batch = join(6, 12)
    colours = torch.stack([RED, *([BLUE] * 5), RED, *([BLUE] * 11)])
    plain, rooted = graphs(batch, [colours]), graphs(replace(batch, rooted=True), [colours])
    for one, other in zip(plain, rooted, strict=True):
        assert pixels(other, RED).sum() > 3 * pixels(one, RED).sum()
        assert pixels(other, BLUE).sum() >= 0.7 * pixels(one, BLUE).sum()


def test_a_graph_looks_the_same_alone():
    batch = join(6, 12)
    colours = torch.rand(18, 3)
    assert torch.equal(graphs(batch[:1], [colours[:6]])[0], graphs(batch, [colours])[0])


@pytest.mark.parametrize("count", [3, 12, 60])
def test_a_ring_is_drawn_as_a_ring(count):
    places = layout(count, ring(count))
    assert places.abs().max() <= 1 + 1e-6
    joined = (places - places.roll(-1, 0)).norm(dim=1)
    assert joined.max() < 2.5 * torch.pdist(places).mean()
    assert joined.mean() <= torch.pdist(places).mean() + 1e-6
    assert torch.pdist(places).min() > 0.2 / count
    assert torch.equal(layout(count, ring(count)), places)


def test_large_graphs_keep_neighbours_near():
    places = layout(400, ring(400))
    assert torch.isfinite(places).all()
    joined = (places - places.roll(-1, 0)).norm(dim=1)
    assert joined.mean() < 0.3 * torch.pdist(places).mean()


@pytest.mark.parametrize("count", [1, 2, 20, 350])
def test_nodes_without_edges_and_loops(count):
    for edges in (torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, 1, dtype=torch.int64)):
        places = layout(count, edges)
        assert places.shape == (count, 2)
        assert torch.isfinite(places).all()
        if count > 1:
            assert torch.pdist(places).max() > 0.5


def test_types_have_colours_and_other_features_are_grey():
    kinds = torch.tensor([0, 6, 3, 0, 2])
    colours = type_colours(torch.eye(8)[kinds])
    assert torch.equal(colours[0], colours[3])
    assert len(colours.unique(dim=0)) == 4
    assert len(type_colours(torch.eye(20)).unique(dim=0)) == 20
    for nodes in (torch.rand(5, 8), torch.zeros(5, 0), torch.ones(5, 1), torch.ones(5, 2)):
        assert torch.equal(type_colours(nodes), torch.tensor(UNUSED).expand(5, 3))
