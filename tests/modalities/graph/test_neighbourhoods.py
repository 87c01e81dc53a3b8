"""Nodes of one network as samples: what is around each, by plain loops; masks, labels, views that keep the node."""

import json
import os
import pickle
from collections import defaultdict, deque

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch_geometric.data import Data

from jepa_lightning import JEPA
from jepa_lightning.cli.fit import fit
from jepa_lightning.cli.probe import probe
from jepa_lightning.data import DataError
from jepa_lightning.data.inputs import batch_of
from jepa_lightning.loading import load
from modalities.graph import Graph, GraphData, GraphViews
from modalities.graph.embedding import firsts
from modalities.graph.graphs import RawGraph
from modalities.graph.neighbourhoods import Network
from modalities.graph.transforms import Cutting

CUT = {"features": 3, "edge_features": 0, "patches": 1, "hops": 0, "walk": 4}


def network(nodes=40, edges=70, *, seed=0, **extra):
    """A random directed graph with repeated edges, self-loops and isolated nodes; edges know their number."""
    generator = torch.Generator().manual_seed(seed)
    ends = torch.randint(nodes - 3, (2, edges), generator=generator)
    ends[:, 5] = ends[:, 4]
    ends[1, 6] = ends[0, 6]
    x = torch.randn(nodes, 3, generator=generator)
    return Data(x=x, edge_index=ends, edge_attr=torch.arange(float(edges))[:, None], **extra)


def masked(**extra):
    number = torch.arange(40)
    masks = {f"{split}_mask": number % 4 == k for k, split in enumerate(("train", "val", "test"))}
    return network(**{"y": number % 3, **masks, **extra})


def distances(data, start):
    """Edges from a node to every other that can be reached, in either direction, by plain search."""
    found, queue = {start: 0}, deque([start])
    while queue:
        node = queue.popleft()
        for a, b in data.edge_index.T.tolist():
            for here, there in ((a, b), (b, a)):
                if here == node and there not in found:
                    found[there] = found[node] + 1
                    queue.append(there)
    return found


def make(*graphs, **settings):
    return GraphData(**{**CUT, "dataset": list(graphs), "radius": 2, "batch_size": 4, "num_workers": 0, **settings})


def opened(data):
    data.setup()
    return data._parts.samples


def around(data, node, *, radius, **settings):
    given = {**CUT, "edge_features": 1, **settings}
    neighbours = given.pop("neighbours", None)
    graph = RawGraph(nodes=data.x, edges=data.edge_index, edge_features=data.edge_attr)
    return Network(graph, None, radius=radius, neighbours=neighbours, cutting=Cutting(**given)).around(node)


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_what_is_around_a_node(radius):
    data = network()
    for node in range(40):
        found = around(data, node, radius=radius)
        patched = found.plain()
        wanted = {other for other, far in distances(data, node).items() if far <= radius}
        nodes = found.nodes.tolist()
        assert nodes[0] == node
        assert set(nodes) == wanted
        assert len(nodes) == len(wanted)
        assert torch.equal(patched.nodes, data.x[nodes])
        inside = [number for number, (a, b) in enumerate(data.edge_index.T.tolist()) if a in wanted and b in wanted]
        assert patched.edge_features.flatten().tolist() == inside
        ends = found.nodes[patched.members[patched.edges]]
        assert torch.equal(ends, data.edge_index[:, inside])
        assert patched.rooted
        assert patched.members[0] == 0


def test_some_neighbours_are_the_same_ones_each_time():
    data = network(edges=400)
    for node in range(10):
        few = around(data, node, radius=2, neighbours=3)
        assert torch.equal(few.nodes, around(data, node, radius=2, neighbours=3).nodes)
        far = distances(data, node)
        assert len(few.nodes) <= 1 + 3 + 9
        assert all(far[other] <= 2 for other in few.nodes.tolist())
        assert sum(far[other] == 1 for other in few.nodes.tolist()) >= min(3, sum(d == 1 for d in far.values()))
    several = {tuple(around(data, 0, radius=1, neighbours=3, seed=seed).nodes.tolist()) for seed in range(5)}
    assert len(several) > 1


