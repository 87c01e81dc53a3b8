"""Patches against brute force, random walks against PyG and a plain loop, and graphs that are odd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.transforms import AddRandomWalkPE

from modalities.graph import walks
from modalities.graph.graphs import RawGraph
from modalities.graph.patching import cut
from modalities.graph.walks import random_walks


def make(nodes, edges, *, seed=0, both=False, features=1):
    rng = np.random.default_rng(seed)
    ends = torch.from_numpy(rng.integers(0, nodes, (2, edges)))
    if both:
        ends = torch.unique(torch.cat([ends, ends.flip(0)], dim=1), dim=1)
    return RawGraph(
        nodes=torch.arange(nodes, dtype=torch.float32)[:, None].repeat(1, features),
        edges=ends,
        edge_features=torch.arange(ends.shape[1], dtype=torch.float32)[:, None],
    )


def patch_nodes(patched):
    return [patched.members[patched.patch == i].tolist() for i in range(patched.count)]


def ball(edges, start, hops):
    found = set(start)
    for _ in range(hops):
        found |= {b for a, b in edges if a in found} | {a for a, b in edges if b in found}
    return sorted(found)


def check(graph, patched, *, hops, cores, edges=None):
    """Against brute force: the patches are the balls around `cores`, with all of `edges` that lie within."""
    listed = graph.edges.T.tolist()
    kept = range(len(listed)) if edges is None else edges
    pairs = [listed[i] for i in kept]
    patches = patch_nodes(patched)
    assert patched.count == len(cores)
    assert patches == [ball(pairs, core, hops) for core in cores]
    assert (patched.patch.diff() >= 0).all()
    assert patched.patch.unique().tolist() == list(range(patched.count))
    want = [(p, *listed[i], float(i)) for p in range(patched.count) for i in kept if set(listed[i]) <= set(patches[p])]
    source, target = patched.edges
    assert torch.equal(patched.patch[source], patched.patch[target])
    ends = patched.members[source].tolist(), patched.members[target].tolist()
    features = patched.edge_features[:, 0].tolist()
    assert list(zip(patched.patch[source].tolist(), *ends, features, strict=True)) == want


@pytest.mark.parametrize("hops", [0, 1, 2])
@pytest.mark.parametrize(("nodes", "edges", "patches"), [(40, 70, 6), (60, 60, 16), (30, 0, 4), (50, 20, 12)])
def test_patches_are_balls_around_parts(nodes, edges, patches, hops):
    graph = make(nodes, edges, seed=hops)
    parts = patch_nodes(cut(graph, patches=patches, hops=0, walk=2))
    assert sorted(node for part in parts for node in part) == list(range(nodes))  # each node in exactly one
    assert 1 < len(parts) <= patches
    check(graph, cut(graph, patches=patches, hops=hops, walk=2), hops=hops, cores=parts)


@pytest.mark.parametrize("nodes", [1, 2, 7, 20])
@pytest.mark.parametrize("hops", [0, 1, 3])
def test_small_graphs_have_one_patch_a_node(nodes, hops):
    graph = make(nodes, 2 * nodes, seed=nodes)
    check(graph, cut(graph, patches=20, hops=hops, walk=2), hops=hops, cores=[[i] for i in range(nodes)])


def test_one_patch():
    graph = make(30, 40)
    check(graph, cut(graph, patches=1, hops=1, walk=2), hops=1, cores=[list(range(30))])


@pytest.mark.parametrize("drop", [0.0, 0.3])
def test_one_patch_is_each_of_two_that_reach_everywhere(drop):
    ring = torch.stack([torch.arange(20), torch.arange(1, 21) % 20])
    chords = torch.stack([torch.arange(20), (torch.arange(20) + 7) % 20])
    edges = torch.cat([ring, ring.flip(0), chords, torch.tensor([[3, 3], [3, 4]])], 1)
    graph = RawGraph(nodes=torch.randn(20, 2), edges=edges, edge_features=torch.arange(62.0)[:, None])

    def make(**settings):
        return cut(graph, walk=4, drop_edges=drop, rng=np.random.default_rng(0), **settings)

    one, two = make(patches=1, hops=0), make(patches=2, hops=20)
    assert (one.count, two.count) == (1, 2)
    assert torch.equal(one.walks, two.walks)
    for part in (0, 1):
        mine, inside = two.patch == part, two.patch[two.edges[0]] == part
        assert torch.equal(one.members, two.members[mine])
        assert torch.equal(one.edges, two.edges[:, inside] - 20 * part)
        assert torch.equal(one.edge_features, two.edge_features[inside])
    assert not one.patch.any()


def test_parts_are_of_similar_size_and_cut_few_edges():
    side = 16
    node = torch.arange(side * side).view(side, side)
    ties = torch.cat(
        [torch.stack([node[1:], node[:-1]]).flatten(1), torch.stack([node[:, 1:], node[:, :-1]]).flatten(1)], 1
    )
    graph = RawGraph(nodes=torch.zeros(side * side, 0), edges=torch.cat([ties, ties.flip(0)], dim=1))
    patched = cut(graph, patches=16, hops=0, walk=1)
    sizes = torch.bincount(patched.patch)
    assert sizes.min() >= 12
    assert sizes.max() <= 20
    assert patched.edges.shape[1] > 0.7 * graph.edges.shape[1]  # of 480: squares of 4 x 4 would cut 96, 80%


@pytest.mark.parametrize("drop", [0.0, 0.3])
def test_the_same_every_time(drop):
    graph = make(80, 150, both=True)

    def draw(seed=0):
        return cut(graph, patches=12, hops=1, walk=3, drop_edges=drop, rng=np.random.default_rng(seed))

    first, again = draw(), draw()
    for name in ("members", "patch", "edges", "edge_features", "walks"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert any(len(draw(i).members) != len(first.members) for i in range(1, 5)) == (drop > 0)


def test_dropped_edges_go_in_both_directions():
    graph = make(30, 60, both=True)
    whole = cut(graph, patches=40, hops=1, walk=4)
    patched = cut(graph, patches=40, hops=1, walk=4, drop_edges=0.25, rng=np.random.default_rng(1))
    kept = sorted({int(i) for i in patched.edge_features[:, 0]})
    check(graph, patched, hops=1, cores=[[i] for i in range(30)], edges=kept)
    ends = {tuple(pair) for pair in graph.edges.T.tolist()}
    left = {tuple(pair) for pair in graph.edges[:, kept].T.tolist()}
    assert left == {(b, a) for a, b in left}
    loops = {(a, b) for a, b in ends if a == b}
    assert loops
    assert loops <= left
    pairs = (len(ends) - len(loops)) // 2
    assert (len(left) - len(loops)) // 2 == pairs - round(0.25 * pairs)
    assert torch.equal(patched.walks, whole.walks)


def test_renumbering_permutes_patches():
    graph = make(15, 40, seed=3)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(0))
    rank = order.argsort()
    other = RawGraph(nodes=graph.nodes[order], edges=rank[graph.edges], edge_features=graph.edge_features)
    first, second = (cut(g, patches=15, hops=1, walk=5) for g in (graph, other))
    torch.testing.assert_close(second.walks, first.walks[order])
    renamed = [sorted(order[patch].tolist()) for patch in patch_nodes(second)]
    assert renamed == [patch_nodes(first)[i] for i in order.tolist()]

    def ties(patched, name):
        members = name[patched.members]
        patch = name[patched.patch]
        ends = patched.edges
        rows = torch.stack([patch[ends[0]], members[ends[0]], members[ends[1]], patched.edge_features[:, 0].long()])
        return sorted(map(tuple, rows.T.tolist()))

    assert ties(first, torch.arange(15)) == ties(second, order)


def test_what_comes_back():
    graph = RawGraph(nodes=torch.zeros(40, 0), edges=make(40, 60).edges)
    patched = cut(graph, patches=8, hops=1, walk=6)
    assert patched.nodes.shape == (40, 0)
    assert patched.edge_features is None
    assert patched.walks.shape == (40, 6)
    assert (patched.walks.dtype, patched.members.dtype, patched.patch.dtype, patched.edges.dtype) == (
        torch.float32, torch.int64, torch.int64, torch.int64)  # fmt: skip
    given = torch.ones(40, 2)
    assert cut(graph, patches=8, hops=1, walk=6, walks=given).walks is given


def test_errors():
    graph = make(5, 8)
    with pytest.raises(ValueError, match="at least one node"):
        cut(make(1, 0).__class__(nodes=torch.zeros(0, 3), edges=torch.zeros(2, 0).long()), patches=2, hops=1, walk=1)
    with pytest.raises(ValueError, match="nodes 0 to 4, got 0 to 5"):
        cut(RawGraph(nodes=graph.nodes, edges=torch.tensor([[0], [5]])), patches=2, hops=1, walk=1)
    for name, value in {"patches": 0, "hops": -1, "walk": 0, "drop_edges": 1.0}.items():
        with pytest.raises(ValueError, match=name):
            cut(graph, **{"patches": 2, "hops": 1, "walk": 1, name: value})
    with pytest.raises(ValueError, match="rng"):
        cut(graph, patches=2, hops=1, walk=1, drop_edges=0.5)


# Random walks


def plain_walks(edges, nodes, steps):
    table = np.zeros((nodes, nodes))
    table[edges[0], edges[1]] = 1
    step = table / np.maximum(table.sum(1, keepdims=True), 1)
    power, found = np.eye(nodes), []
    for _ in range(steps):
        power = power @ step
        found.append(np.diag(power))
    return np.stack(found, axis=1)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize(("nodes", "edges"), [(1, 0), (1, 1), (6, 0), (18, 30), (40, 20), (700, 1500)])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_walks(nodes, edges, both, steps):
    graph = make(nodes, edges, both=both, seed=steps)  # with self-loops, isolated nodes, repeated edges if not both
    got = random_walks(graph.edges, nodes=nodes, steps=steps)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got, plain_walks(graph.edges.numpy(), nodes, steps), atol=1e-7)
    unique = torch.unique(graph.edges, dim=1)
    theirs = AddRandomWalkPE(steps)(Data(edge_index=unique, num_nodes=nodes)).random_walk_pe
    torch.testing.assert_close(got, theirs, atol=1e-6, rtol=1e-5)


def test_walks_on_a_ring():
    ring = torch.stack([torch.arange(6), (torch.arange(6) + 1) % 6])
    around = random_walks(ring, nodes=6, steps=6)
    assert around.tolist() == [[0, 0, 0, 0, 0, 1]] * 6
    back = random_walks(torch.cat([ring, ring.flip(0)], dim=1), nodes=6, steps=4)
    torch.testing.assert_close(back, torch.tensor([[0, 1 / 2, 0, 3 / 8]] * 6))


@pytest.mark.parametrize("few", [0.02, 0.3, 1.0])
@pytest.mark.parametrize("both", [False, True])
def test_sparse_walks_are_the_dense_ones(monkeypatch, both, few):
    """Sparse until they reach a share of the nodes, early, late or never, on a directed and an undirected graph."""
    edges = make(60, 90, both=both).edges
    dense = random_walks(edges, nodes=60, steps=9)
    monkeypatch.setattr(walks, "_LARGE", 0)
    monkeypatch.setattr(walks, "_FEW", few)
    sparse = random_walks(edges, nodes=60, steps=9)
    assert dense.any()
    torch.testing.assert_close(sparse, dense, rtol=1e-6, atol=1e-12)
