"""From graphs of any data set to patched graphs, cut when they are asked for, and views of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from jepa_lightning.data import DataError, Sample, ViewTransform
from jepa_lightning.modality import Batch
from modalities.graph.graphs import GraphBatch, PatchedGraph, RawGraph
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
        return self._cut(-1)

    def drawn(self) -> PatchedGraph:
        """Draw one of the augmented cuts, or give the plain one where no edges are dropped."""
        if not self.cutting.drop_edges:
            return self.plain()
        return self._cut(int(torch.randint(self.cutting.partitions, ())))

    def _cut(self, number: int) -> PatchedGraph:
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
    """Views of graphs: edges and features left out at random (GRACE: Zhu et al. 2020, arXiv:2006.04131, section 3.1).

    An edge goes in both directions, and out of all patches that have it; self-loops stay. A feature is set to zero for
    all nodes of a graph. Graphs are cut into patches once, not once a view: patches and random-walk features are those
    of a random one of `GraphData`'s cuts (`drop_edges` and `partitions` there cut graphs that lack edges).

    Args:
        drop_edges: probability that an edge is left out.
        drop_features: probability that a feature is set to zero.

    Raises:
        DataError: a probability that is not from 0 to below 1.

    Examples:
        ```yaml
        data:
          class_path: GraphData
          init_args: {views: 2, view_transform: {class_path: GraphViews, init_args: {drop_edges: 0.3}}}
        ```
    """

    name = "graph"

    def __init__(self, *, drop_edges: float = 0.2, drop_features: float = 0.2) -> None:
        for name, value in (("drop_edges", drop_edges), ("drop_features", drop_features)):
            if not 0 <= value < 1:
                raise DataError(f"expected {name} from 0 to below 1, got {value:g}")
        self.drop_edges = drop_edges
        self.drop_features = drop_features

    def __call__(self, sample: Sample, view: int = 0) -> Sample:
        """Make one view of the sample's `graph`, a `PatchedGraph`."""
        sample = random_cut(sample)
        graph: PatchedGraph = sample["graph"]
        kept = self._kept(graph)
        known = torch.rand(graph.nodes.shape[1]) >= self.drop_features
        features = graph.edge_features
        changed = replace(
            graph,
            nodes=graph.nodes * known,
            edges=graph.edges[:, kept],
            edge_features=None if features is None else features[kept],
        )
        return {**sample, "graph": changed}

    def _kept(self, graph: PatchedGraph) -> Tensor:
        """Choose which of the edges within patches remain, (E,) bool."""
        ends = graph.members[graph.edges].sort(dim=0).values
        pairs, of_pair = (ends[0] * len(graph.nodes) + ends[1]).unique(return_inverse=True)
        return (torch.rand(len(pairs)) >= self.drop_edges)[of_pair] | (ends[0] == ends[1])
