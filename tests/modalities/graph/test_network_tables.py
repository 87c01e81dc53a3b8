"""A network from two tables: ids, features, labels, splits, edges in both directions; what is wrong is said."""

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from jepa_lightning.cli.fit import fit
from jepa_lightning.data import DataError
from jepa_lightning.loading import load
from modalities.graph import CsvNetwork, GraphData

NODES = """id,age,kind,weight,split
ann,31,a,1.5,train
bob,25,b,-2,test
eve,40,a,0,train
"7",8,,1e2,val
"""
EDGES = """source,target,years
ann,bob,1
bob,ann,2
bob,eve,3
7,7,4
"""


@pytest.fixture
def write(tmp_path):
    def make(nodes=NODES, edges=EDGES, **settings):
        paths = tmp_path / "nodes.csv", tmp_path / "edges.csv"
        for path, text in zip(paths, (nodes, edges), strict=True):
            path.write_text(text)
        return CsvNetwork(*map(str, paths), **settings)

    return make


def test_a_network(write):
    network = write(label="kind")
    data = network[0]
    assert torch.equal(data.x, torch.tensor([[31, 1.5], [25, -2], [40, 0], [8, 100]]))
    assert data.y.tolist() == [0, 1, 0, -1]
    assert network.classes == ["a", "b"]
    masks = {split: data[f"{split}_mask"].nonzero().flatten().tolist() for split in ("train", "val", "test")}
    assert masks == {"train": [0, 2], "val": [3], "test": [1]}
    edges = {(a, b): float(y) for (a, b), y in zip(data.edge_index.T.tolist(), data.edge_attr, strict=True)}
    assert edges == {(0, 1): 1, (1, 0): 2, (1, 2): 3, (2, 1): 3, (3, 3): 4}
    with pytest.raises(IndexError):
        network[1]


def test_one_direction_as_listed(write):
    data = write(label="kind", directed=True)[0]
    assert data.edge_index.T.tolist() == [[0, 1], [1, 0], [1, 2], [3, 3]]
    assert data.edge_attr.flatten().tolist() == [1, 2, 3, 4]


def test_no_labels_splits_or_features(write):
    data = write("node\na\nb\n", "from,to\na,b\n")[0]
    assert (data.x, data.y, data.num_nodes) == (None, None, 2)
    assert "train_mask" not in data
    assert data.edge_index.T.tolist() == [[0, 1], [1, 0]]


def test_chosen_features_and_numbers_as_labels(write):
    network = write(label="age", features=["weight"])
    assert network[0].x.flatten().tolist() == [1.5, -2, 0, 100]
    assert write(label="weight", features=[])[0].y.dtype == torch.float32


def test_its_nodes_are_samples(write):
    cut = {"features": 2, "edge_features": 1, "patches": 1, "hops": 0, "walk": 2, "batch_size": 2, "num_workers": 0}
    data = GraphData(dataset=write(label="kind"), radius=1, **cut)
    data.setup()
    samples = data._parts.samples
    assert {split: len(samples[split]) for split in samples} == {"train": 4, "val": 1, "test": 1, "probe": 2}
    assert samples["train"][3]["id"] == "node[3]"
    assert np.array_equal(samples["train"].dataset.targets, [0, -1, 0, -1])
    assert samples["train"].dataset.classes == ["a", "b"]


def test_a_folder_of_tables(write, tmp_path):
    cut = {"features": 2, "edge_features": 0, "patches": 1, "hops": 0, "walk": 2, "batch_size": 2, "num_workers": 0}
    write("id,x,y\na,1,2\nb,3,4\nc,5,6\n", "from,to\na,b\nb,c\n")
    data = GraphData(root=str(tmp_path), radius=1, val_fraction=0.0, **cut)
    data.setup()
    assert [len(data._parts.samples["train"].dataset[node]["graph"].nodes) for node in range(3)] == [2, 3, 2]
    with pytest.raises(DataError, match=r"expected data\.radius with the network .*nodes\.csv"):
        GraphData(root=str(tmp_path), **cut).setup()


