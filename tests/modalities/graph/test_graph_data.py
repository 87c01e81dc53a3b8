"""Graphs from PyG's files, from datasets and generated; cuts that are kept; batches."""

from __future__ import annotations

import logging
import pickle
from types import SimpleNamespace

import pytest
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch.utils.data import Dataset
from torch_geometric.data import Data
from torch_geometric.datasets import ZINC, TUDataset

from jepa_lightning.data import DataError
from modalities.graph.data import GraphData, report
from modalities.graph.files import GivenGraphs
from modalities.graph.graphs import GraphBatch, RawGraph
from modalities.graph.transforms import Cutting, LazyGraph, join_graphs, plain_cut, random_cut

COUNT = 20
SMALL = {"features": 3, "edge_features": 0, "patches": 6, "hops": 1, "walk": 4, "batch_size": 4, "num_workers": 0}


def make(root=None, **kwargs):
    return GraphData(**{"root": root and str(root), **SMALL, **kwargs})


def ring(nodes, *, x=None, y=None, **extra):
    node = torch.arange(nodes)
    one = torch.stack([node, (node + 1) % nodes])
    return Data(x=torch.randn(nodes, 3) if x is None else x, edge_index=torch.cat([one, one.flip(0)], 1), y=y, **extra)


class Given(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


@pytest.fixture
def tudataset(tmp_path):
    """Rings of 3 to 12 nodes with three node types; the class is whether the size is odd."""
    raw = tmp_path / "RINGS" / "raw"
    raw.mkdir(parents=True)
    first, edges, indicator = 1, [], []
    for i in range(COUNT):
        size = 3 + i % 10
        for j in range(size):
            a, b = first + j, first + (j + 1) % size
            edges += [(a, b), (b, a)]
        indicator += [i + 1] * size
        first += size
    (raw / "RINGS_A.txt").write_text("".join(f"{a}, {b}\n" for a, b in edges))
    (raw / "RINGS_graph_indicator.txt").write_text("".join(f"{i}\n" for i in indicator))
    (raw / "RINGS_graph_labels.txt").write_text("".join(f"{1 if i % 2 else -1}\n" for i in range(COUNT)))
    (raw / "RINGS_node_labels.txt").write_text("".join(f"{i % 3}\n" for i in range(len(indicator))))
    (raw / "RINGS_node_attributes.txt").write_text("".join(f"{i}.5, 1.0\n" for i in range(len(indicator))))
    return tmp_path


@pytest.fixture
def offline(monkeypatch):
    tried = []

    def download(self):
        tried.append(self)
        raise OSError("no\nnetwork")

    monkeypatch.setattr(TUDataset, "download", download)
    monkeypatch.setattr(ZINC, "download", download)
    return tried


def test_files_in_place(tudataset, offline, caplog):
    data = make(tudataset, name="RINGS", val_fraction=0.2)
    data.setup()
    assert not offline
    assert data.in_memory
    assert data.label == "label"
    assert data.classes is None
    batches = list(data.train_dataloader())
    assert sum(len(batch["id"]) for batch in batches) == 16
    for batch in batches:
        graphs = batch["graph"]
        assert isinstance(graphs, GraphBatch)
        assert graphs.nodes.shape[1] == 3
        assert graphs.walks.shape[1] == 4
        for name, label, count in zip(batch["id"], batch["labels"]["label"], graphs.counts, strict=True):
            number = int(name.removeprefix("RINGS[").removesuffix("]"))
            assert label == number % 2
            assert (count == 3 + number % 10) if number % 10 <= 3 else (1 < count <= 6)
    (val,) = list(data.val_dataloader())
    assert val["labels"]["label"].sum() == 2  # of 4: stratified
    assert not [record for record in caplog.records if "graphs have" in record.message]


@pytest.mark.parametrize("without", [[19], [18, 19], [0, 7, 17, 18, 19], list(range(1, 20))])
@pytest.mark.parametrize("attributes", [False, True])
def test_graphs_without_edges_are_kept_wherever_they_are(tmp_path, without, attributes):
    raw = tmp_path / "T" / "raw"
    raw.mkdir(parents=True)
    edges, indicator, first = [], [], 1
    for i in range(COUNT):
        size = 1 + i % 4 if i in without else 5
        edges += (
            []
            if i in without
            else [f"{first + a}, {first + b}" for j in range(5) for a, b in ((j, (j + 1) % 5), ((j + 1) % 5, j))]
        )
        indicator += [str(i + 1)] * size
        first += size
    files = {"A": edges, "graph_indicator": indicator, "graph_labels": [str(i % 2) for i in range(COUNT)]}
    files["node_labels"] = [str(i % 3) for i in range(len(indicator))]
    if attributes:
        files |= {"edge_labels": ["0"] * len(edges)}
    for name, rows in files.items():
        (raw / f"T_{name}.txt").write_text("".join(f"{row}\n" for row in rows))
    for _ in range(2):  # the second time from what PyG keeps
        data = make(tmp_path, name="T", val_fraction=0.0)
        data.setup()
        graphs = data.part("train").dataset
        assert len(graphs) == COUNT
        assert [len(graphs[i]["graph"].graph.nodes) for i in range(COUNT)] == [
            1 + i % 4 if i in without else 5 for i in range(COUNT)
        ]
        assert [graphs[i]["graph"].graph.edges.shape[1] for i in range(COUNT)] == [
            0 if i in without else 10 for i in range(COUNT)
        ]
        assert graphs.targets.tolist() == [i % 2 for i in range(COUNT)]


def test_node_attributes(tudataset):
    data = make(tudataset, name="RINGS", node_attributes=True, features=5)
    batch = next(iter(data.train_dataloader()))
    assert (batch["graph"].nodes[:, 1] == 1).all()
    assert torch.equal(batch["graph"].nodes[:, 2:].sum(1), torch.ones(len(batch["graph"].nodes)))


@pytest.mark.parametrize("what", ["node", "edge"])
def test_attributes_that_there_are_none_of(tudataset, what):
    if what == "node":
        (tudataset / "RINGS" / "raw" / "RINGS_node_attributes.txt").unlink()
    with pytest.raises(
        DataError, match=rf"RINGS_{what}_attributes.txt, since data.{what}_attributes is true, got none"
    ):
        make(tudataset, name="RINGS", **{f"{what}_attributes": True}).setup()


def test_wrong_number_of_features(tudataset):
    with pytest.raises(DataError, match=r"--model\.modality\.features 3"):
        make(tudataset, name="RINGS", features=7).setup()
    with pytest.raises(DataError, match=r"--model\.modality\.edge_features 0"):
        make(tudataset, name="RINGS", edge_features=4).setup()


def test_the_models_sizes(tudataset):
    data = make(tudataset, name="RINGS", **dict.fromkeys(("features", "edge_features", "patches", "hops", "walk")))
    with pytest.raises(DataError, match=r"data\.features"):
        data.setup()
    modality = SimpleNamespace(features=3, edge_features=0, patches=2, hops=0, walk=9)
    data.trainer = SimpleNamespace(lightning_module=SimpleNamespace(modality=modality), world_size=1, num_devices=1)
    batch = next(iter(data.train_dataloader()))
    assert batch["graph"].walks.shape[1] == 9
    assert batch["graph"].tokens == 2


@pytest.mark.parametrize(("size", "standardize"), [(1000.0, False), (1000.0, True), (2.0, False)])
def test_numbers_that_drown_others_are_noticed(caplog, size, standardize):
    data = make(dataset=[ring(6, x=size * torch.rand(6, 3) + 1) for _ in range(12)], features=3)
    modality = SimpleNamespace(standardize=standardize)
    data.trainer = SimpleNamespace(lightning_module=SimpleNamespace(modality=modality), world_size=1, num_devices=1)
    with caplog.at_level(logging.WARNING):
        data.setup()
    told = [message for message in caplog.messages if "set model.modality.standardize to true" in message]
    assert len(told) == (size > 100 and not standardize)


@pytest.mark.parametrize("name", ["MUTAG", "ZINC"])
def test_nothing_there(tmp_path, offline, name):
    with pytest.raises(DataError, match=rf"files of {name} in .*no network.*data\.root") as caught:
        make(tmp_path / "a" / "typo", name=name).setup()
    assert "\n" not in str(caught.value)
    assert len(offline) == 1
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


def test_no_name(tudataset):
    with pytest.raises(DataError, match=r"data\.name.*found: RINGS"):
        make(tudataset).setup()
    with pytest.raises(DataError, match=r"got '\.\./x'"):
        make(tudataset, name="../x").setup()


def test_broken_files(tudataset):
    (tudataset / "RINGS" / "raw" / "RINGS_graph_indicator.txt").write_text("one\ntwo\n")
    with pytest.raises(DataError, match="cannot be read"):
        make(tudataset, name="RINGS").setup()


def test_no_place_for_what_was_read(tudataset):
    (tudataset / "RINGS" / "processed").write_text("in the way")
    with pytest.raises(DataError, match=r"expected to write into .*processed"):
        make(tudataset, name="RINGS").setup()


def test_zinc(tmp_path, monkeypatch):
    def init(self, root, subset, split):
        self.items = [ring(5, x=torch.tensor([[0], [27], [1], [2], [3]]), y=torch.tensor([1.5]),
                           edge_attr=torch.tensor([1, 2, 3, 1, 2] * 2))] * 8  # fmt: skip
        assert root == str(tmp_path / "ZINC")
        assert subset

    monkeypatch.setattr(ZINC, "__init__", init)
    monkeypatch.setattr(ZINC, "__len__", lambda self: len(self.items))
    monkeypatch.setattr(ZINC, "__getitem__", lambda self, index: self.items[index])
    data = make(tmp_path, name="ZINC", features=28, edge_features=4)
    data.setup()
    assert data.has_test
    batch = next(iter(data.test_dataloader()))
    assert batch["graph"].nodes.sum(1).eq(1).all()
    assert batch["graph"].edge_features.shape[1] == 4
    assert batch["labels"]["label"].tolist() == [1.5] * 4
    assert batch["id"][0] == "ZINC/test[0]"


def test_any_dataset():
    items = [ring(3 + i % 9, y=torch.tensor([i % 2])) for i in range(16)]
    for dataset in (Given(items), Given([(item, i % 2) for i, item in enumerate(items)])):
        data = make(dataset=dataset, val_dataset=dataset)
        (batch, *_) = list(data.val_dataloader())
        assert batch["labels"]["label"].tolist() == [0, 1, 0, 1]
        assert batch["graph"].counts.tolist() == [3, 4, 5, 6]
    with pytest.raises(DataError, match="got Tensor"):
        make(dataset=Given([torch.zeros(3)] * 16)).setup()


def test_broken_graphs_are_replaced():
    items = [ring(5) for _ in range(16)]
    items[3] = ring(5, x=torch.full((5, 3), torch.nan))
    items[5] = Data(x=torch.zeros(0, 3), edge_index=torch.zeros(2, 0).long())
    data = make(dataset=Given(items), val_fraction=0, max_unreadable=0.2)
    assert sum(len(batch["id"]) for batch in data.train_dataloader()) == 16
    assert set(data.unreadable) == {"train[3]", "train[5]"}
    assert "finite" in data.unreadable["train[3]"]
    assert "node" in data.unreadable["train[5]"]


def test_odd_graphs_pass_and_are_counted(caplog):
    x = torch.zeros(4, 0)
    undirected = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])
    graphs = [
        RawGraph(nodes=x, edges=undirected),
        RawGraph(nodes=x, edges=undirected[:, :0]),
        RawGraph(nodes=x[:1], edges=undirected[:, :0]),
        RawGraph(nodes=x, edges=undirected[:, :2]),
        RawGraph(nodes=x, edges=torch.cat([undirected, torch.tensor([[0], [0]])], 1)),
        RawGraph(nodes=x, edges=undirected[:, ::2]),
    ]
    with caplog.at_level(logging.WARNING):
        assert list(report("SET", graphs).values()) == [2, 1, 1, 1]
    assert "SET: 2 of 6 graphs have no edges" in caplog.messages
    data = make(dataset=Given([{"graph": graph} for graph in graphs] * 3), features=0, batch_size=6, val_fraction=0)
    assert not data.labelled
    for batch in data.train_dataloader():
        assert len(batch["graph"]) == 6
        assert batch["graph"].walks.isfinite().all()
    assert not data.unreadable