def test_enough_neighbours_are_all():
    data = network()
    for node in range(40):
        few, all_ = around(data, node, radius=2, neighbours=100), around(data, node, radius=2)
        assert torch.equal(few.nodes, all_.nodes)


def test_masks_divide_the_nodes_and_hide_labels():
    samples = opened(make(masked()))
    assert {split: len(samples[split]) for split in samples} == {"train": 40, "val": 10, "test": 10, "probe": 10}
    number = np.arange(40)
    assert np.array_equal(samples["train"].dataset.targets, np.where(number % 4 == 0, number % 3, -1))
    assert [int(samples["train"][i]["labels"]["label"]) for i in range(8)] == [0, -1, -1, -1, 1, -1, -1, -1]
    assert [int(samples["val"][i]["labels"]["label"]) for i in range(3)] == [1, 2, 0]
    assert samples["test"][1]["id"] == "list[6]"
    assert sorted(samples["probe"].indices) == list(range(0, 40, 4))


def test_labels_of_other_masks_are_never_told():
    samples = opened(make(masked(train_mask=None)))
    number = np.arange(40)
    assert np.array_equal(samples["train"].dataset.targets, np.where(np.isin(number % 4, (1, 2)), -1, number % 3))
    assert (len(samples["val"]), len(samples["test"]), len(samples["probe"])) == (10, 10, 20)


def test_the_first_of_several_divisions(caplog):
    masks = {
        f"{s}_mask": torch.stack([torch.arange(40) % 4 == k, torch.zeros(40) > 0], 1)
        for k, s in enumerate(("train", "val"))
    }
    with caplog.at_level("INFO"):
        samples = opened(make(network(y=torch.arange(40) % 3, **masks)))
    assert len(samples["val"]) == 10
    assert "of the 2 divisions of train_mask the first is taken" in caplog.text


def test_without_masks_some_nodes_are_held_out():
    samples = opened(make(network(y=torch.arange(40)[:, None] % 3), val_fraction=0.25))
    assert (len(samples["train"]), len(samples["val"])) == (30, 10)
    assert "test" not in samples


def test_several_networks_with_numbers_and_sets_of_their_own():
    y = torch.rand(40, 2)
    data = make(network(y=y), network(seed=1, y=y), val_dataset=[network(seed=2, y=y)])
    samples = opened(data)
    assert (len(samples["train"]), len(samples["val"])) == (80, 40)
    assert samples["train"][41]["id"] == "list[1][1]"
    batch = next(iter(data.val_dataloader()))
    assert torch.equal(batch["labels"]["label"], y[:4])


def test_unknown_numbers_are_nan():
    y = torch.rand(40, 2)
    samples = opened(make(masked(y=y)))
    assert samples["train"][1]["labels"]["label"].isnan().all()
    assert torch.equal(samples["train"][4]["labels"]["label"], y[4])


@pytest.mark.parametrize(
    ("data", "settings", "words"),
    [
        (network(y=torch.tensor([1])), {}, "y to have one class, or float numbers, for each of the 40 nodes"),
        (network(y=torch.zeros(39, dtype=torch.int64)), {}, "for each of the 40 nodes"),
        (network(y=torch.zeros(40, 2, dtype=torch.int64)), {}, "for each of the 40 nodes"),
        (network(train_mask=torch.ones(39) > 0), {}, "train_mask of the 40 nodes"),
        (network(), {"radius": 0}, "radius of at least 1"),
        (network(), {"neighbours": 0}, "neighbours of at least 1"),
        (network(), {"features": 5}, "expected 5 node features"),
    ],
)
def test_what_does_not_fit_is_said(data, settings, words):
    with pytest.raises(DataError, match=words):
        opened(make(data, **settings))


