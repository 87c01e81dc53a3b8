"""From graphs of any data set to patched graphs, cut when they are asked for, and views of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from jepa_lightning.data import DataError, Sample, ViewTransform
from jepa_lightning.modality import Batch
from modalities.graph.graphs import GraphBatch, PatchedGraph, RawGraph, once
from modalities.graph.patching import cut


@dataclass(frozen=True, kw_only=True)
class Cutting:
    """How graphs are cut; see `modalities.graph.patching.cut`.

    Attributes:
        features: F of a node.
        edge_features: G of an edge.
        patches: largest number of patches.
        hops: how far patches reach beyond their part.
        walk: number of random-walk features.
        drop_edges: share of the edges that augmented cuts lack.
        partitions: number of augmented cuts of a graph.
        seed: of the augmented cuts.
    """

    features: int
    edge_features: int
    patches: int
    hops: int
    walk: int
    drop_edges: float = 0.0
    partitions: int = 1
    seed: int = 0


class LazyGraph:
    """A graph that is yet to be cut. Each cut is made once, and kept.

    Args:
        graph: with the features that are wanted.
        cutting: how.
        index: of the graph in its set; with the seed it draws the augmented cuts.
    """

    def __init__(self, graph: RawGraph, *, cutting: Cutting, index: int) -> None:
        self.graph = graph
        self.cutting = cutting
        self.index = index
        self._cuts: dict[int, PatchedGraph] = {}

    def plain(self) -> PatchedGraph:
        """Cut with all edges, always the same."""
        return self.numbered(-1)

    def drawn(self) -> PatchedGraph:
        """Draw one of the augmented cuts, or give the plain one where no edges are dropped."""
        if not self.cutting.drop_edges:
            return self.plain()
        return self.numbered(int(torch.randint(self.cutting.partitions, ())))

    def numbered(self, number: int) -> PatchedGraph:
        """Make one of the augmented cuts, from 0, or the plain one, -1; the same each time."""
        if number not in self._cuts:
            known = next(iter(self._cuts.values()), None)
            augmented = number >= 0
            self._cuts[number] = cut(
                self.graph,
                patches=self.cutting.patches,
                hops=self.cutting.hops,
                walk=self.cutting.walk,
                drop_edges=self.cutting.drop_edges if augmented else 0.0,
                rng=np.random.default_rng([self.cutting.seed, self.index, number]) if augmented else None,
                walks=None if known is None else known.walks,
            )
        return self._cuts[number]


def plain_cut(sample: Sample) -> Sample:
    """Cut with all edges, for evaluation."""
    return {**sample, "graph": sample["graph"].plain()}


def random_cut(sample: Sample) -> Sample:
    """Cut at random, for training."""
    return {**sample, "graph": sample["graph"].drawn()}


def join_graphs(batch: Batch) -> Batch:
    """Join the graphs of a batch to one `GraphBatch`."""
    return {**batch, "graph": GraphBatch.join(batch["graph"])}


class GraphViews(ViewTransform):
    """Views of graphs: edges, features and nodes left out at random, or a connected part of the graph.

    Edges and features as in GRACE (Zhu et al. 2020, arXiv:2006.04131, section 3.1), nodes and subgraphs as in GraphCL
    (You et al. 2020, arXiv:2010.13902, section 3.1). An edge goes in both directions, and out of all patches that have
    it; self-loops stay. A feature becomes NaN for all nodes of a graph, which the tokenizer reads as 0, or as the mean
    with the modality's `standardize`. A node goes with its edges, and a patch with its last node; one node always
    stays, and so does the one that a sample is about (`data.radius`). A subgraph grows from a random node, or from that
    one, by random neighbours of the nodes that it has (along the edges within patches), until it has its share of the
    nodes or no neighbours are left.

    Graphs are cut into patches once, not once a view: patches and random-walk features are those of a random one of
    `GraphData`'s cuts (`drop_edges` and `partitions` there cut graphs that lack edges).

    Args:
        drop_edges: probability that an edge is left out.
        drop_features: probability that a feature is left out.
        drop_nodes: probability that a node is left out.
        subgraph: share of the nodes that a subgraph has, above 0; 1 keeps the whole graph.

    Raises:
        DataError: a probability that is not from 0 to below 1, or a share that is not above 0 and at most 1.

    Examples:
        ```yaml
        data:
          class_path: GraphData
          init_args: {views: 2, view_transform: {class_path: GraphViews, init_args: {drop_edges: 0.3, subgraph: 0.8}}}
        ```
    """

    name = "graph"

    def __init__(
        self,
        *,
        drop_edges: float = 0.2,
        drop_features: float = 0.2,
        drop_nodes: float = 0.0,
        subgraph: float = 1.0,
    ) -> None:
        for name, value in (("edges", drop_edges), ("features", drop_features), ("nodes", drop_nodes)):
            if not 0 <= value < 1:
                raise DataError(f"expected drop_{name} from 0 to below 1, got {value:g}")
        if not 0 < subgraph <= 1:
            raise DataError(f"expected subgraph, a share of the nodes, above 0 and at most 1, got {subgraph:g}")
        self.drop_edges = drop_edges
        self.drop_features = drop_features
        self.drop_nodes = drop_nodes
        self.subgraph = subgraph

    def __call__(self, sample: Sample, view: int = 0) -> Sample:
        """Make one view of the sample's `graph`, a `PatchedGraph`."""
        sample = random_cut(sample)
        graph: PatchedGraph = sample["graph"]
        if self.subgraph < 1:
            graph = with_nodes(graph, grown(graph, share=self.subgraph))
        if self.drop_nodes:
            staying = torch.rand(len(graph.nodes)) >= self.drop_nodes
            staying[torch.randint(len(staying), ())] |= not staying.any()
            staying[0] |= graph.rooted
            graph = with_nodes(graph, staying)
        kept = self._kept(graph)
        known = torch.rand(graph.nodes.shape[1]) >= self.drop_features
        features = graph.edge_features
        changed = replace(
            graph,
            nodes=graph.nodes.masked_fill(~known, torch.nan),
            edges=graph.edges[:, kept],
            edge_features=None if features is None else features[kept],
        )
        return {**sample, "graph": changed}

    def _kept(self, graph: PatchedGraph) -> Tensor:
        """Choose which of the edges within patches remain, (E,) bool."""
        ends = graph.members[graph.edges].sort(dim=0).values
        pairs, of_pair = (ends[0] * len(graph.nodes) + ends[1]).unique(return_inverse=True)
        return (torch.rand(len(pairs)) >= self.drop_edges)[of_pair] | (ends[0] == ends[1])


