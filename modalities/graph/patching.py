"""A graph cut into overlapping patches."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalities.graph.graphs import PatchedGraph, RawGraph
from modalities.graph.requirements import pymetis, sparse
from modalities.graph.walks import random_walks

Array = NDArray[Any]  # int64

_SEED = 0  # of METIS


def cut(
    graph: RawGraph,
    *,
    patches: int,
    hops: int,
    walk: int,
    drop_edges: float = 0.0,
    rng: np.random.Generator | None = None,
    walks: Tensor | None = None,
) -> PatchedGraph:
    """Cut a graph into patches as Graph-JEPA does (Skenderi et al. 2023, arXiv:2309.16014).

    METIS divides a graph of more nodes than `patches`; a smaller one has one patch a node. (A graph of a few nodes
    more may get fewer patches than that: METIS leaves parts empty, and these are dropped.) Each part is then enlarged
    by the nodes at most `hops` edges away, in either direction, and has all edges of the graph between its members,
    as they were given: directed, with self-loops and repeated ones.

    With `drop_edges` the graph is cut as if that share of its edges did not exist: METIS, the neighbourhoods and the
    patches' edges see the others. What connects two nodes, in either direction, goes together; self-loops stay. The
    random-walk features are those of the whole graph.

    Args:
        graph: at least one node.
        patches: largest number of patches.
        hops: how far patches reach beyond their part, 0 or more.
        walk: number of random-walk features.
        drop_edges: share of the edges that are dropped at random, 0 to below 1. With 0 the result depends on the graph
            alone.
        rng: draws them.
        walks: the graph's random-walk features, where they are known (of another cut of it, say).

    Raises:
        ValueError: an argument is out of range, the graph has no nodes, or edges that name no node.
    """
    nodes = len(graph.nodes)
    _check(patches=patches, hops=hops, walk=walk, drop_edges=drop_edges, rng=rng)
    if not nodes:
        raise ValueError("expected a graph of at least one node, got none")
    edges: Array = graph.edges.numpy()
    if edges.size and not (edges.min() >= 0 and edges.max() < nodes):
        raise ValueError(f"expected edges between nodes 0 to {nodes - 1}, got {edges.min()} to {edges.max()}")
    if walks is None:
        walks = random_walks(graph.edges, nodes=nodes, steps=walk)
    listed = np.arange(edges.shape[1])
    if drop_edges and rng is not None:
        listed = _kept(edges, nodes, share=drop_edges, rng=rng)
        edges = edges[:, listed]
    features = graph.edge_features
    if patches == 1:  # which has everything
        return PatchedGraph(
            nodes=graph.nodes,
            walks=walks,
            members=torch.arange(nodes),
            patch=torch.zeros(nodes, dtype=torch.int64),
            edges=torch.from_numpy(edges),
            edge_features=None if features is None else features[torch.from_numpy(listed)],
            count=1,
        )
    near = linked(edges, nodes)
    part, count = _parts(near, patches)
    inside = sparse.csr_array((np.ones(nodes, dtype=np.int32), (np.arange(nodes), part)), shape=(nodes, count))
    for _ in range(hops):
        inside = inside + near @ inside
        inside.data[:] = 1
    by_patch = inside.T.tocsr()
    by_patch.sort_indices()
    members = by_patch.indices.astype(np.int64)
    patch = np.repeat(np.arange(count), np.diff(by_patch.indptr))
    within = inside[edges[0]].multiply(inside[edges[1]]).tocsc()  # (E, count): both ends are in the patch
    within.sort_indices()
    which = within.indices
    of_patch = np.repeat(np.arange(count), np.diff(within.indptr))
    # Members are sorted by patch and node: this is where each edge's ends stand among them.
    ends = np.searchsorted(patch * nodes + members, of_patch * nodes + edges[:, which])
    return PatchedGraph(
        nodes=graph.nodes,
        walks=walks,
        members=torch.from_numpy(members),
        patch=torch.from_numpy(patch),
        edges=torch.from_numpy(ends),
        edge_features=None if features is None else features[torch.from_numpy(listed[which])],
        count=count,
    )


def _check(*, patches: int, hops: int, walk: int, drop_edges: float, rng: np.random.Generator | None) -> None:
    for name, value, least in (("patches", patches, 1), ("hops", hops, 0), ("walk", walk, 1)):
        if value < least:
            raise ValueError(f"expected {name} of at least {least}, got {value}")
    if not 0 <= drop_edges < 1:
        raise ValueError(f"expected drop_edges from 0 to below 1, got {drop_edges:g}")
    if drop_edges and rng is None:
        raise ValueError("expected a generator (rng) to drop edges with, got none")


def _kept(edges: Array, nodes: int, *, share: float, rng: np.random.Generator) -> Array:
    """Which of the listed edges (2, E) remain."""
    low, high = edges.min(axis=0, initial=nodes), edges.max(axis=0, initial=0)
    pairs, of_pair = np.unique(low * nodes + high, return_inverse=True)
    crossing = np.flatnonzero(pairs // nodes != pairs % nodes)
    dropped = np.zeros(len(pairs), dtype=bool)
    dropped[rng.permutation(crossing)[: round(share * len(crossing))]] = True
    return np.flatnonzero(~dropped[of_pair])


def linked(edges: Array, nodes: int) -> Any:
    """Mark by ones where two different nodes are connected in either direction: (nodes, nodes) in CSR form."""
    source, target = edges[:, edges[0] != edges[1]]
    pairs = np.unique(np.concatenate([source * nodes + target, target * nodes + source]))
    ones = np.ones(len(pairs), dtype=np.int32)
    return sparse.csr_array((ones, (pairs // nodes, pairs % nodes)), shape=(nodes, nodes))


def _parts(near: Any, patches: int) -> tuple[Array, int]:
    """The part of each node, and how many there are."""
    nodes = near.shape[0]
    if nodes <= patches:
        return np.arange(nodes), nodes
    graph = pymetis.CSRAdjacency(near.indptr.astype(np.int64), near.indices.astype(np.int64))
    _, part = pymetis.part_graph(patches, graph, options=pymetis.Options(seed=_SEED))
    used, of_node = np.unique(np.asarray(part), return_inverse=True)
    return of_node.astype(np.int64), len(used)