def test_cuts_are_made_once_and_kept():
    settings = Cutting(features=3, edge_features=0, patches=6, hops=1, walk=4, drop_edges=0.3, partitions=3)
    torch.manual_seed(0)
    graphs = GivenGraphs(Given([ring(30)]), cutting=settings)
    drawn = [random_cut(graphs[0])["graph"] for _ in range(50)]
    assert len({id(cut) for cut in drawn}) == 3
    plain = plain_cut(graphs[0])["graph"]
    assert plain_cut(graphs[0])["graph"] is plain
    assert all(cut is not plain and cut.walks is drawn[0].walks for cut in drawn)
    other = LazyGraph(graphs[0]["graph"].graph, cutting=settings, index=0)
    seen = {len(cut.members) for cut in drawn}
    assert {len(other.drawn().members) for _ in range(50)} == seen  # not by the order in which they are drawn
    assert torch.equal(other.plain().members, plain.members)
    assert torch.equal(pickle.loads(pickle.dumps(graphs))[0]["graph"].plain().members, plain.members)


def test_without_dropped_edges_training_is_as_evaluation():
    graphs = GivenGraphs(Given([ring(30)]), cutting=Cutting(features=3, edge_features=0, patches=6, hops=1, walk=4))
    assert random_cut(graphs[0])["graph"] is plain_cut(graphs[0])["graph"]


