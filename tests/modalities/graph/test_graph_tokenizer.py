"""Graphs to ragged tokens, and picking among them, against plain loops."""

import numpy as np
import pytest
import torch
from patched_graphs import join, tree

from modalities.graph.graphs import GraphBatch, RawGraph
from modalities.graph.subgraphs import Subgraphs
from modalities.graph.tokenizer import GraphTokenizer

SETTINGS = {"features": 3, "edge_features": 2, "walk": 5}


def tokens(batch=None, **settings):
    return GraphTokenizer(**{**SETTINGS, **settings})({"graph": join(4, 1, 7, 2) if batch is None else batch})


def contents(values, slot):
    """What one subgraph holds: its nodes, and its edges as (from, to, features), in order."""
    mine = torch.nonzero(values.patch == slot).flatten().tolist()
    inside = [e for e in range(values.edges.shape[1]) if int(values.edges[0, e]) in mine]
    assert all(int(values.edges[1, e]) in mine for e in inside)
    nodes = [int(values.members[m]) for m in mine]
    features = [None if values.edge_features is None else values.edge_features[e].tolist() for e in inside]
    ends = [(mine.index(int(values.edges[0, e])), mine.index(int(values.edges[1, e]))) for e in inside]
    return nodes, list(zip(ends, features, strict=True))


def test_a_token_is_a_patch_with_its_nodes_and_edges():
    graphs = [tree(size, seed=i) for i, size in enumerate((4, 1, 7, 2))]
    found = tokens(GraphBatch.join(graphs))
    assert found.values.shape == (4, 7)
    assert found.grid is None
    assert found.valid.sum(1).tolist() == [4, 1, 7, 2]
    first = 0
    for b, graph in enumerate(graphs):
        for i in range(7):
            nodes, edges = contents(found.values, 7 * b + i)
            mine = torch.nonzero(graph.patch == i).flatten().tolist()
            assert nodes == [first + int(graph.members[m]) for m in mine]
            expected = [e for e in range(graph.edges.shape[1]) if int(graph.edges[0, e]) in mine]
            assert [f for _, f in edges] == [graph.edge_features[e].tolist() for e in expected]
            assert bool(found.valid[b, i]) == bool(nodes)
        first += len(graph.nodes)


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_positions_are_pooled_walks_and_zero_for_padding(pooling):
    graphs = [tree(size, seed=i) for i, size in enumerate((4, 1, 7, 2))]
    tokenizer = GraphTokenizer(**SETTINGS, positions=pooling)
    found = tokenizer({"graph": GraphBatch.join(graphs)})
    assert found.positions.shape == (4, 7, 5)
    for b, graph in enumerate(graphs):
        for i in range(7):
            walks = graph.walks[graph.members[graph.patch == i]]
            expected = torch.zeros(5) if not len(walks) else walks.amax(0) if pooling == "max" else walks.mean(0)
            torch.testing.assert_close(found.positions[b, i], expected)
    evaluated = tokenizer.eval()({"graph": GraphBatch.join(graphs)})
    assert torch.equal(evaluated.positions, found.positions)


def measured(seed=0):
    """Graphs of numbers far apart: an income, a type that is 0 or 1, and one that never changes; likewise edges."""
    batch = join(40, 10, 70, 20)
    generator = torch.Generator().manual_seed(seed)
    nodes, edges = len(batch.nodes), len(batch.edge_features)
    income = 50_000 + 9_000 * torch.randn(nodes, generator=generator)
    batch.nodes = torch.stack([income, (income > 50_000).float(), torch.full((nodes,), 7.3)], dim=1)
    batch.edge_features = torch.rand(edges, 2, generator=generator) * torch.tensor([1e-3, 30.0])
    return batch


def test_numbers_standardised_as_numpy_does():
    batches = [measured(0), measured(1)]
    tokenizer = GraphTokenizer(**SETTINGS, standardize=True)
    assert tokenizer.needs_statistics
    tokenizer.estimate({"graph": batch} for batch in batches)
    assert not tokenizer.needs_statistics
    nodes = np.concatenate([batch.nodes.double().numpy() for batch in batches])
    edges = np.concatenate([batch.edge_features.double().numpy() for batch in batches])
    found = tokenizer({"graph": batches[0]}).values
    income = (batches[0].nodes[:, 0].double().numpy() - nodes[:, 0].mean()) / nodes[:, 0].std()
    np.testing.assert_allclose(found.nodes[:, 0].numpy(), income, atol=1e-4)
    assert torch.equal(found.nodes[:, 1:], batches[0].nodes[:, 1:])
    order = batches[0].patch[batches[0].edges[0]].argsort(stable=True)
    scaled = (batches[0].edge_features[order].double().numpy() - edges.mean(0)) / edges.std(0)
    np.testing.assert_allclose(found.edge_features.numpy(), scaled, atol=1e-4)
    again = GraphTokenizer(**SETTINGS, standardize=True)
    again.load_state_dict(tokenizer.state_dict())
    assert not again.needs_statistics
    assert torch.equal(again({"graph": batches[0]}).values.nodes, found.nodes)


