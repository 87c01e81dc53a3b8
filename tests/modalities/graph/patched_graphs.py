"""Graphs for tests, cut plainly: one patch a node, which is the node and its neighbours."""

import torch

from modalities.graph.graphs import GraphBatch, PatchedGraph


def tree(count, *, seed=0, features=3, edge_features=2, walk=5, chords=2, order=None):
    """A random tree with a few chords of `count` nodes, cut; `order` renumbers its nodes."""
    generator = torch.Generator().manual_seed(1000 * count + seed)
    pairs = [(int(torch.randint(i, (1,), generator=generator)), i) for i in range(1, count)]
    for _ in range(chords if count > 3 else 0):
        a, b = torch.randperm(count, generator=generator)[:2].tolist()
        pairs += [] if (a, b) in pairs or (b, a) in pairs else [(a, b)]
    nodes = torch.randn(count, features, generator=generator)
    weights = torch.randn(len(pairs), edge_features, generator=generator)
    edges = torch.tensor([*pairs, *((b, a) for a, b in pairs)], dtype=torch.int64).reshape(-1, 2).T
    edge_features = torch.cat([weights, weights]) if edge_features else None
    if order is not None:  # node i becomes order[i]
        nodes, edges = nodes[order.argsort()], order[edges]
    return cut(nodes, edges, edge_features, walk=walk)


def cut(nodes, edges, edge_features, *, walk=5):
    """One patch a node with its neighbours, by plain loops."""
    count = len(nodes)
    joined = torch.zeros(count, count)
    joined[edges[0], edges[1]] = 1
    step = joined / joined.sum(1, keepdim=True).clamp(min=1)
    walks = torch.stack([torch.linalg.matrix_power(step, k).diagonal() for k in range(1, walk + 1)], dim=1)
    members, patch, ends, kept = [], [], [], []
    for node in range(count):
        mine = sorted({node, *edges[1, edges[0] == node].tolist()})
        for e, (a, b) in enumerate(edges.T.tolist()):
            if a in mine and b in mine:
                ends.append((len(members) + mine.index(a), len(members) + mine.index(b)))
                kept.append(e)
        members += mine
        patch += [node] * len(mine)
    return PatchedGraph(
        nodes=nodes,
        walks=walks,
        members=torch.tensor(members),
        patch=torch.tensor(patch),
        edges=torch.tensor(ends, dtype=torch.int64).reshape(-1, 2).T,
        edge_features=None if edge_features is None else edge_features[kept],
        count=count,
    )


def join(*sizes, **settings):
    """A batch of trees of these sizes."""
    return GraphBatch.join([tree(size, seed=i, **settings) for i, size in enumerate(sizes)])