def test_generated():
    data = make(features=4, samples=64, batch_size=8)
    batch = next(iter(data.train_dataloader()))
    assert list(batch["labels"]) == ["rule", "family", "clustering", "nodes"]
    assert data.label == "rule"
    assert len(data.classes) == 10
    assert len(next(iter(data.val_dataloader()))["id"]) == 8
    with pytest.raises(DataError, match=r"--model\.modality\.features 4"):
        make(features=7, samples=64).setup()


def test_batches_move_and_travel():
    graphs = GivenGraphs(
        Given([ring(5), ring(9)]), cutting=Cutting(features=3, edge_features=0, patches=6, hops=1, walk=4)
    )
    batch = pickle.loads(pickle.dumps(join_graphs))(
        {"graph": [plain_cut(graphs[i])["graph"] for i in (0, 1)], "id": ["a", "b"]}
    )
    moved = move_data_to_device(batch, torch.device("meta"))
    assert moved["graph"].nodes.device.type == "meta"
    assert moved["graph"].counts.device.type == "meta"
    assert moved["graph"].edge_features is None
    assert batch["graph"].nodes.device.type == "cpu"
    workers = make(dataset=Given([ring(5 + i) for i in range(16)]), num_workers=1)
    assert [len(batch["graph"]) for batch in workers.train_dataloader()] == [4] * 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "MUTAG"}, "name only for files"),
        ({"node_attributes": True}, "node_attributes only for files"),
        ({"drop_edges": 1.0}, "drop_edges"),
        ({"partitions": 0}, "partition"),
        ({"partitions": 5}, "drop_edges above 0"),
        ({"samples": 3}, "samples"),
    ],
)
def test_arguments(settings, message):
    with pytest.raises(DataError, match=message):
        make(**settings)


@pytest.mark.parametrize("name", ["features", "edge_features", "patches", "hops", "walk"])
def test_sizes(name):
    with pytest.raises(DataError, match=f"{name} of at least"):
        make(**{name: -1}).setup()


def test_graph_files_that_do_not_fit_each_other_are_refused(tudataset):
    labels = tudataset / "RINGS" / "raw" / "RINGS_graph_labels.txt"
    labels.write_text("".join(labels.read_text().splitlines(keepends=True)[:3]))
    with pytest.raises(DataError, match="do not fit each other"):
        make(tudataset, name="RINGS").setup()
