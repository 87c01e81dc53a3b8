"""Views of graphs: edges go in both directions and out of every patch, features for all nodes."""

from dataclasses import fields, replace

import pytest
import torch
from view_checks import check_views

from jepa_lightning.data import DataError
from modalities.graph import GraphData, GraphViews
from modalities.graph.graphs import GraphBatch, RawGraph, once
from modalities.graph.patching import cut
from modalities.graph.transforms import Cutting, LazyGraph, grown, with_nodes

CUT = {"features": 4, "edge_features": 0, "patches": 6, "hops": 1, "walk": 4}


def make(**settings):
    return GraphData(**{"samples": 16, "batch_size": 4, "num_workers": 0, **CUT, **settings})


def same(one, other):
    pairs = [(getattr(one, f.name), getattr(other, f.name)) for f in fields(one)]
    return all(equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def equal(one, other):
    """Whether two tensors are equal, where NaN, of a feature that is left out, is equal to NaN."""
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


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


@pytest.mark.parametrize("count", [0, 1, 200])
def test_edges_once_are_those_of_unique(count):
    edges = torch.randint(12, (2, count), generator=torch.Generator().manual_seed(count))
    assert torch.equal(once(edges, 12), edges.unique(dim=1) if count else edges)


def test_a_feature_goes_for_all_nodes():
    torch.manual_seed(0)
    views = [GraphViews(drop_edges=0.0, drop_features=0.25)({"graph": lazy()})["graph"] for _ in range(50)]
    for view in views:
        assert equal(view.nodes, view.nodes[:1].expand(30, -1))
    known = torch.stack([view.nodes.nan_to_num().mean() for view in views])
    assert float(known.mean()) == pytest.approx(0.75, abs=0.03)
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


def described(patched):
    """Patches as sets of what their nodes and edges are, the nodes by their only feature."""
    number = patched.nodes[:, 0].tolist()
    found = [(set(), set()) for _ in range(patched.count)]
    for member, patch in zip(patched.members.tolist(), patched.patch.tolist(), strict=True):
        found[patch][0].add(number[member])
    features = patched.edge_features.flatten().tolist()
    for (source, target), feature in zip(patched.edges.T.tolist(), features, strict=True):
        assert patched.patch[source] == patched.patch[target]
        ends = (number[patched.members[source]], number[patched.members[target]])
        found[int(patched.patch[source])][1].add((*ends, feature))
    return found


def test_a_node_goes_with_its_edges_and_a_patch_with_its_last_node():
    whole = cut(replace(graph(), nodes=torch.arange(30.0)[:, None]), patches=6, hops=0, walk=4)
    torch.manual_seed(0)
    lost = 0
    for _ in range(30):
        kept = torch.rand(30) < 0.3
        kept[int(torch.randint(30, ()))] = True
        staying = set(kept.nonzero().flatten().tolist())
        expected = [
            ({n for n in nodes if n in staying}, {e for e in edges if e[0] in staying and e[1] in staying})
            for nodes, edges in described(whole)
        ]
        expected = [patch for patch in expected if patch[0]]
        view = with_nodes(whole, kept)
        assert described(view) == expected
        assert view.patch.tolist() == sorted(view.patch.tolist())
        assert torch.equal(view.walks, whole.walks[kept])
        lost += view.count < whole.count
    assert lost
    assert same(with_nodes(whole, torch.ones(30, dtype=torch.bool)), whole)


def test_nodes_are_dropped_by_their_probability():
    torch.manual_seed(0)
    views = GraphViews(drop_edges=0.0, drop_features=0.0, drop_nodes=0.3)
    counts = [len(views({"graph": lazy()})["graph"].nodes) for _ in range(100)]
    assert sum(counts) / 3000 == pytest.approx(0.7, abs=0.03)
    almost = GraphViews(drop_edges=0.0, drop_features=0.0, drop_nodes=0.999)
    assert min(len(almost({"graph": lazy()})["graph"].nodes) for _ in range(20)) == 1
    GraphBatch.join([almost({"graph": lazy()})["graph"] for _ in range(4)])


def test_a_subgraph_is_connected_and_of_its_size():
    whole = cut(graph(), patches=6, hops=1, walk=4)
    near = {n: set() for n in range(30)}
    for source, target in graph().edges.T.tolist():
        near[source].add(target)
    torch.manual_seed(0)
    starts = torch.zeros(30)
    for share, size in ((0.5, 15), (0.8, 24), (0.01, 1), (1.0, 30)):
        for _ in range(20):
            kept = grown(whole, share=share)
            inside = set(kept.nonzero().flatten().tolist())
            assert len(inside) == size
            reached, todo = set(), [min(inside)]
            while todo:
                node = todo.pop()
                reached.add(node)
                todo += (near[node] & inside) - reached
            assert reached == inside
            starts += kept
    assert (starts > 0).all(), "any node may be in it"
    view = GraphViews(drop_edges=0.0, drop_features=0.0, subgraph=0.5)({"graph": lazy()})["graph"]
    assert len(view.nodes) == 15


def test_a_subgraph_ends_where_its_component_does():
    pairs = torch.tensor([[0, 1], [1, 0], [2, 3], [3, 2]]).T
    parts = cut(RawGraph(nodes=torch.ones(5, 1), edges=pairs), patches=2, hops=1, walk=2)
    torch.manual_seed(0)
    found = {tuple(grown(parts, share=0.9).nonzero().flatten().tolist()) for _ in range(60)}
    assert found == {(0, 1), (2, 3), (4,)}


@pytest.mark.parametrize("value", [0.0, 1.1, -0.5])
def test_a_share_out_of_range(value):
    with pytest.raises(DataError, match="expected subgraph, a share of the nodes, above 0 and at most 1"):
        GraphViews(subgraph=value)


@pytest.mark.parametrize("name", ["drop_edges", "drop_features", "drop_nodes"])
def test_settings_out_of_range(name):
    with pytest.raises(DataError, match=f"expected {name} from 0 to below 1, got 1"):
        GraphViews(**{name: 1.0})