def test_broken_networks_are_said():
    broken = network()
    broken.edge_index = broken.edge_index + 30
    with pytest.raises(DataError, match="cannot read graph 1 of list, whose nodes are samples: expected edges between"):
        opened(make(network(), broken))
    with pytest.raises(
        DataError, match="same masks of all graphs of list, got train_mask, val_mask, test_mask of one and none"
    ):
        opened(make(masked(), network()))
    with pytest.raises(DataError, match="at least one graph"):
        opened(make())


def test_settings_that_do_not_go_together():
    with pytest.raises(DataError, match="expected with radius a network"):
        opened(GraphData(**CUT, radius=2))
    with pytest.raises(DataError, match="neighbours only with radius"):
        GraphData(**CUT, neighbours=2)
    with pytest.raises(ValueError, match="expected patches 1, got 4"):
        Graph(features=3, patches=4, readout="root")


def test_views_keep_the_node():
    data = network(edges=200)
    transform = GraphViews(drop_edges=0.3, drop_features=0.0, drop_nodes=0.6, subgraph=0.3)
    torch.manual_seed(0)
    sizes = set()
    for node in range(20):
        view = transform({"graph": around(data, node, radius=2)})["graph"]
        assert torch.equal(view.nodes[0], data.x[node])
        assert view.members[0] == 0
        assert view.rooted
        sizes.add(len(view.nodes))
    assert len(sizes) > 3


def test_firsts_of_groups():
    values, group = torch.randn(7, 2), torch.tensor([0, 0, 2, 2, 2, 3, 5])
    found = firsts(values, group, 7)
    wanted = torch.zeros(7, 2)
    for row in reversed(range(7)):
        wanted[group[row]] = values[row]
    assert torch.equal(found, wanted)
    assert torch.equal(firsts(values[:0], group[:0], 2), torch.zeros(2, 2))


def model(**settings):
    torch.manual_seed(0)
    return JEPA(Graph(**{"features": 3, "patches": 1, "hops": 0, "walk": 4, "readout": "root", **settings})).eval()


def test_the_root_alone_is_read():
    """Two layers carry what is two edges away to the node; what is farther changes nothing."""
    data = network(nodes=6, edges=10)
    line = torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]])
    data.edge_index, data.edge_attr = torch.cat([line, line.flip(0)], 1), None
    small = model()

    def features(x, **settings):
        given = make(Data(x=x, edge_index=data.edge_index), val_fraction=0.0, **settings)
        given.setup()
        batch = given.batch_transform()({"graph": [given._parts.samples["probe"][0]["graph"]]})
        return small.evaluated_encoder(small.tokenizer(batch))[0, 0]

    far, near = data.x.clone(), data.x.clone()
    far[3], near[2] = 9.0, 9.0
    before = features(data.x, radius=4)
    assert torch.allclose(features(far, radius=4), before)
    assert not torch.allclose(features(near, radius=4), before)


def test_a_neighbourhood_tells_what_the_whole_network_does():
    """A node's vector after two layers, from what is two edges away, is that of one pass over the whole network."""
    data, small = network(edges=90, seed=5), model(node_walks=False)
    given = make(data, val_fraction=0.0)
    given.setup()
    around = [given._parts.samples["probe"][node]["graph"] for node in range(40)]
    gnn = small.evaluated_encoder.embed
    x = gnn.first(data.x)
    for conv, norm in zip(gnn.convs, gnn.norms, strict=True):
        x = x + torch.relu(norm(conv(x, data.edge_index)))
    assert torch.allclose(gnn(small.tokenizer({"graph": around}).values)[:, 0], x, atol=1e-5)