def test_an_edge_that_is_listed_once_keeps_its_features_both_ways(write):
    edges = "source,target,years\nann,bob,1\nbob,bob,2\neve,bob,3\nann,bob,9\n"
    data = write(NODES, edges, label="kind")[0]
    assert data.edge_index.T.tolist() == [[0, 1], [1, 1], [2, 1], [1, 0], [1, 2]]
    assert data.edge_attr.flatten().tolist() == [1, 2, 3, 1, 3]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"nodes": "name,age\na,1\n"}, r"nodes\.csv a first line of column names with one of id, node, got name, age"),
        (
            {"label": "kind", "edges": "a,b\nann,bob\n"},
            r"edges\.csv a first line of column names with one of source, from",
        ),
        (
            {"label": "kind", "edges": "source,b\nann,bob\n"},
            r"edges\.csv a first line of column names with one of target, to",
        ),
        (
            {"label": "kind", "edges": "source,target\nann,tom\n"},
            r"expected ids of .*nodes\.csv in .*edges\.csv, got tom in line 2",
        ),
        ({"label": "kind", "edges": "source,target\nann,\n"}, r"line 2"),
        ({"nodes": "id,x\na,1\na,2\n"}, "got a twice"),
        ({"nodes": "id,x\na,1\nb,q\n"}, r"finite number in line 3, column x, of .*nodes\.csv, got 'q'"),
        ({"nodes": "id,x\na,1\nb,inf\n"}, r"finite number in line 3, column x"),
        ({"nodes": "id,x\na,1\nb,\n"}, r"finite number in line 3, column x"),
        ({}, "finite number in line 2, column kind"),
        ({"label": "kinds"}, "the label column 'kinds'.*did you mean kind"),
        ({"label": "kind", "features": ["agee"]}, "the column 'agee'.*did you mean age"),
        ({"nodes": NODES.replace("test", "exam"), "label": "kind"}, "expected train, val or test in line 3"),
    ],
)
def test_what_is_wrong_is_said(write, settings, words):
    with pytest.raises(DataError, match=words):
        write(**settings)


SHORT = """--model.modality.features 3 --model.modality.encoder.width 32 --data.batch_size 16 --trainer.max_steps 4
--trainer.val_check_interval 2 --trainer.accelerator cpu --trainer.enable_progress_bar false --pictures.enabled false"""


def test_units_do_not_matter(tmp_path):
    """`own_network.yaml` on ages and incomes, then on days and cents: the vectors of a node are the same."""
    rng = np.random.default_rng(0)
    people, pairs = rng.normal([40, 30_000], [12, 9_000], (60, 2)), rng.integers(60, size=(150, 2))
    member = rng.integers(2, size=60)
    vectors = []
    for run, (units, start) in {"first": ((1, 1), (0, 0)), "second": ((365.25, 100), (-20, 1e5))}.items():
        root = tmp_path / run
        root.mkdir()
        numbers = people * units + start
        rows = [f"{i},{a!r},{b!r},{m}" for i, ((a, b), m) in enumerate(zip(numbers.tolist(), member, strict=True))]
        (root / "nodes.csv").write_text("\n".join(["id,age,income,member", *rows]))
        (root / "edges.csv").write_text("\n".join(["source,target", *(f"{a},{b}" for a, b in pairs)]))
        where = ["--data.root", str(root), "--trainer.default_root_dir", str(root / "run")]
        fit(["--config", "own_network.yaml", *where, *SHORT.split()])
        x = torch.tensor(np.column_stack([numbers, member]), dtype=torch.float32)
        given = Data(x=x, edge_index=torch.tensor(np.concatenate([pairs, pairs[:, ::-1]])).T)
        vectors.append(load(root / "run")([(given, node) for node in range(60)]))
    assert vectors[0].std(0).min() > 0.01
    torch.testing.assert_close(vectors[0], vectors[1], atol=1e-2, rtol=1e-2)
