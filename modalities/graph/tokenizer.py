"""Graphs to patches: subgraphs as ragged tokens, placed by their random-walk features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from jepa_lightning.modality import Batch, Tokenizer
from jepa_lightning.moments import Moments
from jepa_lightning.tokens import Tokens
from modalities.graph.embedding import means
from modalities.graph.graphs import GraphBatch, PatchedGraph, RawGraph
from modalities.graph.subgraphs import Subgraphs


class GraphTokenizer(Tokenizer):
    """Patches of graphs as tokens (Graph-JEPA, Skenderi et al. 2023).

    A batch's `graph` is a `GraphBatch`, as `GraphData` gives it: graphs that were cut when they were loaded. A PyG
    `Batch`, or a list of PyG `Data`, of `RawGraph` or of `PatchedGraph`, is cut here, on the CPU, which is slow.

    A token's position is its nodes' random-walk features, pooled, and zeros for padding; training and evaluation pool
    alike. `Tokens.valid` is always given: graphs have as many tokens as the largest has patches.

    A node's number that is NaN, as `GraphViews` leaves it out, is read as 0: with `standardize` the mean.

    Args:
        features: numbers F of a node.
        edge_features: numbers G of an edge; 0 leaves out those that the data have.
        patches: METIS patches of a graph; one of fewer nodes gets one patch a node.
        hops: neighbourhood that enlarges a patch.
        walk: number W of random-walk features.
        positions: pooling over a patch's nodes, "max" or "mean".
        standardize: each number of nodes and of edges less its mean and by its standard deviation, which `estimate`
            finds and checkpoints keep; until then they are 0 and 1, and so they stay for numbers that are all 0 or 1
            (types, words) or never change.

    Raises:
        ValueError: a setting is out of range; when called: the batch holds no graphs, or features of other numbers.
    """

    estimated: Tensor

    def __init__(
        self,
        *,
        features: int = 0,
        edge_features: int = 0,
        patches: int = 32,
        hops: int = 1,
        walk: int = 16,
        positions: Literal["max", "mean"] = "max",
        standardize: bool = False,
    ) -> None:
        super().__init__()
        limits = {"features": 0, "edge_features": 0, "patches": 1, "hops": 0, "walk": 1}
        given = {
            "features": features,
            "edge_features": edge_features,
            "patches": patches,
            "hops": hops,
            "walk": walk,
        }
        for name, value in given.items():
            if value < limits[name]:
                raise ValueError(f"{name} must be at least {limits[name]}, got {value}")
        if positions not in ("max", "mean"):
            raise ValueError(f"positions must be max or mean, got {positions!r}")
        self.features = features
        self.edge_features = edge_features
        self.patches = patches
        self.hops = hops
        self.walk = walk
        self.positions = positions
        self.standardize = standardize
        self.scales = nn.ModuleDict()
        if standardize:  # only then: checkpoints of graphs without have none of these
            self.scales.update({"nodes": _Scale(features), "edges": _Scale(edge_features)})
            self.register_buffer("estimated", torch.tensor(False))

    @property
    def needs_statistics(self) -> bool:  # type: ignore[override]
        """Whether means and standard deviations are asked for, and neither estimated nor loaded from a checkpoint."""
        return self.standardize and not bool(self.estimated)

    @torch.no_grad()
    def estimate(self, batches: Iterable[Batch]) -> None:
        """Set means and standard deviations to those of the nodes and edges of these batches, in float64 on the CPU.

        Numbers that are left out (NaN) do not count: training batches may be views.

        Raises:
            ValueError: there is no batch.
        """
        moments = {"nodes": Moments(self.features), "edges": Moments(self.edge_features)}
        switches = {what: torch.tensor(True) for what in moments}  # whether all numbers of a column are 0 or 1
        seen = False
        for batch in batches:
            seen = True
            graphs = self.joined(batch)
            self._check(graphs)
            edges = graphs.edge_features if self.edge_features else None
            for what, rows in (("nodes", graphs.nodes), ("edges", edges)):
                if rows is not None:
                    moments[what].add(rows)
                    switches[what] = switches[what] & (rows.isnan() | (rows == 0) | (rows == 1)).all(0).cpu()
        if not seen:
            raise ValueError("no batch to estimate the graphs' means and deviations from: set standardize to false")
        for what, found in moments.items():
            scaled = found.changes & ~switches[what]
            mean, std = torch.where(scaled, found.mean, 0.0), torch.where(scaled, found.std, 1.0)
            self.scales[what].load_state_dict({"mean": mean, "std": std})
        self.estimated.fill_(True)

    def forward(self, batch: Batch) -> Tokens:
        """Tokens with `Subgraphs` (B, N) as values and positions (B, N, W), from `batch["graph"]`."""
        graphs = self.joined(batch)
        self._check(graphs)
        size = (len(graphs), graphs.tokens)
        # The edges of a token before those of the next, in whatever order the data have them.
        order = graphs.patch[graphs.edges[0]].argsort(stable=True)
        edge_features = graphs.edge_features if self.edge_features else None
        nodes = self._standardised(graphs.nodes, "nodes")
        values = Subgraphs(
            nodes=nodes.masked_fill(nodes.isnan(), 0.0),
            walks=graphs.walks,
            members=graphs.members,
            patch=graphs.patch,
            edges=graphs.edges[:, order],
            edge_features=None if edge_features is None else self._standardised(edge_features[order], "edges"),
            size=size,
        )
        places = self._pooled(graphs.walks[graphs.members], graphs.patch, size[0] * size[1]).unflatten(0, size)
        valid = torch.arange(graphs.tokens, device=places.device) < graphs.counts[:, None]
        return Tokens(values=values, positions=places, valid=valid)

    def joined(self, batch: Batch) -> GraphBatch:
        """The batch's graphs as a `GraphBatch`, cut if they are not."""
        if "graph" not in batch:
            raise ValueError(f"a batch of graphs needs the key 'graph', this one has {sorted(batch)}")
        graphs = batch["graph"]
        if isinstance(graphs, GraphBatch):
            return graphs
        if hasattr(graphs, "to_data_list"):  # a PyG Batch
            graphs = graphs.to_data_list()
        if not isinstance(graphs, Sequence) or not graphs:
            raise ValueError(
                "batch['graph'] must be a GraphBatch, a PyG Batch or a list of at least one graph, got "
                f"{type(graphs).__name__}"
            )
        cut = [self._cut(graph) for graph in graphs]
        return GraphBatch.join(cut).to(_device(graphs[0]))

    def _standardised(self, values: Tensor, what: str) -> Tensor:
        return self.scales[what](values) if self.standardize else values

    def _cut(self, graph: Any) -> PatchedGraph:
        """One graph, cut into patches, on the CPU."""
        if isinstance(graph, PatchedGraph):
            return graph
        from modalities.graph.patching import cut
        from modalities.graph.reading import to_graph  # these import PyG and METIS, which cut graphs do not need

        raw = to_graph(
            graph if isinstance(graph, RawGraph) else graph.cpu(),
            features=self.features,
            edge_features=self.edge_features,
        )
        return cut(raw, patches=self.patches, hops=self.hops, walk=self.walk)

    def _pooled(self, walks: Tensor, patch: Tensor, count: int) -> Tensor:
        """Walk features (S, W) of members, pooled by patch: (count, W), zeros for empty patches."""
        if self.positions == "mean":
            return means(walks, patch, count)
        pooled = walks.new_zeros(count, walks.shape[1])
        return pooled.scatter_reduce(0, patch[:, None].expand_as(walks), walks, "amax", include_self=False)

    def _check(self, graphs: GraphBatch) -> None:
        found = graphs.nodes.shape[1]
        if found != self.features:
            raise ValueError(
                f"the graphs' nodes have {found} features, and the modality was told {self.features}: set its features "
                f"to {found}"
            )
        if graphs.walks.shape[1] != self.walk:
            raise ValueError(
                f"the graphs have {graphs.walks.shape[1]} random-walk features, and the modality was told {self.walk}: "
                "set walk to the same number for both"
            )
        edges = 0 if graphs.edge_features is None else graphs.edge_features.shape[1]
        if self.edge_features not in (0, edges):
            raise ValueError(
                f"the graphs' edges have {edges} features, and the modality was told {self.edge_features}: set its "
                f"edge_features to {edges}"
            )


class _Scale(nn.Module):
    """Columns less their means and by their standard deviations."""

    mean: Tensor
    std: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("std", torch.ones(columns))

    def forward(self, rows: Tensor) -> Tensor:
        return (rows - self.mean) / self.std


def _device(graph: Any) -> torch.device:
    """Where a graph of any kind lies."""
    if isinstance(graph, (RawGraph, PatchedGraph)):
        return graph.edges.device
    return graph.edge_index.device
