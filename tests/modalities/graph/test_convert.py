"""What becomes of PyG's data."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data

from jepa_lightning.data import DataError
from modalities.graph.graphs import RawGraph
from modalities.graph.reading import labels_of, to_graph

EDGES = torch.tensor([[0, 1, 2], [1, 2, 2]])


def test_float_features_stay():
    x, e = torch.randn(3, 5), torch.randn(3, 2)
    graph = to_graph(Data(x=x.double(), edge_index=EDGES, edge_attr=e), features=5, edge_features=2)
    assert torch.equal(graph.nodes, x)
    assert torch.equal(graph.edges, EDGES)
    assert torch.equal(graph.edge_features, e)
    again = to_graph(graph, features=5, edge_features=0)
    assert torch.equal(again.nodes, x)
    assert again.edge_features is None


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_types_are_one_hot(shape):
    types = torch.tensor([2, 0, 3]).view(shape)
    graph = to_graph(Data(x=types, edge_index=EDGES, edge_attr=types), features=4, edge_features=4)
    want = torch.eye(4)[[2, 0, 3]]
    assert torch.equal(graph.nodes, want)
    assert torch.equal(graph.edge_features, want)
    assert graph.nodes.dtype == torch.float32
    assert to_graph(Data(x=types, edge_index=EDGES), features=1, edge_features=0).nodes.tolist() == [[2], [0], [3]]
    assert to_graph(Data(x=types.float(), edge_index=EDGES), features=1, edge_features=0).nodes.shape == (3, 1)


def test_integer_columns():
    x = torch.tensor([[1, 2], [0, 4], [3, 3]])
    assert torch.equal(to_graph(Data(x=x, edge_index=EDGES), features=2, edge_features=0).nodes, x.float())


def test_no_features():
    for data in (Data(edge_index=EDGES, num_nodes=4), Data(x=torch.randn(4, 3), edge_index=EDGES)):
        graph = to_graph(data, features=0, edge_features=0)
        assert graph.nodes.shape == (4, 0)
        assert graph.edge_features is None


@pytest.mark.filterwarnings("error")
def test_number_of_nodes():
    assert len(to_graph(Data(edge_index=EDGES), features=0, edge_features=0).nodes) == 3
    assert len(to_graph(Data(pos=torch.randn(6, 2), edge_index=EDGES), features=0, edge_features=0).nodes) == 6
    alone = to_graph(Data(num_nodes=2), features=0, edge_features=3)
    assert alone.nodes.shape == (2, 0)
    assert alone.edges.shape == (2, 0)
    assert alone.edges.dtype == torch.int64
    assert alone.edge_features.shape == (0, 3)
    assert len(to_graph(Data(), features=0, edge_features=0).nodes) == 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"x": torch.randn(3, 7)}, "--model.modality.features 7"),
        ({}, "--model.modality.features 0"),
        ({"x": torch.randn(3, 0)}, "--model.modality.features 0"),
        ({"x": torch.tensor([0, 9, 1])}, "at least 10"),
        ({"x": torch.randn(3, 4), "edge_attr": torch.randn(3, 5)}, "--model.modality.edge_features 5"),
        ({"x": torch.randn(3, 4)}, "--model.modality.edge_features 0"),
        ({"x": torch.randn(3, 4), "edge_attr": torch.tensor([0, 1, 2])}, "edge_features to the number of types"),
    ],
)
def test_mismatch_names_the_setting(data, message):
    with pytest.raises(DataError, match=message):
        to_graph(Data(edge_index=EDGES, num_nodes=3, **data), features=4, edge_features=2)


def test_no_graph():
    with pytest.raises(DataError, match="got Tensor"):
        to_graph(torch.zeros(3), features=0, edge_features=0)


@pytest.mark.parametrize(
    "data",
    [
        {"x": torch.full((3, 2), torch.nan)},
        {"x": torch.full((3, 2), torch.inf)},
        {"x": torch.zeros(3, 2), "edge_index": torch.tensor([[0], [3]])},
        {"x": torch.zeros(3, 2), "edge_index": torch.tensor([[-1], [0]])},
        {"x": torch.zeros(3, 2), "edge_index": torch.zeros(3, 3).long()},
        {"x": torch.tensor([-1, 0, 1])},
        {"x": torch.zeros(3, 2), "num_nodes": 5},
    ],
)
def test_broken_graphs_are_unreadable(data):
    with pytest.raises(ValueError, match="expected") as caught:
        to_graph(Data(**{"edge_index": EDGES, **data}), features=2, edge_features=0)
    assert not isinstance(caught.value, DataError)  # which would end the run


@pytest.mark.parametrize(
    ("y", "want"),
    [
        (torch.tensor([3]), torch.tensor(3)),
        (torch.tensor(3), torch.tensor(3)),
        (torch.tensor([[1]]), torch.tensor(1)),
        (2, torch.tensor(2)),
        (1.5, torch.tensor(1.5)),
        (torch.tensor([0.5], dtype=torch.float64), torch.tensor(0.5)),
        (torch.tensor([[0.5, 2]]), torch.tensor([0.5, 2])),
    ],
)
def test_labels(y, want):
    (label,) = labels_of(Data(y=y)).values()
    assert label.dtype == want.dtype
    assert torch.equal(label, want)


def test_no_labels():
    assert labels_of(Data()) == {}
    assert labels_of(Data(y=torch.tensor([-1]))) == {}
    assert labels_of(RawGraph(nodes=torch.zeros(1, 0), edges=EDGES)) == {}
    with pytest.raises(DataError, match="one class"):
        labels_of(Data(y=torch.tensor([[1, 0, 1]])))