def with_nodes(graph: PatchedGraph, kept: Tensor) -> PatchedGraph:
    """Leave out the nodes that are not `kept` (n,) bool, with their edges, and patches that have no node then.

    Random-walk features stay those of the whole graph.
    """
    member_kept = kept[graph.members]
    edge_kept = member_kept[graph.edges].all(0)
    of_node, of_member = kept.cumsum(0) - 1, member_kept.cumsum(0) - 1  # numbers after
    _, patch = graph.patch[member_kept].unique(return_inverse=True)
    return PatchedGraph(
        nodes=graph.nodes[kept],
        walks=graph.walks[kept],
        members=of_node[graph.members[member_kept]],
        patch=patch,
        edges=of_member[graph.edges[:, edge_kept]],
        edge_features=None if graph.edge_features is None else graph.edge_features[edge_kept],
        count=int(patch[-1]) + 1,
        rooted=graph.rooted,
    )


def grown(graph: PatchedGraph, *, share: float) -> Tensor:
    """Draw the nodes of a connected subgraph with this share of the nodes, rounded, at least one: (n,) bool.

    It has fewer where the part of the graph that it began in has fewer, and begins at the node that a sample is about.
    """
    nodes = len(graph.nodes)
    near: list[list[int]] = [[] for _ in range(nodes)]
    for source, target in once(graph.members[graph.edges], nodes).T.tolist():
        near[source].append(target)
        near[target].append(source)
    wanted, draws = max(round(share * nodes), 1), torch.rand(nodes).tolist()
    inside: set[int] = set()
    border = [0 if graph.rooted else int(draws[0] * nodes)]
    reached = set(border)
    while border and len(inside) < wanted:
        number = int(draws[-1 - len(inside)] * len(border)) if inside else 0
        border[number], border[-1] = border[-1], border[number]
        node = border.pop()
        inside.add(node)
        new = sorted(set(near[node]) - reached)
        reached.update(new)
        border.extend(new)
    found = torch.zeros(nodes, dtype=torch.bool)
    found[list(inside)] = True
    return found
