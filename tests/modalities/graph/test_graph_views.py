"""Views of graphs: edges go in both directions and out of every patch, features for all nodes."""

from dataclasses import fields

import pytest
import torch
from view_checks import check_views

from jepa_lightning.data import DataError
from modalities.graph import GraphData, GraphViews
from modalities.graph.graphs import RawGraph
from modalities.graph.patching import cut
from modalities.graph.transforms import Cutting, LazyGraph

CUT = {"features": 4, "edge_features": 0, "patches": 6, "hops": 1, "walk": 4}


def make(**settings):
    return GraphData(**{"samples": 16, "batch_size": 4, "num_workers": 0, **CUT, **settings})


def same(one, other):
    pairs = [(getattr(one, f.name), getattr(other, f.name)) for f in fields(one)]
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def graph():
    """A ring of 30 nodes with chords, self-loops at two of them, features of ones; edges know their number."""
    nodes = torch.arange(30)
    ends = torch.cat([torch.stack([nodes, (nodes + 1) % 30]), torch.stack([nodes, (nodes + 7) % 30])], 1)
    edges = torch.cat([ends, ends.flip(0), torch.tensor([[3, 9], [3, 9]])], 1)
    return RawGraph(nodes=torch.ones(30, 40), edges=edges, edge_features=torch.arange(122.0)[:, None])


def lazy():
    return LazyGraph(graph(), cutting=Cutting(**{**CUT, "features": 40, "edge_features": 1}), index=0)


def nodes_of(patched):
    """(from, to) of the edges within patches, as nodes of the graph."""
    return [tuple(edge) for edge in patched.members[patched.edges].T.tolist()]


@pytest.mark.long
def test_views_are_draws_of_one_pipeline():
    batch = check_views(make, equal=same)
    assert len(batch["graph"]) == 4
    assert isinstance(make(views=2).viewing, GraphViews)


def test_an_edge_goes_everywhere_or_nowhere():
    whole = cut(graph(), patches=6, hops=1, walk=4)
    listed = nodes_of(whole)
    assert len(listed) > len(set(listed)), "patches must overlap for this test"
    torch.manual_seed(0)
    sample = {"graph": lazy(), "labels": {}, "id": "a"}
    shares = []
    for _ in range(100):
        view = GraphViews(drop_edges=0.3, drop_features=0.0)(dict(sample))["graph"]
        left = set(nodes_of(view))
        assert {(b, a) for a, b in left} == left
        assert nodes_of(view) == [edge for edge in listed if edge in left]
        assert {(3, 3), (9, 9)} <= left
        crossing = {edge for edge in listed if edge[0] != edge[1]}
        shares.append(len(left & crossing) / len(crossing))
        numbers = {tuple(edge): i for i, edge in enumerate(graph().edges.T.tolist())}
        assert view.edge_features.flatten().tolist() == [numbers[edge] for edge in nodes_of(view)]
        assert torch.equal(view.walks, whole.walks)
        assert torch.equal(view.patch, whole.patch)
    assert sum(shares) / 100 == pytest.approx(0.7, abs=0.02)
    assert len(set(shares)) > 5


def test_a_feature_goes_for_all_nodes():
    torch.manual_seed(0)
    views = [GraphViews(drop_edges=0.0, drop_features=0.25)({"graph": lazy()})["graph"] for _ in range(50)]
    for view in views:
        assert torch.equal(view.nodes, view.nodes[:1].expand(30, -1))
    assert float(torch.stack([view.nodes.mean() for view in views]).mean()) == pytest.approx(0.75, abs=0.03)
    assert nodes_of(views[0]) == nodes_of(cut(graph(), patches=6, hops=1, walk=4))


def test_the_kept_cut_stays_whole():
    whole = lazy()
    GraphViews(drop_edges=0.9, drop_features=0.9)({"graph": whole})
    assert same(whole.plain(), cut(graph(), patches=6, hops=1, walk=4))


def test_a_graph_without_edges_or_features():
    empty = RawGraph(nodes=torch.ones(5, 0), edges=torch.empty(2, 0, dtype=torch.int64))
    cutting = Cutting(**{**CUT, "features": 0})
    view = GraphViews()({"graph": LazyGraph(empty, cutting=cutting, index=0)})["graph"]
    assert view.edges.shape == (2, 0)
    assert view.nodes.shape == (5, 0)


@pytest.mark.parametrize("name", ["drop_edges", "drop_features"])
def test_settings_out_of_range(name):
    with pytest.raises(DataError, match=f"expected {name} from 0 to below 1, got 1"):
        GraphViews(**{name: 1.0})
