"""A labelled data set of graphs with typed nodes, so that everything runs with no data on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from jepa_lightning.data import DataError
from jepa_lightning.data.generation import sample_rng
from jepa_lightning.names.shown import Shown
from modalities.graph.graphs import RawGraph

Array = NDArray[Any]

TYPES = 4
RULES = tuple(rule for rule in permutations(range(TYPES)) if all(rule[rule[t]] == t for t in range(TYPES)))
"""Which type each type attracts in its neighbours: itself, or one that attracts it in turn. Ten rules."""

_SIZE = 20, 60  # nodes, both included
_DEGREE = 3.2, 5.0  # range of the mean degree; lower ones do not fit cliques of four, higher ones not a geometric graph
_REWIRED = 0.1  # share of the edges that are put anywhere
_PULL = 1.5  # log-odds of a type for each neighbour that attracts it
_ROUNDS = 6  # of types being drawn again, half of the nodes each


class GeneratedGraphs(Shown, Dataset[dict[str, Any]]):
    """Random graphs whose nodes have one of four types; the class is the rule by which types attract each other.

    Each type attracts itself or one other in its neighbours, mutually: ten rules. All types are equally frequent on
    average, so that counting nodes hardly tells the rule, nor does the structure: graphs are of eight families (a
    second label), drawn regardless of the rule. The shares of pairs of types at the ends of edges tell it mostly.

    All families have 20 to 60 nodes and mean degrees of 3.2 to 5, drawn alike for all, so that neither tells the
    family. A tenth of the edges is put anywhere, and the nodes are in random order; types are one-hot coded. All graphs
    are drawn when the set is built. Graph i depends on the seed, the split and i alone, and the rules are equally
    frequent.

    Args:
        samples: number of graphs.
        seed: of the set.
        split: "train", "val" or "test"; the graphs of different splits are drawn independently.

    A sample is `graph` (a `RawGraph` with 4 node features) and `labels`: `rule` (class); `family` (class);
    `clustering`, the mean of the nodes' local clustering; and `nodes`, the base-2 logarithm of their number.

    Raises:
        DataError: an argument out of range.

    Examples:
        >>> from modalities.graph.generated import GeneratedGraphs
        >>> graphs = GeneratedGraphs(16, seed=1)
        >>> graphs
        GeneratedGraphs(samples=16, seed=1)
        >>> graphs[0]["graph"].nodes.shape[1], sorted(graphs[0]["labels"])
        (4, ['clustering', 'family', 'nodes', 'rule'])
    """

    def __init__(self, samples: int = 4000, *, seed: int = 0, split: str = "train") -> None:
        if samples < 1:
            raise DataError(f"expected at least 1 sample, got {samples}")
        self.classes = [" ".join(f"{t}-{other}" for t, other in enumerate(rule) if t <= other) for rule in RULES]
        self.targets = np.arange(samples, dtype=np.int64) % len(RULES)
        self.graphs: list[RawGraph] = []
        rows = []
        for index, rule in enumerate(self.targets.tolist()):
            graph, *labels = _draw(sample_rng(seed, split, index), RULES[rule])
            self.graphs.append(graph)
            rows.append(labels)
        families, clustering, nodes = zip(*rows, strict=True)
        self.labels: dict[str, Array] = {
            "family": np.array(families, dtype=np.int64),
            "clustering": np.array(clustering, dtype=np.float32),
            "nodes": np.array(nodes, dtype=np.float32),
        }

    def __len__(self) -> int:
        return len(self.graphs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        labels = {"rule": self.targets[index], **{name: column[index] for name, column in self.labels.items()}}
        return {"graph": self.graphs[index], "labels": labels}


def _draw(rng: np.random.Generator, rule: Sequence[int]) -> tuple[RawGraph, int, float, float]:
    """Draw a graph, the number of its family, its clustering and the logarithm of its size."""
    number = int(rng.integers(len(FAMILIES)))
    family = FAMILIES[list(FAMILIES)[number]]
    nodes = int(rng.integers(_SIZE[0], _SIZE[1] + 1))
    wanted = round(rng.uniform(*_DEGREE) * nodes / 2)
    table = np.zeros((nodes, nodes), dtype=bool)
    source, target = family(rng, nodes, wanted)
    table[source, target] = table[target, source] = True
    np.fill_diagonal(table, False)
    _adjust(rng, table, wanted)
    _adjust(rng, table, wanted - round(_REWIRED * wanted))
    _adjust(rng, table, wanted)
    order = rng.permutation(nodes)
    table = table[order][:, order]
    dense = table.astype(np.float32)
    types = _types(rng, dense, rule)
    degree = dense.sum(0)
    closed = ((dense @ dense) * dense).sum(0) / np.maximum(degree * (degree - 1), 1)
    graph = RawGraph(
        nodes=torch.from_numpy(np.eye(TYPES, dtype=np.float32)[types]),
        edges=torch.from_numpy(np.stack(np.nonzero(table)).astype(np.int64)),
    )
    return graph, number, float(closed.mean()), float(np.log2(nodes))


def _types(rng: np.random.Generator, table: Array, rule: Sequence[int]) -> Array:
    """Draw types of nodes, (n,), near the balance of a Potts model in which type t attracts neighbours `rule[t]`."""
    onehot = np.eye(TYPES, dtype=np.float32)
    types = rng.integers(TYPES, size=len(table))
    for _ in range(_ROUNDS):
        pull = _PULL * table @ onehot[np.asarray(rule)[types]]
        drawn = (pull + rng.gumbel(size=pull.shape)).argmax(1)  # from the softmax
        types = np.where(rng.random(len(table)) < 0.5, drawn, types)
    return types


def _adjust(rng: np.random.Generator, table: Array, wanted: int) -> None:
    """Add or remove edges of a symmetric table at random until there are `wanted`."""
    upper = np.triu_indices(len(table), 1)
    present = table[upper]
    missing = wanted - int(present.sum())
    chosen = rng.permutation(np.flatnonzero(~present if missing > 0 else present))[: abs(missing)]
    source, target = upper[0][chosen], upper[1][chosen]
    table[source, target] = table[target, source] = missing > 0


# Families: two arrays of about `edges` ends each, which may repeat; `_adjust` makes their number exact.


def _random(rng: np.random.Generator, nodes: int, edges: int) -> Array:
    """Draw Erdős and Rényi's graph: any edges."""
    return np.zeros((2, 0), dtype=np.int64)


