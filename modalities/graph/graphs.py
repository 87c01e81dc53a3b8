"""Graphs as tensors: one, one cut into patches, and many patched ones joined into a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class RawGraph:
    """One graph.

    Attributes:
        nodes: (n, F) float32 features; F may be 0.
        edges: (2, E) int64, from and to; an undirected edge is listed in both directions.
        edge_features: (E, G) float32, or None.
    """

    nodes: Tensor
    edges: Tensor
    edge_features: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class PatchedGraph:
    """One graph as C overlapping subgraphs, its patches.

    Attributes:
        nodes: (n, F) float32 features of the graph's nodes.
        walks: (n, W) float32 random-walk features of the graph's nodes.
        members: (S,) int64, the nodes of all patches, one patch after the other.
        patch: (S,) int64, which patch each member belongs to: ascending, every number from 0 to C - 1 at least once.
        edges: (2, E) int64 numbers of members: the edges within patches.
        edge_features: (E, G) float32 of these edges, or None.
        count: C.
        rooted: whether node 0 is the one that the sample is about, which views keep.
    """

    nodes: Tensor
    walks: Tensor
    members: Tensor
    patch: Tensor
    edges: Tensor
    edge_features: Tensor | None
    count: int
    rooted: bool = False


@dataclass(kw_only=True)  # not frozen: Lightning's half precision sets the fields of a copy
class GraphBatch:
    """B patched graphs, one after the other; token b N + i is patch i of graph b, where i is below its count.

    Attributes:
        nodes: (V, F) float32.
        walks: (V, W) float32.
        members: (S,) int64 numbers of nodes.
        patch: (S,) int64 numbers of tokens, ascending.
        edges: (2, E) int64 numbers of members.
        edge_features: (E, G) float32, or None.
        counts: (B,) int64 patches of each graph.
        tokens: N, the largest of them.
        rooted: whether the first node of each graph is the one that the sample is about.
    """

    nodes: Tensor
    walks: Tensor
    members: Tensor
    patch: Tensor
    edges: Tensor
    edge_features: Tensor | None
    counts: Tensor
    tokens: int
    rooted: bool = False

    @classmethod
    def join(cls, graphs: Sequence[PatchedGraph]) -> Self:
        """A batch of at least one graph; all have edge features, or none."""
        tokens = max(graph.count for graph in graphs)
        members = torch.tensor([len(graph.members) for graph in graphs])
        size = torch.tensor([len(graph.nodes) for graph in graphs])
        first_node, first_member = size.cumsum(0) - size, members.cumsum(0) - members
        edges = torch.tensor([graph.edges.shape[1] for graph in graphs])
        first_token = torch.arange(len(graphs)) * tokens
        features = [graph.edge_features for graph in graphs if graph.edge_features is not None]
        return cls(
            nodes=torch.cat([graph.nodes for graph in graphs]),
            walks=torch.cat([graph.walks for graph in graphs]),
            members=torch.cat([graph.members for graph in graphs]) + first_node.repeat_interleave(members),
            patch=torch.cat([graph.patch for graph in graphs]) + first_token.repeat_interleave(members),
            edges=torch.cat([graph.edges for graph in graphs], dim=1) + first_member.repeat_interleave(edges),
            edge_features=torch.cat(features) if features else None,
            counts=torch.tensor([graph.count for graph in graphs]),
            tokens=tokens,
            rooted=all(graph.rooted for graph in graphs),
        )

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, samples: slice) -> Self:
        """The first samples as a batch of their own, with as many tokens N: `batch[:6]`; no other slices."""
        if samples.start not in (None, 0) or samples.step not in (None, 1):
            raise ValueError(f"only the first samples of a batch of graphs can be taken, got {samples}")
        counts = self.counts[samples]
        members = int((self.patch < len(counts) * self.tokens).sum())
        nodes = int(self.members[:members].amax()) + 1 if members else 0
        kept = (self.edges < members).all(0)
        return replace(
            self,
            nodes=self.nodes[:nodes],
            walks=self.walks[:nodes],
            members=self.members[:members],
            patch=self.patch[:members],
            edges=self.edges[:, kept],
            edge_features=None if self.edge_features is None else self.edge_features[kept],
            counts=counts,
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The same batch on `device`."""
        return self._each(lambda value: value.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """The same batch in pinned memory (what a DataLoader calls)."""
        return self._each(Tensor.pin_memory)

    def _each(self, change) -> Self:  # type: ignore[no-untyped-def]
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(value) for name, value in values.items() if isinstance(value, Tensor)})


def once(edges: Tensor, nodes: int) -> Tensor:
    """List each of the edges (2, E) of `nodes` nodes once, in the order of their ends (`unique(dim=1)` is slower)."""
    numbers = (edges[0] * nodes + edges[1]).unique()
    return torch.stack([numbers // nodes, numbers % nodes])