def test_a_node_of_a_network_as_an_input():
    """What `jepa_lightning.load(run)((network, node))` encodes is what the loader of all nodes gives."""
    data, settings = network(seed=3), {"neighbours": 2, "seed": 4}
    nodes = make(data, val_fraction=0.0, **settings)
    nodes.setup()
    given = make(data, **settings)
    samples = nodes._parts.samples["train"].dataset
    for node in (0, 7, 39):
        patched = batch_of(given, [(data, node)])["graph"]
        wanted = samples[node]["graph"].plain()
        for name in ("nodes", "walks", "members", "edges"):
            assert torch.equal(getattr(patched, name), getattr(wanted, name))
    assert len(batch_of(given, [(data, 1), (data, 2)])["graph"]) == 2
    with pytest.raises(DataError, match=r"expected a tuple \(network, node\)"):
        batch_of(given, [data])
    with pytest.raises(DataError, match="number of a node, 0 to 39, got 40"):
        batch_of(given, [(data, 40)])


SHORT = """--data.root null --data.name null
--data.dataset torch_geometric.datasets.FakeDataset --data.dataset.task node
--data.dataset.num_graphs 1 --data.dataset.avg_num_nodes 120 --data.dataset.num_channels 8 --data.batch_size 32
--model.modality.features 8 --model.modality.encoder.width 32 --model.pretext.projector [32] --trainer.max_steps 4
--trainer.val_check_interval 2 --trainer.accelerator cpu --trainer.enable_progress_bar false --pictures.enabled false"""


def test_a_network_of_pyg_trains(tmp_path):
    """The recipe, on one of PyG's datasets that needs no download; then judged, under `--trust`."""
    fit(["--config", "recipes/vicreg_cora.yaml", "--trainer.default_root_dir", str(tmp_path / "run"), *SHORT.split()])
    probe([str(tmp_path / "run"), "--probes", "knn", "--trust", "torch_geometric"])
    assert json.loads((tmp_path / "run" / "probe" / "report.json").read_text())["scores"]
    data, encoder = network(), load(tmp_path / "run", trust=["torch_geometric"])
    data.x = torch.randn(40, 8)
    vectors = encoder([(data, 3), (data, 4)])
    assert vectors.shape == (2, 32)
    assert torch.allclose(encoder((data, 4)), vectors[1], atol=1e-5)


def planetoid(folder, *, code=None):
    """Files as Planetoid's, of Python 2's protocol: a ring of 512 nodes, 3 train, 500 val, 4 test, 2 classes."""
    raw = folder / "Cora" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    classes = np.eye(2, dtype=np.int32)[np.arange(512) % 2]
    words = csr_matrix((rng.random((512, 5)) < 0.5).astype(np.float32))
    edges = {node: [(node + 1) % 512, (node - 1) % 512, node] for node in range(512)}
    parts = {"x": words[:3], "tx": words[508:], "allx": words[:508]}
    parts |= {"y": classes[:3], "ty": classes[508:], "ally": classes[:508], "graph": defaultdict(list, edges)}
    for name, value in parts.items():
        (raw / f"ind.cora.{name}").write_bytes(pickle.dumps(value if code is None else code, protocol=2))
    (raw / "ind.cora.test.index").write_text("509\n508\n511\n510\n")  # where the rows of tx belong
    return torch.from_numpy(words.toarray())


def test_networks_in_planetoids_files(tmp_path):
    words = planetoid(tmp_path)
    settings = {**CUT, "features": 5, "batch_size": 4, "num_workers": 0}
    samples = opened(GraphData(root=str(tmp_path), name="cora", radius=1, **settings))
    assert samples["train"][0]["id"] == "Cora[0]"
    assert torch.equal(samples["train"][2]["graph"].nodes, words[[2, 1, 3]])
    assert torch.equal(samples["train"][509]["graph"].nodes[0], words[508])
    assert {split: len(samples[split]) for split in samples} == {"train": 512, "val": 500, "test": 4, "probe": 3}
    with pytest.raises(DataError, match=r"expected data\.radius with the network Cora"):
        opened(GraphData(root=str(tmp_path), name="Cora", **settings))


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_planetoids_files_are_data(tmp_path):
    planetoid(tmp_path, code=Bomb(tmp_path / "made"))
    with pytest.raises(DataError, match=r"expected arrays and plain values in ind.cora.x, got more") as caught:
        opened(GraphData(root=str(tmp_path), name="Cora", radius=1, **CUT))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "made").exists()