@pytest.mark.parametrize("standardize", [False, True])
def test_a_number_left_out_is_the_mean_or_zero(standardize):
    tokenizer = GraphTokenizer(**SETTINGS, standardize=standardize)
    if standardize:
        tokenizer.estimate([{"graph": measured()}])
    batch = measured()
    whole = tokenizer({"graph": batch}).values.nodes
    batch.nodes = batch.nodes.clone()
    batch.nodes[:5, 0] = torch.nan
    found = tokenizer({"graph": batch}).values.nodes
    assert torch.equal(found[:5, 0], torch.zeros(5))
    assert torch.equal(found[:, 1:], whole[:, 1:])
    assert torch.equal(found[5:], whole[5:])


def test_numbers_left_out_do_not_count():
    batch, tokenizer = measured(), GraphTokenizer(**SETTINGS, standardize=True)
    batch.nodes[::3, 0] = torch.nan
    known = batch.nodes[~batch.nodes[:, 0].isnan(), 0].double().numpy()
    batch.nodes[:, 2] = torch.nan
    tokenizer.estimate([{"graph": batch}])
    assert tokenizer.scales["nodes"].mean.tolist() == pytest.approx([known.mean(), 0, 0], rel=1e-6)
    assert tokenizer.scales["nodes"].std.tolist() == pytest.approx([known.std(), 1, 1], rel=1e-5)


def test_standardised_graphs_without_edges_or_numbers():
    tokenizer = GraphTokenizer(features=0, walk=5, standardize=True)
    lonely = RawGraph(nodes=torch.ones(3, 0), edges=torch.empty(2, 0, dtype=torch.int64))
    tokenizer.estimate([{"graph": [lonely]}])
    assert tokenizer({"graph": [lonely]}).values.nodes.shape == (3, 0)
    edgeless = GraphTokenizer(features=1, edge_features=2, walk=5, standardize=True)
    given = RawGraph(nodes=torch.tensor([[3.0], [5.0]]), edges=lonely.edges, edge_features=torch.empty(0, 2))
    edgeless.estimate([{"graph": [given]}])
    assert edgeless({"graph": [given]}).values.nodes.flatten().tolist() == [-1.0, 1.0]
    with pytest.raises(ValueError, match="no batch to estimate"):
        GraphTokenizer(standardize=True).estimate([])


def test_without_standardising_a_checkpoint_holds_nothing_of_it():
    assert not GraphTokenizer(**SETTINGS).state_dict()
    assert not GraphTokenizer(**SETTINGS).needs_statistics


def test_edges_in_any_order():
    batch = join(4, 1, 7, 2)
    shuffled = torch.randperm(batch.edges.shape[1], generator=torch.Generator().manual_seed(0))
    batch.edges, batch.edge_features = batch.edges[:, shuffled], batch.edge_features[shuffled]
    found = tokens(batch).values
    assert (found.patch[found.edges[0]].diff() >= 0).all()
    for slot in range(28):
        assert sorted(contents(found, slot)[1]) == sorted(contents(tokens().values, slot)[1])


@pytest.mark.parametrize("with_valid", [False, True])
@pytest.mark.parametrize("edge_features", [0, 2])
def test_taken_patches_are_the_patches(with_valid, edge_features):
    values = tokens(edge_features=edge_features).values
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(7, (4, 9), generator=generator)  # more than there are, so that some come twice
    valid = torch.rand(4, 9, generator=generator) > 0.3 if with_valid else None
    taken = values.take(index, valid)
    assert taken.shape == (4, 9)
    assert (taken.patch.diff() >= 0).all()
    assert (taken.edge_features is None) == (edge_features == 0)
    for b in range(4):
        for k in range(9):
            expected = contents(values, 7 * b + int(index[b, k]))
            real = valid is None or valid[b, k]
            assert contents(taken, 9 * b + k) == (expected if real else ([], []))
    if valid is not None:
        again = taken.take(torch.arange(9).expand(4, 9))
        for name in ("members", "patch", "edges"):
            assert torch.equal(getattr(again, name), getattr(taken, name))


