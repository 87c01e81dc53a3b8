"""A ragged batch of subgraphs: the raw values of a graph's tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_lightning.tokens import Ragged


@dataclass(frozen=True, kw_only=True)
class Subgraphs(Ragged):
    """B samples of N subgraphs, which may share nodes and may be empty; token b N + i is the subgraph i of sample b.

    Attributes:
        nodes: (V, F) features of the graphs' nodes.
        walks: (V, W) random-walk features of the graphs' nodes.
        members: (S,) int64, the nodes of all subgraphs.
        patch: (S,) int64, the token that each member belongs to, ascending.
        edges: (2, E) int64 numbers of members: the edges within subgraphs, those of a token before those of the next.
        edge_features: (E, G), or None.
        size: (B, N).
    """

    nodes: Tensor
    walks: Tensor
    members: Tensor
    patch: Tensor
    edges: Tensor
    edge_features: Tensor | None
    size: tuple[int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, N)."""
        return self.size

    def take(self, index: Tensor, valid: Tensor | None = None) -> Subgraphs:
        """The subgraphs at `index` (B, K), in that order; slots where `valid` (B, K) is False are empty.

        A subgraph that is picked in several slots is there several times.
        """
        batch, count = self.size
        if index.shape[0] != batch:
            raise ValueError(f"there are {batch} samples of subgraphs, and the index has {index.shape[0]}")
        picked = (index + torch.arange(batch, device=index.device)[:, None] * count).flatten()
        tokens = torch.arange(batch * count + 1, device=index.device)
        first_member = torch.searchsorted(self.patch, tokens)
        first_edge = torch.searchsorted(self.patch[self.edges[0]], tokens)
        sizes = torch.stack([first_member, first_edge]).diff(dim=1)[:, picked]  # members and edges of each slot
        if valid is not None:
            sizes = sizes * valid.flatten()
        starts = sizes.cumsum(1) - sizes
        members, edges = sizes.sum(1).tolist()  # how much there is to compute: the one wait for a GPU
        slot = torch.arange(picked.numel(), device=index.device)
        patch = slot.repeat_interleave(sizes[0], output_size=members)
        moved = (first_member[picked] - starts[0]).repeat_interleave(sizes[0], output_size=members)
        source = torch.arange(members, device=index.device) + moved
        of_edge = slot.repeat_interleave(sizes[1], output_size=edges)
        edge = torch.arange(edges, device=index.device) + (first_edge[picked] - starts[1])[of_edge]
        return Subgraphs(
            nodes=self.nodes,
            walks=self.walks,
            members=self.members[source],
            patch=patch,
            edges=self.edges[:, edge] - (first_member[picked] - starts[0])[of_edge],
            edge_features=None if self.edge_features is None else self.edge_features[edge],
            size=(batch, index.shape[1]),
        )
