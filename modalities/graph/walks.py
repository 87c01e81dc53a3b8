"""Random-walk features of nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalities.graph.requirements import sparse

_BLOCK = 512  # nodes whose walks are followed at a time: bounds the memory of large graphs
_LARGE = 2048  # nodes from which on the walks of a block are kept sparse as long as they reach few nodes
_FEW = 0.05  # share of the nodes


def random_walks(edges: Tensor, *, nodes: int, steps: int) -> Tensor:
    """Probabilities that a random walk is back where it began after 1, 2, ... steps: (nodes, steps) float32.

    RWSE, Dwivedi et al. 2022 (arXiv:2110.07875): the diagonals of (D^-1 A)^k. Edges are followed in their direction; a
    self-loop is an edge; an edge that is listed several times is one edge; a walk that reaches a node without edges
    ends there, so that isolated nodes have zeros. PyG's `AddRandomWalkPE` gives the same (but where edges repeat), and
    takes seconds for graphs of thousands of nodes: it multiplies n x n matrices. Here the powers stay sparse times
    dense, and only half of them are needed: a walk of a + b steps is one of a and one of b. On large graphs they are
    sparse as long as walks reach few nodes, so the cost grows with the nodes reached, not with the square of all.

    Args:
        edges: (2, E) int64.
        nodes: n.
        steps: number of features.
    """
    found = np.zeros((steps, nodes))
    pairs = np.unique(edges[0].numpy() * nodes + edges[1].numpy())
    source, target = pairs // nodes, pairs % nodes
    degree = np.bincount(source, minlength=nodes)
    symmetric = np.array_equal(np.sort(target * nodes + source), pairs)
    # D^-1/2 A D^-1/2 has the same diagonals, and is its own transpose where A is.
    value = 1 / (np.sqrt(degree[source] * degree[target]) if symmetric else degree[source])
    onward = sparse.csr_array((value, (source, target)), shape=(nodes, nodes))
    back = onward if symmetric else onward.T.tocsr()
    for start in range(0, nodes, _BLOCK):
        part = np.arange(start, min(start + _BLOCK, nodes))
        there: Any = sparse.csr_array((np.ones(len(part)), (part, part - start)), shape=(nodes, len(part)))
        there = there if nodes > _LARGE else there.toarray()
        here = there
        for step in range(steps):
            if step % 2 == 0:
                before = there
                there = _step(onward, there)
                if symmetric:
                    found[step, part] = _products(there, before)
                    continue
            else:
                here = there if symmetric else _step(back, here)
            found[step, part] = _products(there, here)
    return torch.from_numpy(found.T.astype(np.float32))


def _step(moves: Any, walks: Any) -> Any:
    """Follow walks (nodes, starts), sparse or dense, by one step; dense once they reach many nodes."""
    walks = moves @ walks
    if sparse.issparse(walks) and walks.nnz > _FEW * walks.shape[0] * walks.shape[1]:
        return walks.toarray()
    return walks


def _products(left: Any, right: Any) -> NDArray[Any]:
    """Products of two matrices (nodes, starts), summed over the nodes: (starts,)."""
    if sparse.issparse(left) and sparse.issparse(right):
        return np.asarray(left.multiply(right).sum(axis=0)).ravel()
    left, right = (each.toarray() if sparse.issparse(each) else each for each in (left, right))
    return np.einsum("ij,ij->j", left, right)
