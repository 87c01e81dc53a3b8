"""Graphs for training: PyG's TUDataset and ZINC, the nodes of a network, any dataset of graphs, or generated ones."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset, IterableDataset

from jepa_lightning.data import DataError, Sample, SourcedDataModule
from jepa_lightning.data.shared import SourceSettings, Unpack
from jepa_lightning.modality import Batch
from modalities.graph.files import NETWORKS, GivenGraphs, open_graphs, targets_in_memory
from modalities.graph.generated import TYPES, GeneratedGraphs
from modalities.graph.graphs import RawGraph
from modalities.graph.neighbourhoods import one_around
from modalities.graph.networks import open_networks
from modalities.graph.tables import CsvNetwork
from modalities.graph.transforms import Cutting, GraphViews, join_graphs, plain_cut, random_cut

_log = logging.getLogger(__name__)
_LARGE = 30.0  # of nodes' numbers, as of pixels after normalisation


class GraphData(SourcedDataModule):
    """Batches of graphs cut into patches: `graph` (a `GraphBatch`), `labels`, `id`.

    `root` is a folder with PyG's layout of the data set `name`: `root/MUTAG/raw/MUTAG_A.txt` and so on. Files in place
    are used as they are; where there are none, PyG downloads them. It keeps what it read in `root/MUTAG/processed`. Or
    with `radius`, and without a name, `root` has the tables nodes.csv and edges.csv of one network (`CsvNetwork`). A
    `dataset` gives PyG's `Data` (any of PyG's datasets does), whose `y` is the label, or (Data, label).

    Every graph is cut when it is first needed, and kept in memory. Broken graphs (features that are not finite, edges
    that name no node, no nodes) are unreadable samples: counted, named, and replaced. Of files, the numbers of graphs
    without edges, with isolated nodes, self-loops or directed edges are logged.

    Args:
        name: of the TUDataset (MUTAG, PROTEINS, IMDB-BINARY, ...), which has no splits; or ZINC (12,000 graphs) or
            ZINC_full, which have; or, with radius, one of the networks Cora, CiteSeer and PubMed.
        node_attributes: of a TUDataset, also take the nodes' continuous attributes, before their types.
        edge_attributes: likewise of the edges.
        features: F, numbers of a node. None: the model's.
        edge_features: G, numbers of an edge. None: the model's.
        patches: largest number of patches of a graph. None: the model's.
        hops: how many edges patches reach beyond their part. None: the model's.
        walk: number of random-walk features. None: the model's.
        drop_edges: in training, share of the edges that are dropped at random before a graph is cut, 0 to below 1.
        partitions: number of such cuts that are made of each training graph; a random one is taken each time.
        radius: of a network (one graph, most often), or a `dataset` of them: the samples are its nodes, each with all
            that is at most so many edges away (an ego network). Masks of PyG's `Data` divide them (`open_networks`).
        neighbours: with radius: how many neighbours of a node are followed, at most, in going one edge further; they
            are drawn once (GraphSAGE: Hamilton et al. 2017). None: all.
        samples: number of generated training graphs (an eighth as many for validation).
        **shared: root, dataset, val_dataset and test_dataset (`SourcedDataModule`); batch_size, num_workers, seed and
            so on (`JEPADataModule`).

    Raises:
        DataError: arguments that do not fit each other or the data.

    Examples:
        >>> from modalities.graph import GraphData
        >>> cut = {"features": 4, "edge_features": 0, "patches": 4, "hops": 1, "walk": 8}
        >>> data = GraphData(**cut, samples=64, batch_size=16, num_workers=0)
        >>> batch = next(iter(data.train_dataloader()))
        >>> len(batch["graph"]), sorted(batch["labels"])
        (16, ['clustering', 'family', 'nodes', 'rule'])
    """

    name = "graph"

    def __init__(
        self,
        *,
        name: str | None = None,
        node_attributes: bool = False,
        edge_attributes: bool = False,
        features: int | None = None,
        edge_features: int | None = None,
        patches: int | None = None,
        hops: int | None = None,
        walk: int | None = None,
        drop_edges: float = 0.0,
        partitions: int = 1,
        radius: int | None = None,
        neighbours: int | None = None,
        samples: int = 4000,
        **shared: Unpack[SourceSettings],
    ) -> None:
        super().__init__(samples=samples, **shared)
        self.only_for_files(name=name, node_attributes=node_attributes or None, edge_attributes=edge_attributes or None)
        if not 0 <= drop_edges < 1:
            raise DataError(f"expected drop_edges from 0 to below 1, got {drop_edges:g}")
        if partitions < 1:
            raise DataError(f"expected at least 1 partition of a graph, got {partitions}")
        if partitions > 1 and not drop_edges:
            raise DataError(f"expected drop_edges above 0 with {partitions} partitions: without, all would be the same")
        self.set_name = name
        self.node_attributes = node_attributes
        self.edge_attributes = edge_attributes
        self.features = features
        self.edge_features = edge_features
        self.patches = patches
        self.hops = hops
        self.walk = walk
        self.drop_edges = drop_edges
        self.partitions = partitions
        self.radius = radius
        self.neighbours = neighbours
        if neighbours is not None and radius is None:
            raise DataError("expected neighbours only with radius, got it without: set radius, or leave it out")

    @property
    def cutting(self) -> Cutting:
        """How graphs are cut."""
        least = {"features": 0, "edge_features": 0, "patches": 1, "hops": 0, "walk": 1}
        sizes = {name: int(self.or_model(name, getattr(self, name))) for name in least}
        for name, value in sizes.items():
            if value < least[name]:
                raise DataError(f"expected {name} of at least {least[name]}, got {value}")
        return Cutting(**sizes, drop_edges=self.drop_edges, partitions=self.partitions, seed=self.seed)

    def load(self) -> dict[str, Dataset[Any]]:
        """Load as the base class does; the masks of a network give the parts that no dataset is given for."""
        if self.dataset is None or self.radius is None:
            return super().load()
        self.in_memory = True
        parts = self._nodes_of(self.dataset)
        for split, dataset in (("val", self.val_dataset), ("test", self.test_dataset)):
            if dataset is not None:
                parts[split] = self._nodes_of(dataset)["train"]
        return parts

    def wrap(self, dataset: Dataset[Any]) -> Dataset[Any]:
        """Wrap anyone's dataset of graphs."""
        self.in_memory = True  # once read
        return GivenGraphs(dataset, cutting=self.cutting, targets=targets_in_memory(dataset))

    def as_item(self, value: Any) -> Any:
        """As the base class; with `radius`, of a tuple (network, node) what is around the node.

        Raises:
            DataError: a path, for a graph lies in no file of its own; with radius, no such tuple.
        """
        if isinstance(value, str | PathLike):
            raise DataError(f"expected a graph as torch_geometric.data.Data, got the path {value}")
        if self.radius is None or isinstance(value, dict):
            return super().as_item(value)
        if not isinstance(value, tuple) or len(value) != 2:
            raise DataError(
                "expected a tuple (network, node), as data.radius makes nodes the samples, got "
                f"{type(value).__name__}: give a torch_geometric.data.Data and the number of a node of it"
            )
        around = one_around(*value, radius=self.radius, neighbours=self.neighbours, cutting=self.cutting)
        return {"graph": around}

    def _nodes_of(self, dataset: Dataset[Any]) -> dict[str, Dataset[Any]]:
        """Open the networks of a dataset: their nodes, by split."""
        if isinstance(dataset, IterableDataset) or self.radius is None:
            raise DataError(
                f"expected with data.radius a dataset with a length, got the stream {type(dataset).__name__}: leave "
                "radius out, or give the networks as a dataset"
            )
        return open_networks(dataset, radius=self.radius, neighbours=self.neighbours, cutting=self.cutting)

    def load_files(self) -> dict[str, Dataset[Any]]:
        """Load PyG's TUDataset, ZINC or Planetoid, or two tables, by split."""
        nodes = Path(str(self.root)).expanduser() / "nodes.csv"
        network = str(nodes) if self.set_name is None and nodes.is_file() else NETWORKS.get(str(self.set_name).lower())
        if network is not None and self.radius is None:
            raise DataError(
                f"expected data.radius with the network {network}, whose nodes are the samples, got none: set it, to 2 "
                "say"
            )
        if network == str(nodes):
            self.in_memory = True
            return self._nodes_of(CsvNetwork(network, str(nodes.with_name("edges.csv"))))
        self.in_memory = True
        found = open_graphs(
            str(self.root),
            self.set_name,
            node_attributes=self.node_attributes,
            edge_attributes=self.edge_attributes,
        )
        if self.radius is not None:
            return self._nodes_of(found["train"])
        sets: dict[str, Dataset[Any]] = {}
        for split, dataset in found.items():
            name = f"{self.set_name}/{split}" if len(found) > 1 else str(self.set_name)
            graphs = GivenGraphs(dataset, cutting=self.cutting, name=name, targets=targets_in_memory(dataset))
            report(name, _readable(graphs))
            sets[split] = graphs
        return sets

    def generate(self) -> dict[str, Dataset[Any]]:
        """Generate graph families; see `GeneratedGraphs`."""
        if self.radius is not None:
            raise DataError(
                "expected with radius a network whose nodes are the samples, got none: set data.root and data.name "
                "(Cora, CiteSeer, PubMed) or data.dataset, or leave radius out"
            )
        cutting = self.cutting
        if cutting.features not in (0, TYPES) or cutting.edge_features:
            raise DataError(
                f"expected {TYPES} (or 0) features and 0 edge_features of the generated graphs, got {cutting.features} "
                f"and {cutting.edge_features}: set --model.modality.features {TYPES} --model.modality.edge_features 0"
            )
        counts = {"train": self.samples, "val": self.samples // 8}
        return {
            split: GivenGraphs(GeneratedGraphs(count, seed=self.seed, split=split), cutting=cutting)
            for split, count in counts.items()
        }

    def transforms(self) -> tuple[Callable[[Sample], Sample], Callable[[Sample], Sample]]:
        """Cut at random for training; with all edges for evaluation."""
        return random_cut, plain_cut

    def default_views(self) -> GraphViews:
        """Leave out some of the edges and features."""
        return GraphViews()

    def batch_transform(self) -> Callable[[Batch], Batch]:
        """Join the graphs of a batch to one `GraphBatch`."""
        if self._parts is not None and getattr(self.modality, "standardize", None) is False:
            nodes = self._parts.example["graph"].nodes
            if nodes.numel() and (largest := float(nodes.abs().max())) > _LARGE:
                _log.warning(
                    "the first graph's nodes have numbers up to %.3g, which drown smaller ones: set "
                    "model.modality.standardize to true",
                    largest,
                )
        return join_graphs


def report(name: str, graphs: Iterable[RawGraph]) -> dict[str, int]:
    """Count, and log where there are any, the graphs that one might not expect.

    Args:
        name: of the set, for the log.
        graphs: of it.

    Returns:
        Numbers of graphs by what is odd: no edges, isolated nodes, self-loops, directed edges.
    """
    kinds = (
        "no edges",
        "isolated nodes, whose random-walk features are zeros",
        "self-loops",
        "directed edges: patches are cut as if they had none, walks follow them",
    )
    odd = dict.fromkeys(kinds, 0)
    total = 0
    for graph in graphs:
        total += 1
        source, target = graph.edges.numpy()
        nodes = len(graph.nodes)
        loops = source == target
        there = np.unique(source * nodes + target)
        back = np.unique(target * nodes + source)
        single = np.setdiff1d(np.arange(nodes), np.concatenate([source, target])).size > 0
        flags = (not len(source), len(source) > 0 and single, loops.any(), not np.array_equal(there, back))
        for kind, flag in zip(kinds, flags, strict=True):
            odd[kind] += bool(flag)
    for kind, count in odd.items():
        if count:
            _log.warning("%s: %d of %d graphs have %s", name, count, total, kind)
    return odd


def _readable(graphs: GivenGraphs) -> Iterable[RawGraph]:
    for index in range(len(graphs)):
        try:
            graph = graphs[index]["graph"].graph
        except DataError:
            raise  # all graphs have other features than wanted
        except ValueError:
            continue  # counted as unreadable when it is needed
        yield graph
