"""What is around a node of a network: the nodes and edges that are near."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jepa_lightning.data import DataError
from modalities.graph.graphs import PatchedGraph, RawGraph
from modalities.graph.patching import linked
from modalities.graph.reading import to_graph
from modalities.graph.requirements import sparse
from modalities.graph.transforms import Cutting, LazyGraph

_KEPT = 50_000  # nodes up to which what is around each is looked up once, and kept


class Neighbourhood(LazyGraph):
    """What is around one node of a network, whose features it looks up when it is cut; the node itself is number 0.

    Args:
        network: all of it.
        nodes: (n,) int64 numbers of the nodes around, the one that it is about first.
        listed: (E,) int64 numbers of the edges between them.
        cutting: how it is cut.
        index: of the node.
    """

    def __init__(self, network: RawGraph, nodes: Tensor, listed: Tensor, *, cutting: Cutting, index: int) -> None:
        order = nodes.argsort()
        edges = order[torch.searchsorted(nodes[order], network.edges[:, listed])]
        features = None if network.edge_features is None else network.edge_features[listed]
        bare = RawGraph(nodes=torch.zeros(len(nodes), 0), edges=edges, edge_features=features)
        super().__init__(bare, cutting=cutting, index=index)
        self._network = network
        self.nodes = nodes

    def numbered(self, number: int) -> PatchedGraph:
        """As the base class, with the nodes' features."""
        return replace(super().numbered(number), nodes=self._network.nodes[self.nodes], rooted=True)


class Network:
    """One graph whose nodes are samples; see `Neighbourhoods`.

    Args:
        graph: all of it.
        labels: (N, ...) of the nodes, where they have any.
        radius: edges from a node to the farthest that is around it, in either direction.
        neighbours: how many neighbours of a node are followed, at most, in going one edge further; None: all.
        cutting: how what is around a node is cut.
    """

    def __init__(
        self, graph: RawGraph, labels: Tensor | None, *, radius: int, neighbours: int | None, cutting: Cutting
    ) -> None:
        self.graph = graph
        self.labels = labels
        self.radius = radius
        self.neighbours = neighbours
        self.cutting = cutting
        count = len(graph.nodes)
        self._near = linked(graph.edges.numpy(), count)
        source = graph.edges[0].numpy()
        ones = np.ones(len(source), dtype=np.int8)
        self._from = sparse.coo_array((ones, (source, np.arange(len(source)))), shape=(count, max(len(source), 1)))
        self._from = self._from.tocsr()
        self._kept: dict[int, Neighbourhood] = {}

    def around(self, node: int) -> Neighbourhood:
        """Find what is around a node: always the same, also where only some of the neighbours are followed."""
        if node in self._kept:
            return self._kept[node]
        nodes = self._reached(node)
        inside = np.sort(nodes)
        listed = np.sort(_rows(self._from, inside))
        target = self.graph.edges[1].numpy()[listed]
        place = np.searchsorted(inside, target).clip(max=len(inside) - 1)
        found = Neighbourhood(
            self.graph,
            torch.from_numpy(nodes),
            torch.from_numpy(listed[inside[place] == target]),
            cutting=self.cutting,
            index=node,
        )
        if len(self.graph.nodes) <= _KEPT:
            self._kept[node] = found
        return found

    def _reached(self, node: int) -> NDArray[np.int64]:
        """Number the nodes around one, itself first, then by distance and number."""
        rng = np.random.default_rng([self.cutting.seed, node])
        reached = border = np.array([node], dtype=np.int64)
        for _ in range(self.radius):
            if self.neighbours is None:
                near = _rows(self._near, border)
            else:
                each = [_rows(self._near, border[place : place + 1]) for place in range(len(border))]
                near = np.concatenate([border[:0], *(rng.permutation(one)[: self.neighbours] for one in each)])
            border = np.setdiff1d(near, reached)
            reached = np.concatenate([reached, border])
        return reached


def _rows(matrix: Any, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Columns of the entries of these rows of a CSR matrix, row by row."""
    starts, sizes = matrix.indptr[rows], matrix.indptr[rows + 1] - matrix.indptr[rows]
    skipped = np.repeat(starts - (np.cumsum(sizes) - sizes), sizes)
    return matrix.indices[skipped + np.arange(sizes.sum())].astype(np.int64)


def one_around(data: Any, node: int, *, radius: int, neighbours: int | None, cutting: Cutting) -> RawGraph:
    """Find what is around one node of a network, the node itself first.

    Args:
        data: PyG's `Data`.
        node: its number.
        radius: edges from it to the farthest node that is around it.
        neighbours: how many neighbours are followed, at most.
        cutting: how it will be cut.

    Raises:
        DataError: the network has other features than wanted, or no such node.
        ValueError: a broken network.
    """
    graph = to_graph(data, features=cutting.features, edge_features=cutting.edge_features)
    if isinstance(node, bool) or not isinstance(node, int | np.integer) or not 0 <= node < len(graph.nodes):
        raise DataError(f"expected the number of a node, 0 to {len(graph.nodes) - 1}, got {node!r}")
    network = Network(graph, None, radius=radius, neighbours=neighbours, cutting=cutting)
    found = network.around(int(node))
    return replace(found.graph, nodes=graph.nodes[found.nodes])