def test_nothing_taken_is_empty():
    values = tokens().values
    index = torch.zeros(4, 3, dtype=torch.int64)
    taken = values.take(index, torch.zeros(4, 3, dtype=torch.bool))
    assert taken.members.numel() == 0
    assert taken.edges.shape == (2, 0)
    assert taken.edge_features.shape == (0, 2)
    assert taken.shape == (4, 3)
    with pytest.raises(ValueError, match="4 samples of subgraphs, and the index has 3"):
        values.take(index[:3])


def test_graphs_without_edges():
    graph = tree(1)
    found = tokens(GraphBatch.join([graph, graph]))
    assert isinstance(found.values, Subgraphs)
    assert found.values.take(torch.zeros(2, 1, dtype=torch.int64)).members.tolist() == [0, 1]
    assert found.valid.all()


def test_lists_of_cut_graphs():
    graphs = [tree(size, seed=i) for i, size in enumerate((4, 1, 7))]
    joined, listed = tokens(GraphBatch.join(graphs)), tokens(graphs)
    assert torch.equal(joined.positions, listed.positions)
    assert torch.equal(joined.values.members, listed.values.members)


def raw(count=6):
    ring = torch.arange(count)
    ends = torch.stack([ring, (ring + 1) % count])
    edges = torch.cat([ends, ends.flip(0)], dim=1)
    return RawGraph(nodes=torch.randn(count, 3), edges=edges, edge_features=torch.randn(2 * count, 2))


def test_graphs_are_cut_here_where_they_come_whole():
    pytest.importorskip("pymetis")
    data = pytest.importorskip("torch_geometric.data")
    graphs = [raw(6), raw(3)]
    pyg = [data.Data(x=g.nodes, edge_index=g.edges, edge_attr=g.edge_features) for g in graphs]
    found = [tokens(batch) for batch in (graphs, pyg, data.Batch.from_data_list(pyg))]
    for other in found:
        assert other.values.shape == (2, 6)
        assert other.valid.sum(1).tolist() == [6, 3]
        assert torch.equal(other.positions, found[0].positions)
        assert torch.equal(other.values.nodes, torch.cat([g.nodes for g in graphs]))
        assert other.values.edges.shape == (2, 6 * 4 + 3 * 6)  # a path of three nodes, and whole triangles


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": 4}, "nodes have 3 features, and the modality was told 4: set its features to 3"),
        ({"walk": 6}, "have 5 random-walk features, and the modality was told 6: set walk"),
        ({"edge_features": 1}, "edges have 2 features, and the modality was told 1: set its edge_features to 2"),
    ],
)
def test_other_numbers_than_told(settings, message):
    with pytest.raises(ValueError, match=message):
        tokens(**settings)


def test_edges_without_features_where_some_were_told():
    with pytest.raises(ValueError, match="edges have 0 features, and the modality was told 2: set its edge_features"):
        tokens(join(4, 2, edge_features=0))
    assert tokens(join(4, 2), edge_features=0).values.edge_features is None  # left out


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"image": 1}, r"needs the key 'graph', this one has \['image'\]"),
        ({"graph": []}, "must be a GraphBatch, a PyG Batch or a list of at least one graph, got list"),
        ({"graph": torch.zeros(2)}, "got Tensor"),
    ],
)
def test_batches_of_something_else(batch, message):
    with pytest.raises(ValueError, match=message):
        GraphTokenizer()(batch)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": -1}, "features must be at least 0, got -1"),
        ({"patches": 0}, "patches must be at least 1, got 0"),
        ({"hops": -1}, "hops must be at least 0"),
        ({"walk": 0}, "walk must be at least 1"),
        ({"positions": "sum"}, "positions must be max or mean, got 'sum'"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        GraphTokenizer(**settings)


def test_the_first_graphs_of_a_batch():
    graphs = [tree(size, seed=i) for i, size in enumerate((4, 1, 7, 2))]
    whole, part = tokens(GraphBatch.join(graphs)), tokens(GraphBatch.join(graphs)[:2])
    assert part.values.shape == (2, 7)
    assert torch.equal(part.valid, whole.valid[:2])
    assert torch.equal(part.positions, whole.positions[:2])
    for slot in range(14):
        assert contents(part.values, slot) == contents(whole.values, slot)
    assert len(part.values.nodes) == 5
    assert len(GraphBatch.join(graphs)[:9]) == 4
    with pytest.raises(ValueError, match="only the first samples"):
        GraphBatch.join(graphs)[1:]
