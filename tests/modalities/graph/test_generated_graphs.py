"""Families of graphs: independent draws, and what size and density do not tell."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jepa_lightning.data import DataError
from modalities.graph.generated import FAMILIES, RULES, GeneratedGraphs


@pytest.fixture(scope="module")
def sets():
    return GeneratedGraphs(800), GeneratedGraphs(400, split="val")


def score(sets, features, targets):
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    train, val = ([np.array([features(graph) for graph in one.graphs]), targets(one)] for one in sets)
    return model.fit(*train).score(*val)


def degrees(graph):
    return torch.bincount(graph.edges[0], minlength=len(graph.nodes))


@pytest.mark.long
def test_graphs_are_simple_and_undirected(sets):
    for graph in sets[0].graphs:
        nodes = len(graph.nodes)
        assert 20 <= nodes <= 60
        assert 3 < graph.edges.shape[1] / nodes < 5.2
        table = torch.zeros(nodes, nodes)
        table[graph.edges[0], graph.edges[1]] = 1
        assert table.sum() == graph.edges.shape[1]
        assert torch.equal(table, table.T)
        assert not table.diagonal().any()
        assert torch.equal(graph.nodes.sum(1), torch.ones(nodes))
        assert graph.nodes.shape[1] == 4


def families(one):
    return one.labels["family"]


def test_size_and_density_do_not_tell_the_family(sets):
    def size(graph):
        return [np.log(len(graph.nodes)), graph.edges.shape[1] / len(graph.nodes)]

    assert score(sets, size, families) < 0.2  # chance: 0.125
    assert 0.3 < score(sets, histogram, families) < 0.65


def histogram(graph):
    return torch.bincount(degrees(graph).clamp(max=12), minlength=13).numpy() / len(graph.nodes)


def test_neither_types_nor_degrees_tell_the_rule_but_their_pairs_at_edges_do(sets):
    def pairs(graph):
        types = graph.nodes.argmax(1)
        found = torch.bincount(types[graph.edges[0]] * 4 + types[graph.edges[1]], minlength=16)
        return found.numpy() / graph.edges.shape[1]

    for useless in (histogram, lambda graph: graph.nodes.mean(0).numpy()):
        assert score(sets, useless, lambda one: one.targets) < 0.2  # chance: 0.1
    assert 0.75 < score(sets, pairs, lambda one: one.targets) < 0.97


def test_types_attract_by_the_rule(sets):
    """At the edges' ends, the pairs of the rule are more frequent than others."""
    one = sets[0]
    assert len(RULES) == len(one.classes) == 10
    assert one.classes[0] == "0-0 1-1 2-2 3-3"
    for number, rule in enumerate(RULES):
        members = np.flatnonzero(one.targets == number)
        assert len(members) == 80
        pairs = torch.zeros(4, 4)
        for graph in (one.graphs[i] for i in members):
            types = graph.nodes.argmax(1)
            pairs.index_put_((types[graph.edges[0]], types[graph.edges[1]]), torch.ones(()), accumulate=True)
        wanted = torch.zeros(4, 4, dtype=torch.bool)
        wanted[torch.arange(4), torch.tensor(rule)] = True
        assert pairs[wanted].min() > 1.25 * pairs[~wanted].max()
        assert pairs.sum(1).max() < 1.6 * pairs.sum(1).min()


def test_families_are_what_they_say(sets):
    one = sets[0]
    by_family = [[one.graphs[i] for i in np.flatnonzero(families(one) == f)] for f in range(8)]
    assert min(map(len, by_family)) > 60
    spread = {name: np.mean([degrees(g).double().var() for g in part]) for name, part in zip(FAMILIES, by_family)}  # noqa: B905
    clustering = {name: one.labels["clustering"][families(one) == f].mean() for f, name in enumerate(FAMILIES)}
    assert spread["regular"] < 0.5 * spread["random"] < 0.3 * spread["attachment"]
    assert clustering["grid"] < clustering["random"] < clustering["communities"] < clustering["small world"]
    assert clustering["small world"] < clustering["cliques"]
    assert clustering["geometric"] > 0.3


def test_labels(sets):
    import networkx  # comes with torch; a yardstick only

    sample = sets[0][5]
    graph = sample["graph"]
    plain = networkx.Graph(graph.edges.T.tolist())
    plain.add_nodes_from(range(len(graph.nodes)))
    assert sample["labels"]["clustering"] == pytest.approx(networkx.average_clustering(plain), abs=1e-5)
    assert 2 ** sample["labels"]["nodes"] == pytest.approx(len(graph.nodes), rel=1e-5)
    assert sample["labels"]["rule"] == 5
    assert list(sample["labels"]) == ["rule", "family", "clustering", "nodes"]


def same(first, second):
    return torch.equal(first.nodes, second.nodes) and torch.equal(first.edges, second.edges)


def test_a_graph_depends_on_seed_split_and_number_alone(sets):
    some = GeneratedGraphs(20)
    assert all(map(same, some.graphs, sets[0].graphs))
    for other in (GeneratedGraphs(20, seed=1), GeneratedGraphs(20, split="val"), GeneratedGraphs(20, split="test")):
        assert not any(map(same, some.graphs, other.graphs))


def test_errors():
    with pytest.raises(DataError, match="at least 1"):
        GeneratedGraphs(0)
    with pytest.raises(DataError, match="split"):
        GeneratedGraphs(8, split="valid")
