"""Floors for graphs, without learning: histograms of nodes, and Weisfeiler and Lehman's subtree features.

Shervashidze et al. 2011, "Weisfeiler-Lehman graph kernels": every node starts with its type (or its degree, where there
are none); h times, it takes a new label that stands for its own and the multiset of its neighbours'. A graph is
described by how often each label of each of the rounds 0 to h occurs in it. Edge types are not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import SVC

from jepa_lightning.evaluation.probes.protocols import Split

Array = NDArray[Any]

ITERATIONS = (1, 2, 3, 4)
C_GRID = (0.01, 0.1, 1.0, 10.0, 100.0)
_FALLBACK = 2, 1.0  # iterations and C where a class has one sample, which cannot be divided
_INNER_FOLDS = 5
_DEGREES = 64  # larger ones share a column


@dataclass(frozen=True)
class TypedGraph:
    """A graph for the floors.

    Attributes:
        nodes: n, at least 1.
        edges: (2, E) int64, from and to; undirected ones in both directions, none twice.
        types: (n,) int64, or None where nodes have none.
    """

    nodes: int
    edges: Array
    types: Array | None = None

    @property
    def degrees(self) -> Array:
        """Number of neighbours of each node, (n,)."""
        return np.bincount(self.edges[0], minlength=self.nodes)


def read_graphs(root: str, name: str) -> tuple[list[TypedGraph], Array]:
    """The graphs of a TUDataset and their classes, (n,); types are where the one-hot features have their one."""
    from modalities.graph.files import open_graphs  # PyG is slow to import

    graphs, labels = [], []
    for data in open_graphs(root, name)["train"]:  # type: ignore[attr-defined]
        edges = np.unique(data.edge_index.numpy(), axis=1).astype(np.int64)
        types = None if data.x is None or not data.x.shape[1] else data.x.argmax(1).numpy()
        graphs.append(TypedGraph(int(data.num_nodes), edges, types))
        labels.append(int(data.y))
    return graphs, np.array(labels)


def histograms(graphs: Sequence[TypedGraph]) -> Array:
    """How many nodes have each type (without types: all), and how many each degree, (graphs, columns)."""
    kinds = [np.zeros(g.nodes, dtype=np.int64) if g.types is None else g.types for g in graphs]
    columns = 1 + max(int(types.max()) for types in kinds)
    most = min(_DEGREES, 1 + max(int(g.degrees.max()) for g in graphs))
    return np.array(
        [
            np.concatenate(
                [
                    np.bincount(types, minlength=columns),
                    np.bincount(np.minimum(graph.degrees, most - 1), minlength=most),
                ]
            )
            for graph, types in zip(graphs, kinds, strict=True)
        ],
        dtype=np.float64,
    )


def wl_counts(graphs: Sequence[TypedGraph], iterations: int) -> list[csr_matrix]:
    """How often each label occurs in each graph, (graphs, labels), after 0, 1, ... `iterations` rounds."""
    sizes = np.array([graph.nodes for graph in graphs])
    first = sizes.cumsum() - sizes
    owner = np.repeat(np.arange(len(graphs)), sizes)
    source, target = np.concatenate([g.edges + start for g, start in zip(graphs, first, strict=True)], axis=1)
    ends = np.bincount(source, minlength=len(owner)).cumsum().tolist()
    labels = np.concatenate([graph.degrees if graph.types is None else graph.types for graph in graphs])
    found = [_count(owner, labels)]
    for _ in range(iterations):
        seen = labels[target][np.lexsort((labels[target], source))]  # of each node's neighbours, sorted
        names: dict[tuple[int, bytes], int] = {}
        pairs = zip(labels.tolist(), [0, *ends[:-1]], ends, strict=True)
        labels = np.array([names.setdefault((own, seen[a:b].tobytes()), len(names)) for own, a, b in pairs])
        found.append(_count(owner, labels))
    return found


def _count(owner: Array, labels: Array) -> csr_matrix:
    return csr_matrix((np.ones(len(owner)), (owner, labels)))


def wl_kernels(graphs: Sequence[TypedGraph], iterations: Sequence[int] = ITERATIONS) -> dict[int, Array]:
    """Cosines between the graphs' counts of rounds 0 to h, (graphs, graphs), by h.

    A linear SVM sees no more of the counts than these. Each is a matter of two graphs alone: a test graph changes
    nothing between training graphs.
    """
    parts = wl_counts(graphs, max(iterations))
    kernels = {}
    for h in iterations:
        products = sum((part @ part.T).toarray() for part in parts[: h + 1])
        length = np.sqrt(products.diagonal())
        kernels[h] = products / length / length[:, None]
    return kernels


def wl_accuracy(kernels: dict[int, Array], labels: Array, split: Split) -> float:
    """Accuracy of a linear SVM on the WL features; h and C are chosen by inner folds of the training part alone."""
    h, c = _choose(kernels, labels, split.train)
    return _score(kernels[h], labels, split, c)


def _choose(kernels: dict[int, Array], labels: Array, train: Array) -> tuple[int, float]:
    folds = min(_INNER_FOLDS, int(np.unique(labels[train], return_counts=True)[1].min()))
    if folds < 2:
        return _FALLBACK
    drawn = StratifiedKFold(folds, shuffle=True, random_state=0).split(train, labels[train])
    inner = [Split(train[kept], train[held]) for kept, held in drawn]
    scores = {
        (h, c): np.mean([_score(kernel, labels, split, c) for split in inner])
        for h, kernel in kernels.items()
        for c in C_GRID
    }
    return max(scores, key=lambda setting: scores[setting])  # the simplest of the best


def _score(kernel: Array, labels: Array, split: Split, c: float) -> float:
    model = SVC(C=c, kernel="precomputed").fit(kernel[np.ix_(split.train, split.train)], labels[split.train])
    return float((model.predict(kernel[np.ix_(split.test, split.train)]) == labels[split.test]).mean())