def _regular(rng: np.random.Generator, nodes: int, edges: int) -> Array:
    """Make degrees as equal as they can be: stubs are paired at random, those of loops and repeated edges once more."""
    stubs = np.concatenate([rng.permutation(nodes) for _ in range(-(-2 * edges // nodes))])[: 2 * edges]
    for _ in range(50):
        pairs = stubs.reshape(2, -1)
        low, high = pairs.min(0), pairs.max(0)
        first = np.zeros(edges, dtype=bool)
        first[np.unique(low * nodes + high, return_index=True)[1]] = True
        bad = (low == high) | ~first
        if not bad.any():
            break
        bad[rng.integers(edges, size=2 * bad.sum())] = True  # with good ones, or the last could never be mended
        again = np.flatnonzero(np.concatenate([bad, bad]))
        stubs[again] = stubs[rng.permutation(again)]
    return stubs.reshape(2, -1)


def _attachment(rng: np.random.Generator, nodes: int, edges: int) -> Array:
    """Draw Barabási and Albert's graph: each node is tied to earlier ones, to those of many edges more often."""
    later = np.sort(np.concatenate([np.arange(1, nodes), rng.integers(2, nodes, size=edges - nodes + 1)]))
    ends: list[int] = []
    pick = rng.random(edges)
    for node, chance in zip(later.tolist(), pick, strict=True):
        ends += [node, ends[int(chance * len(ends))] if ends else 0]
    return np.array(ends).reshape(-1, 2).T


def _small_world(rng: np.random.Generator, nodes: int, edges: int) -> Array:
    """Draw Watts and Strogatz's ring: each node is tied to the next, the second next and so on."""
    step, source = np.divmod(np.arange(edges), nodes)
    return np.stack([source, (source + step + 1) % nodes])


def _communities(rng: np.random.Generator, nodes: int, edges: int) -> Array:
    """Draw three equal groups; nine of ten edges lie within one."""
    group = np.arange(nodes) % 3
    source, target = np.triu_indices(nodes, 1)
    weight = rng.random(len(source)) ** np.where(group[source] == group[target], 1 / 18, 1.0)
    chosen = np.argsort(-weight)[:edges]
    return np.stack([source[chosen], target[chosen]])


def _geometric(rng: np.random.Generator, nodes: int, edges: int) -> Array:
    """Draw points in the unit square; the closest pairs are tied."""
    place = rng.random((nodes, 2))
    source, target = np.triu_indices(nodes, 1)
    chosen = np.argsort(((place[source] - place[target]) ** 2).sum(1))[:edges]
    return np.stack([source[chosen], target[chosen]])


def _grid(rng: np.random.Generator, nodes: int, edges: int) -> Array:
    """Draw a torus of rows and columns, without triangles; edges beyond four a node go three along and one across."""
    width = max(4, round(nodes**0.5))
    node = np.arange(nodes)
    ties = [np.stack([node, (node + step) % nodes]) for step in (1, width, width + 3)]
    kept = np.concatenate(ties[:2], axis=1)
    if edges > 2 * nodes:
        return np.concatenate([kept, ties[2][:, rng.permutation(nodes)[: edges - 2 * nodes]]], axis=1)
    return kept


def _cliques(rng: np.random.Generator, nodes: int, edges: int) -> Array:
    """Draw a ring of cliques of four to six nodes."""
    size = int(np.clip(round(2 * edges / nodes), 4, 6))
    source, target = np.triu_indices(nodes, 1)
    same = source // size == target // size
    heads = np.arange(0, nodes, size)
    return np.concatenate([np.stack([source[same], target[same]]), np.stack([heads, np.roll(heads, 1)])], axis=1)


FAMILIES: dict[str, Callable[[np.random.Generator, int, int], Array]] = {
    "random": _random,
    "regular": _regular,
    "attachment": _attachment,
    "small world": _small_world,
    "communities": _communities,
    "geometric": _geometric,
    "grid": _grid,
    "cliques": _cliques,
}
