"""Views of graphs."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from jepa_lightning.data import DataError, Sample, ViewTransform
from modalities.graph.graphs import PatchedGraph
from modalities.graph.sets import random_cut


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

    Example:
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
        """The sample with its `graph` as one view, a `PatchedGraph`."""
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
        """Which of the edges within patches remain, (E,) bool."""
        ends = graph.members[graph.edges].sort(dim=0).values
        pairs, of_pair = (ends[0] * len(graph.nodes) + ends[1]).unique(return_inverse=True)
        return (torch.rand(len(pairs)) >= self.drop_edges)[of_pair] | (ends[0] == ends[1])
