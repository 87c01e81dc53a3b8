"""The nodes of networks as samples, divided by the networks' masks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from jepa_lightning.data import DataError
from jepa_lightning.data.loaders import SPLITS
from modalities.graph.neighbourhoods import Network
from modalities.graph.reading import to_graph
from modalities.graph.transforms import Cutting

_log = logging.getLogger(__name__)


class Neighbourhoods(Dataset[dict[str, Any]]):
    """Nodes of networks as dicts: `graph` (a `Neighbourhood`), `labels`.

    Args:
        networks: one, or several.
        nodes: of each network, (n,) int64 numbers of those that are samples.
        known: of each network, (N,) bool: whose label is told. The label of others is -1, or NaN where it is no class.
        name: names the samples, `Cora[12]`; of several networks `PPI[0][12]`.
        classes: their names, where they are known.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        nodes: Sequence[NDArray[np.int64]],
        known: Sequence[NDArray[np.bool_]],
        *,
        name: str,
        classes: list[str] | None = None,
    ) -> None:
        self.networks = networks
        self._nodes = np.concatenate(nodes)
        self._network = np.repeat(np.arange(len(networks)), [len(some) for some in nodes])
        self._known = known
        self._name = name
        self.classes = classes
        targets = [self._targets(network, of, told) for network, of, told in zip(networks, nodes, known, strict=True)]
        there = [some for some in targets if some is not None]
        if there and len(there) == len(targets):
            self.targets = np.concatenate(there)

    @staticmethod
    def _targets(network: Network, nodes: NDArray[np.int64], known: NDArray[np.bool_]) -> NDArray[np.int64] | None:
        if network.labels is None or network.labels.is_floating_point():
            return None
        return np.where(known[nodes], network.labels.numpy()[nodes], -1)

    def __len__(self) -> int:
        return len(self._nodes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Sample `index`."""
        number, node = int(self._network[index]), int(self._nodes[index])
        network = self.networks[number]
        sample: dict[str, Any] = {"graph": network.around(node), "labels": {}}
        if network.labels is not None:
            label = network.labels[node]
            nothing = float("nan") if label.is_floating_point() else -1
            sample["labels"] = {"label": label if self._known[number][node] else torch.full_like(label, nothing)}
        return sample

    def sample_id(self, index: int) -> str:
        """Name of sample `index`."""
        number = f"[{self._network[index]}]" if len(self.networks) > 1 else ""
        return f"{self._name}{number}[{self._nodes[index]}]"


def open_networks(
    dataset: Dataset[Any], *, radius: int, neighbours: int | None, cutting: Cutting
) -> dict[str, Dataset[Any]]:
    """Make the nodes of the graphs of a dataset its samples, by split.

    Where the graphs have `train_mask`, `val_mask` and `test_mask` (PyG's Planetoid), all nodes are in the training
    part, as is the custom (transductive), and labels are told there of those of the train_mask alone, or without one of
    those in no mask; the other parts are the nodes of their masks. Of several divisions (masks of shape (N, k)) the
    first is taken, which is logged. Without masks all nodes are the training part, and all labels are told.

    Args:
        dataset: gives PyG's `Data` whose `y`, if there is one, has a label for each node: classes (N,) or (N, 1), -1
            for none, or floats (N,) or (N, k).
        radius: edges from a node to the farthest that is around it.
        neighbours: how many neighbours are followed, at most.
        cutting: how what is around a node is cut.

    Raises:
        DataError: a setting is out of range; the dataset has no graphs, or one that is broken or has labels or masks of
            another number than nodes; graphs of which only some have masks.
    """
    if radius < 1:
        raise DataError(f"expected data.radius of at least 1 edge, got {radius}")
    if neighbours is not None and neighbours < 1:
        raise DataError(f"expected data.neighbours of at least 1, got {neighbours}")
    if not len(dataset):  # type: ignore[arg-type]
        raise DataError(
            f"expected a dataset of at least one graph with data.radius, got an empty {type(dataset).__name__}"
        )
    networks: list[Network] = []
    masks: list[dict[str, NDArray[np.bool_]]] = []
    for number in range(len(dataset)):  # type: ignore[arg-type]
        data = dataset[number]
        try:
            graph = to_graph(data, features=cutting.features, edge_features=cutting.edge_features)
        except DataError:
            raise
        except ValueError as error:
            raise DataError(
                f"cannot read graph {number} of {type(dataset).__name__}, whose nodes are samples: {error}"
            ) from error
        count = len(graph.nodes)
        labels = _labels(getattr(data, "y", None), count)
        masks.append(_masks(data, count))
        networks.append(Network(graph, labels, radius=radius, neighbours=neighbours, cutting=cutting))
    name = str(getattr(dataset, "name", None) or type(dataset).__name__)
    splits = {split for split in SPLITS if any(split in found for found in masks)}
    for found in masks:
        if set(found) != splits:
            raise DataError(
                f"expected the same masks of all graphs of {name}, got {_listed(splits)} of one and {_listed(found)} "
                "of another: give each all, or none"
            )
    classes = getattr(dataset, "classes", None)
    everyone = [np.ones(len(network.graph.nodes), dtype=bool) for network in networks]
    parts: dict[str, Dataset[Any]] = {}
    for split in ("train", *(split for split in SPLITS[1:] if split in splits)):
        told = [
            found[split] if split in found else _others(found, len(all_))
            for found, all_ in zip(masks, everyone, strict=True)
        ]
        chosen = everyone if split == "train" else told
        if any(some.any() for some in chosen):
            parts[split] = Neighbourhoods(
                networks, [np.flatnonzero(some) for some in chosen], told, name=name, classes=classes
            )
    return parts


def _others(masks: dict[str, NDArray[np.bool_]], count: int) -> NDArray[np.bool_]:
    """Tell which nodes are in none of these masks, (N,): those that may be learned from without a train_mask."""
    return ~np.any([np.zeros(count, dtype=bool), *masks.values()], axis=0)


def _listed(splits: Any) -> str:
    return ", ".join(f"{split}_mask" for split in SPLITS if split in splits) or "none"


def _labels(y: Any, count: int) -> Tensor | None:
    """Labels of the nodes, int64 (N,) or float32 (N,) or (N, k)."""
    if y is None:
        return None
    y = torch.as_tensor(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if len(y.shape) == 0 or len(y) != count or (y.ndim > 1 and not y.is_floating_point()):
        raise DataError(
            f"expected y to have one class, or float numbers, for each of the {count} nodes, got a {y.dtype} of shape "
            f"{tuple(y.shape)}: with data.radius the samples are nodes; leave it out where they are graphs"
        )
    return y.float() if y.is_floating_point() else y.long()


def _masks(data: Any, count: int) -> dict[str, NDArray[np.bool_]]:
    """Masks (N,) of the splits that a graph has."""
    found = {}
    for split in SPLITS:
        mask = getattr(data, f"{split}_mask", None)
        if mask is None:
            continue
        mask = torch.as_tensor(mask)
        if mask.ndim == 2:
            _log.info("of the %d divisions of %s_mask the first is taken", mask.shape[1], split)
            mask = mask[:, 0]
        if mask.shape != (count,):
            raise DataError(f"expected {split}_mask of the {count} nodes, got one of shape {tuple(mask.shape)}")
        found[split] = mask.bool().numpy()
    return found
